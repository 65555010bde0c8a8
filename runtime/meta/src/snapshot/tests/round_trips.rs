//! Out of one database, into another, and out again.

use super::*;

async fn moved(from: World, to: World) {
    fill(&from.metadata).await;
    let snapshot = exported(&from.metadata).await;

    let report = import(&to.metadata, &snapshot).await.unwrap();

    let again = exported(&to.metadata).await;
    assert_eq!(body(&again), body(&snapshot));
    assert_eq!(
        snapshot.lines().count() as u64,
        2 + report.tables.iter().map(|table| table.rows).sum::<u64>()
    );
    assert!(report.tables.iter().all(|table| table.rows > 0), "{report:?}");
    let identity = to.metadata.identity(id(77)).await.unwrap();
    assert_eq!(identity.former, Some(id(1)));
    assert!(![id(1), id(77)].contains(&identity.id), "{identity:?}");
}

#[tokio::test]
async fn sqlite_becomes_postgres() {
    moved(sqlite().await, postgres().await).await;
}

#[tokio::test]
async fn postgres_becomes_sqlite() {
    moved(postgres().await, sqlite().await).await;
}

#[tokio::test]
async fn sqlite_becomes_sqlite() {
    moved(sqlite().await, sqlite().await).await;
}

#[tokio::test]
async fn postgres_becomes_postgres() {
    moved(postgres().await, postgres().await).await;
}

#[tokio::test]
async fn an_empty_database_is_a_snapshot_as_well() {
    let (from, to) = (sqlite().await, postgres().await);
    let snapshot = exported(&from.metadata).await;
    assert!(snapshot.contains(r#""database":null"#), "{snapshot}");
    import(&to.metadata, &snapshot).await.unwrap();
    assert_eq!(body(&exported(&to.metadata).await), body(&snapshot));
}

#[tokio::test]
async fn of_a_database_that_was_imported_only_the_last_id_is_the_former_one() {
    let (first, second, third) = (sqlite().await, postgres().await, sqlite().await);
    fill(&first.metadata).await;
    import(&second.metadata, &exported(&first.metadata).await)
        .await
        .unwrap();
    import(&third.metadata, &exported(&second.metadata).await)
        .await
        .unwrap();
    let second = second.metadata.identity(id(77)).await.unwrap();
    let third = third.metadata.identity(id(77)).await.unwrap();
    assert_eq!(third.former, Some(second.id));
}

#[tokio::test]
async fn an_import_is_seen_at_once_by_who_asked_before() {
    for (from, to) in [(postgres().await, sqlite().await), (sqlite().await, postgres().await)] {
        fill(&from.metadata).await;
        assert!(to.metadata.cached().topic("b-topic").await.unwrap().is_none());
        import(&to.metadata, &exported(&from.metadata).await).await.unwrap();
        assert!(to.metadata.cached().topic("b-topic").await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_new_holder_gets_a_greater_epoch_at_once() {
    for (from, to) in [(sqlite().await, postgres().await), (postgres().await, sqlite().await)] {
        fill(&from.metadata).await;
        import(&to.metadata, &exported(&from.metadata).await).await.unwrap();
        let before = epoch(&from.metadata, id(2), 1).await;
        register(&to.metadata, "b", id(20)).await;
        let lease = to.metadata.acquire_lease(id(2), 1, id(20)).await.unwrap();
        assert!(lease.epoch > before);
        assert_eq!((lease.committed_end, lease.wal), (Offset(20), Some(id(9))));
    }
}

#[tokio::test]
async fn running_agents_are_named_and_their_leases_are_over_in_the_new_database() {
    let (from, to) = (sqlite().await, postgres().await);
    fill(&from.metadata).await;
    register(&from.metadata, "runs", id(30)).await;
    from.metadata.acquire_lease(id(3), 0, id(30)).await.unwrap();
    let snapshot = exported(&from.metadata).await;

    let error = import(&to.metadata, &snapshot).await.unwrap_err().to_string();
    assert!(
        error.contains("line 1: ") && error.contains("(runs)") && error.contains("--running"),
        "{error}"
    );

    let options = ImportOptions {
        database: id(2),
        running: true,
    };
    let mut input = snapshot.as_bytes();
    to.metadata.import(&mut input, options, &|_| {}).await.unwrap();
    assert!(to.metadata.agents().await.unwrap().iter().all(|agent| !agent.live));
    register(&to.metadata, "other", id(31)).await;
    to.metadata.acquire_lease(id(3), 0, id(31)).await.unwrap();
}

#[tokio::test]
async fn a_database_that_holds_something_is_left_alone() {
    for to in [sqlite().await, postgres().await] {
        let from = sqlite().await;
        fill(&from.metadata).await;
        let snapshot = exported(&from.metadata).await;
        to.metadata.identity(id(5)).await.unwrap();
        let before = exported(&to.metadata).await;
        let error = import(&to.metadata, &snapshot).await.unwrap_err().to_string();
        assert!(
            error.contains("not empty") && error.contains("on which no agent has run"),
            "{error}"
        );
        assert_eq!(exported(&to.metadata).await, before);
    }
}

#[tokio::test]
async fn an_export_is_of_one_moment() {
    for world in [sqlite().await, postgres().await] {
        fill(&world.metadata).await;
        let whole = exported(&world.metadata).await;
        let (mut out, mut read) = tokio::io::duplex(16);
        let metadata = world.metadata.clone();
        let export = tokio::spawn(async move { metadata.export(&mut out, NOW_MS, &|_| {}).await.map(drop) });
        // The first line is out, the others wait until somebody reads on.
        let mut first = [0; 16];
        tokio::io::AsyncReadExt::read_exact(&mut read, &mut first)
            .await
            .unwrap();
        world.metadata.delete_topic(id(3), NOW_MS).await.unwrap();
        let mut rest = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut read, &mut rest)
            .await
            .unwrap();
        export.await.unwrap().unwrap();
        assert_eq!(String::from_utf8(first.to_vec()).unwrap() + &rest, whole);
    }
}
