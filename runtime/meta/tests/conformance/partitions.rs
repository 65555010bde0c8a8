use millstream_batch::Offset;
use millstream_meta::{Holder, PartitionRow, WalKind};
use uuid::Uuid;

use crate::{Fixture, NOW_MS, new_segment};

on_both! {
    a_partition_tells_its_offsets_its_pointer_and_its_holder,
    a_holder_that_does_not_live_is_told_as_such,
    what_does_not_exist_has_no_row,
    methods_of_one_statement_ask_once,
}

async fn a_partition_tells_its_offsets_its_pointer_and_its_holder(fixture: Fixture) {
    let topic = fixture.topic(1, "orders", 2).await;
    let row = async || fixture.metadata.partition(topic.id, 1).await.unwrap().unwrap();
    let empty = PartitionRow {
        epoch: millstream_batch::Epoch(0),
        log_start: Offset(0),
        committed_end: Offset(0),
        wal: None,
        holder: None,
    };
    assert_eq!(row().await, empty);

    let a = fixture.incarnation_of("a", 100, WalKind::Object).await;
    let lease = fixture.metadata.acquire_lease(topic.id, 1, a).await.unwrap();
    fixture.metadata.move_wal_pointer(&lease, a).await.unwrap();
    fixture
        .metadata
        .commit_segment(&lease, &new_segment("k", 0, 10))
        .await
        .unwrap();
    fixture.metadata.truncate(&lease, Offset(4), NOW_MS).await.unwrap();
    let holder = Holder {
        agent: "a".to_owned(),
        address: "host:7070".to_owned(),
        incarnation: a,
        live: true,
    };
    let held = PartitionRow {
        epoch: lease.epoch,
        log_start: Offset(4),
        committed_end: Offset(10),
        wal: Some(a),
        holder: Some(holder),
    };
    assert_eq!(row().await, held);

    assert!(fixture.released(&lease, 10).await);
    let released = row().await;
    assert!(released.epoch > lease.epoch);
    assert_eq!((released.wal, released.holder), (None, None));
}

async fn a_holder_that_does_not_live_is_told_as_such(fixture: Fixture) {
    let lease = fixture.lease().await;
    let holder = async || {
        let row = fixture.metadata.partition(lease.topic_id, 0).await.unwrap().unwrap();
        row.holder.map(|holder| (holder.incarnation.as_u128(), holder.live))
    };
    assert_eq!(holder().await, Some((100, true)));
    fixture.expire("agent").await;
    assert_eq!(holder().await, Some((100, false)));
    fixture.incarnation(101).await;
    assert_eq!(holder().await, Some((100, false)), "superseded");
}

async fn what_does_not_exist_has_no_row(fixture: Fixture) {
    let topic = fixture.topic(1, "orders", 2).await;
    for (topic_id, partition) in [(topic.id, 2), (topic.id, u32::MAX), (Uuid::from_u128(9), 0)] {
        assert_eq!(fixture.metadata.partition(topic_id, partition).await.unwrap(), None);
    }
}

/// How many statements a call sends.
async fn asked<T>(fixture: &Fixture, call: impl Future<Output = T>) -> (T, u64) {
    let before = fixture.metadata.stats().queries;
    let answer = call.await;
    (answer, fixture.metadata.stats().queries - before)
}

async fn methods_of_one_statement_ask_once(fixture: Fixture) {
    let metadata = &fixture.metadata;
    let lease = fixture.lease().await;
    let keys: Vec<String> = (0..500).map(|n| format!("k{n}")).collect();
    let wals: Vec<Uuid> = (0..500).map(Uuid::from_u128).collect();
    let leases = vec![lease.clone(); 500];
    assert_eq!(asked(&fixture, metadata.named_keys(&keys)).await.1, 1);
    assert_eq!(asked(&fixture, metadata.retired_wals(&wals)).await.1, 1);
    let (held, queries) = asked(&fixture, metadata.holds_leases(&leases)).await;
    assert_eq!((held.unwrap(), queries), (vec![true; 500], 1));
    assert_eq!(asked(&fixture, metadata.topic("orders")).await.1, 1);
    assert_eq!(asked(&fixture, metadata.partition(lease.topic_id, 0)).await.1, 1);
    let (committed, queries) = asked(&fixture, metadata.commit_segment(&lease, &new_segment("k", 0, 1))).await;
    committed.unwrap();
    // SQLite is not a network away: there it is a transaction of several.
    assert!(queries == 1 || metadata.place().starts_with('/'), "{queries}");
    assert!(metadata.named_keys(&[]).await.unwrap().is_empty());
    assert!(metadata.retired_wals(&[]).await.unwrap().is_empty());
    assert!(metadata.holds_leases(&[]).await.unwrap().is_empty());
}
