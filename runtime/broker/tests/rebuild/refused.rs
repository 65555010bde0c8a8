//! What is missing is told, and nothing is written before somebody decides.

use millstream_broker::{
    Acks, BrokerError, TopicConfig, WalKind,
    rebuild::{OnGap, RebuildSettings},
};
use millstream_log::Store;
use millstream_meta::MetaError;

use crate::{
    rebuilt, reopened, settings,
    support::{World, batch, read_all, segment, topic},
};

/// Three segments, of which the second is lost, and then the database.
async fn with_a_hole() -> World {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    let forever = TopicConfig {
        retention_ms: None,
        ..TopicConfig::default()
    };
    topic(&broker, "t", forever).await;
    for n in 0..3 {
        segment(&broker, "t", 0, n * 10..n * 10 + 10).await;
    }
    broker.sweep().await.unwrap();
    broker.stop().await;
    let keys = world.segments("t").await;
    world.store().delete(&keys[1]).await.unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_segment_is_named_and_nothing_is_written() {
    let world = with_a_hole().await;
    let error = rebuilt(&world, &settings(&world)).await.unwrap_err();
    let BrokerError::RebuildGaps { gaps } = &error else {
        panic!("{error}")
    };
    assert_eq!((gaps.len(), gaps[0].gap.from, gaps[0].gap.to), (1, 10, 20));
    let text = error.to_string();
    for said in ["partition 0", "\"t\"", "10 to 20", "keep-front", "keep-back"] {
        assert!(text.contains(said), "{text}");
    }
    crate::another_database(&world).await.expect_empty().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_of_a_gap_can_be_kept() {
    for (on_gap, expected) in [(OnGap::KeepFront, 0..10), (OnGap::KeepBack, 20..30)] {
        let world = with_a_hole().await;
        let settings = RebuildSettings {
            on_gap,
            ..settings(&world)
        };
        let (metadata, report) = rebuilt(&world, &settings).await.unwrap();
        assert_eq!(report.left_out["behind-gap"].count, 1);
        let broker = reopened(&world, metadata).await;
        let found: Vec<u64> = read_all(&broker, "t", 0)
            .await
            .into_iter()
            .map(|(offset, _)| offset)
            .collect();
        assert_eq!(found, expected.collect::<Vec<u64>>());
        // What is left out is not an orphan that may go at once.
        world.clock.advance(std::time::Duration::from_secs(24 * 3_600));
        broker.sweep().await.unwrap();
        assert_eq!(world.segments("t").await.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_holds_something_is_left_alone() {
    let world = with_a_hole().await;
    crate::another_database(&world)
        .await
        .identity(uuid::Uuid::nil())
        .await
        .unwrap();
    let error = rebuilt(&world, &settings(&world)).await.unwrap_err();
    assert!(
        matches!(error, BrokerError::Meta(MetaError::NotEmpty { .. })),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_foreign_objects_are_left_out_and_told() {
    let world = with_a_hole().await;
    let store: Store = world.store();
    let damaged = "t/0/seg_00000000000000000010_00000000000000000000000000000abc.bin";
    store
        .put_new(damaged, vec![bytes::Bytes::from_static(b"nothing")])
        .await
        .unwrap();
    store
        .put_new("t/notes.txt", vec![bytes::Bytes::from_static(b"nothing")])
        .await
        .unwrap();
    let settings = RebuildSettings {
        dry_run: true,
        ..settings(&world)
    };
    let (_, report) = rebuilt(&world, &settings).await.unwrap();
    assert!(report.left_out["damaged"].objects[0].starts_with(damaged));
    assert!(report.left_out["foreign"].objects[0].starts_with("t/notes.txt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_still_runs_acknowledges_nothing_more_in_the_store() {
    let mut world = World::new();
    world.wal = WalKind::Object;
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    broker.produce("t", 0, batch(0..3), Acks::Durable).await.unwrap();
    rebuilt(&world, &settings(&world)).await.unwrap();
    broker.produce("t", 0, batch(3..6), Acks::Durable).await.unwrap_err();
}

/// The files of logs on the disk, the first one first.
fn log_files(world: &World) -> Vec<std::path::PathBuf> {
    let logs = std::fs::read_dir(world.dir.path().join("wal")).unwrap();
    let files = logs.flat_map(|log| std::fs::read_dir(log.unwrap().path()).unwrap());
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// Two segments, a third one's records in the log alone, and the database lost.
async fn with_a_log(wal: WalKind) -> World {
    let mut world = World::new();
    world.wal = wal;
    let broker = world.open(|_| {}).await;
    let forever = TopicConfig {
        retention_ms: None,
        ..TopicConfig::default()
    };
    topic(&broker, "t", forever).await;
    for n in 0..2 {
        segment(&broker, "t", 0, n * 10..n * 10 + 10).await;
    }
    for n in 20..30 {
        broker.produce("t", 0, batch(n..n + 1), Acks::Durable).await.unwrap();
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_named_and_goes_on_in_nothing() {
    let world = with_a_log(WalKind::Object).await;
    let store = world.store();
    let key = store.list("_wal").await.unwrap().swap_remove(5);
    let mut bytes = store.get(&key).await.unwrap().to_vec();
    bytes[70] ^= 0x55;
    store.delete(&key).await.unwrap();
    store.put_new(&key, vec![bytes.into()]).await.unwrap();

    let error = rebuilt(&world, &settings(&world)).await.unwrap_err();
    let BrokerError::RebuildLogs { damages } = &error else {
        panic!("{error}")
    };
    let text = error.to_string();
    for said in [&damages[0].id.to_string(), "copy", "keep-front", "keep-back"] {
        assert!(text.contains(said), "{text}");
    }
    crate::another_database(&world).await.expect_empty().await.unwrap();

    let without = RebuildSettings {
        on_gap: OnGap::KeepFront,
        ..settings(&world)
    };
    let (metadata, report) = rebuilt(&world, &without).await.unwrap();
    assert_eq!(
        (report.topics[0].partitions[0].end, &report.topics[0].partitions[0].wal),
        (20, &None)
    );
    let broker = reopened(&world, metadata).await;
    assert_eq!(read_all(&broker, "t", 0).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_answer_is_an_error_and_no_shorter_log() {
    let world = with_a_log(WalKind::Disk).await;
    let file = &log_files(&world)[0];
    std::fs::remove_file(file).unwrap();
    // Reading it is refused, whoever asks.
    std::fs::create_dir(file).unwrap();
    for on_gap in [OnGap::Refuse, OnGap::KeepFront, OnGap::KeepBack] {
        let settings = RebuildSettings {
            on_gap,
            ..settings(&world)
        };
        let error = rebuilt(&world, &settings).await.unwrap_err();
        assert!(matches!(error, BrokerError::Log(_)), "{error}");
    }
}
