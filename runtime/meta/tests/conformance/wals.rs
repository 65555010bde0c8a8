use millstream_batch::Offset;
use millstream_meta::{MetaError, PointedPartition, WalKind, WalStream};
use uuid::Uuid;

use crate::{Fixture, NOW_MS, is_fenced};

on_both! {
    a_wal_is_retired_only_when_no_pointer_names_it,
    deleting_a_topic_frees_the_wals_its_partitions_pointed_to,
    every_partition_with_a_pointer_is_listed,
    what_is_asked_of_a_wal_that_nobody_knows_is_refused,
    a_trim_floor_only_moves_up,
}

async fn a_wal_is_retired_only_when_no_pointer_names_it(fixture: Fixture) {
    let lease = fixture.lease().await;
    let (old, new) = (Uuid::from_u128(100), fixture.incarnation(101).await);
    fixture.metadata.move_wal_pointer(&lease, old).await.unwrap();
    assert!(!fixture.metadata.retire_wal(old).await.unwrap());
    let dead = WalStream {
        id: old,
        kind: WalKind::Disk,
        trim_floor: 0,
    };
    assert_eq!(fixture.metadata.dead_wals(new).await.unwrap(), [dead]);
    assert!(fixture.metadata.retired_wals(&[old, new]).await.unwrap().is_empty());

    fixture.metadata.move_wal_pointer(&lease, new).await.unwrap();
    assert!(fixture.metadata.retire_wal(old).await.unwrap());
    assert!(fixture.metadata.retire_wal(old).await.unwrap());
    assert!(fixture.metadata.dead_wals(new).await.unwrap().is_empty());
    let among = [Uuid::from_u128(7), old, new];
    assert_eq!(fixture.metadata.retired_wals(&among).await.unwrap(), [old]);
    let error = fixture.metadata.move_wal_pointer(&lease, old).await.unwrap_err();
    assert!(matches!(error, MetaError::WalDeleted { wal } if wal == old), "{error}");
}

async fn deleting_a_topic_frees_the_wals_its_partitions_pointed_to(fixture: Fixture) {
    let lease = fixture.lease().await;
    let wal = Uuid::from_u128(100);
    fixture.metadata.move_wal_pointer(&lease, wal).await.unwrap();
    fixture.metadata.delete_topic(lease.topic_id, NOW_MS).await.unwrap();
    assert!(fixture.metadata.retire_wal(wal).await.unwrap());
    let error = fixture
        .metadata
        .move_wal_pointer(&lease, fixture.incarnation(101).await)
        .await
        .unwrap_err();
    assert!(is_fenced(&error, lease.epoch), "{error}");
}

async fn every_partition_with_a_pointer_is_listed(fixture: Fixture) {
    let topic = fixture.topic(1, "orders", 3).await;
    let wal = fixture.incarnation(100).await;
    for partition in [2, 0] {
        let lease = fixture.metadata.acquire_lease(topic.id, partition, wal).await.unwrap();
        fixture.metadata.move_wal_pointer(&lease, wal).await.unwrap();
    }
    fixture.metadata.move_trim_floor(wal, 7).await.unwrap();
    let expected = [0, 2].map(|partition| PointedPartition {
        topic_id: topic.id,
        partition,
        committed_end: Offset(0),
        wal,
        kind: WalKind::Disk,
        trim_floor: 7,
    });
    assert_eq!(fixture.metadata.pointed_partitions().await.unwrap(), expected);
}

async fn what_is_asked_of_a_wal_that_nobody_knows_is_refused(fixture: Fixture) {
    let id = fixture.incarnation(100).await;
    let unknown = Uuid::from_u128(9);
    let lease = fixture.lease_of_known(id).await;
    for error in [
        fixture.metadata.retire_wal(unknown).await.unwrap_err(),
        fixture.metadata.move_wal_pointer(&lease, unknown).await.unwrap_err(),
    ] {
        assert!(matches!(error, MetaError::NotFound { what: "WAL", .. }), "{error}");
    }
}

async fn a_trim_floor_only_moves_up(fixture: Fixture) {
    let wal = fixture.incarnation(100).await;
    for (asked, found) in [(3, 3), (2, 3), (3, 3), (9, 9)] {
        fixture.metadata.move_trim_floor(wal, asked).await.unwrap();
        assert_eq!(fixture.metadata.wal(wal).await.unwrap().unwrap().trim_floor, found);
    }
    let unknown = Uuid::from_u128(9);
    assert_eq!(fixture.metadata.wal(unknown).await.unwrap(), None);
    let error = fixture.metadata.move_trim_floor(unknown, 1).await.unwrap_err();
    assert!(matches!(error, MetaError::NotFound { what: "WAL", .. }), "{error}");
}

impl Fixture {
    async fn lease_of_known(&self, incarnation: Uuid) -> millstream_meta::Lease {
        let topic = self.topic(5, "events", 1).await;
        self.metadata.acquire_lease(topic.id, 0, incarnation).await.unwrap()
    }
}
