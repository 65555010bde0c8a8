use millstream_batch::Offset;
use millstream_meta::{CommitOutcome, Lease, MetaError};
use uuid::Uuid;

use crate::{Fixture, NOW_MS, TASKS, is_fenced, new_segment};

on_both! {
    a_name_keeps_its_id_and_gets_a_greater_epoch_each_time,
    a_name_whose_epochs_are_used_up_gets_another_id,
    no_two_starts_of_a_name_get_the_same_epoch,
    what_a_partition_knows_is_kept_with_the_segment_that_notes_it,
    what_a_partition_knows_is_kept_at_its_committed_end_alone,
    a_topic_takes_what_its_partitions_know_with_it,
}

async fn a_name_keeps_its_id_and_gets_a_greater_epoch_each_time(fixture: Fixture) {
    for (fresh, expected) in [(5, (5, 0)), (6, (5, 1)), (7, (5, 2))] {
        let identity = fixture.metadata.init_producer("shop", fresh, NOW_MS).await.unwrap();
        assert_eq!((identity.id, identity.epoch), expected);
    }
    let other = fixture.metadata.init_producer("Shop", i64::MAX, NOW_MS).await.unwrap();
    assert_eq!((other.id, other.epoch), (i64::MAX, 0));
    let error = fixture.metadata.init_producer("shop", -1, NOW_MS).await.unwrap_err();
    assert!(matches!(error, MetaError::Invalid { .. }), "{error}");
}

async fn a_name_whose_epochs_are_used_up_gets_another_id(fixture: Fixture) {
    fixture.metadata.init_producer("shop", 5, NOW_MS).await.unwrap();
    fixture.sql("UPDATE producers SET producer_epoch = 32766").await;
    for (fresh, expected) in [(6, (5, 32_767)), (7, (7, 0)), (8, (7, 1))] {
        let identity = fixture.metadata.init_producer("shop", fresh, NOW_MS).await.unwrap();
        assert_eq!((identity.id, identity.epoch), expected);
    }
}

async fn no_two_starts_of_a_name_get_the_same_epoch(fixture: Fixture) {
    let mut clients = Vec::new();
    for task in 0..TASKS {
        let metadata = fixture.client().await;
        clients.push(tokio::spawn(async move {
            metadata.init_producer("shop", task as i64, NOW_MS).await.unwrap()
        }));
    }
    let mut given = Vec::new();
    for client in clients {
        let identity = client.await.unwrap();
        given.push((identity.id, identity.epoch));
    }
    given.sort_unstable();
    let id = given[0].0;
    let expected: Vec<_> = (0..TASKS as i16).map(|epoch| (id, epoch)).collect();
    assert_eq!(given, expected);
}

async fn what_a_partition_knows_is_kept_with_the_segment_that_notes_it(fixture: Fixture) {
    let lease = fixture.lease().await;
    assert_eq!(known(&fixture, &lease).await, None);
    let segment = new_segment("k1", 0, 10);
    for expected in [CommitOutcome::Committed, CommitOutcome::AlreadyCommitted] {
        let noting = fixture.metadata.commit_segment_noting(&lease, &segment, Some("one"));
        assert_eq!(noting.await.unwrap(), expected);
        assert_eq!(known(&fixture, &lease).await.as_deref(), Some("one"));
    }
    // A segment that notes nothing leaves it as it is, and one that is not committed changes nothing.
    fixture
        .metadata
        .commit_segment(&lease, &new_segment("k2", 10, 20))
        .await
        .unwrap();
    let other = new_segment("k3", 10, 30);
    let error = fixture
        .metadata
        .commit_segment_noting(&lease, &other, Some("two"))
        .await
        .unwrap_err();
    assert!(is_fenced(&error, lease.epoch), "{error}");
    assert_eq!(known(&fixture, &lease).await.as_deref(), Some("one"));
}

async fn what_a_partition_knows_is_kept_at_its_committed_end_alone(fixture: Fixture) {
    let lease = fixture.lease().await;
    let keep = |lease, end, state| fixture.metadata.keep_partition_producers(lease, Offset(end), state);
    keep(&lease, 0, "one").await.unwrap();
    keep(&lease, 0, "two").await.unwrap();
    let error = keep(&lease, 5, "three").await.unwrap_err();
    assert!(is_fenced(&error, lease.epoch), "{error}");
    let newer = fixture
        .metadata
        .acquire_lease(lease.topic_id, 0, Uuid::from_u128(100))
        .await
        .unwrap();
    let error = keep(&lease, 0, "four").await.unwrap_err();
    assert!(is_fenced(&error, lease.epoch), "{error}");
    assert_eq!(known(&fixture, &lease).await.as_deref(), Some("two"));
    keep(&newer, 0, "five").await.unwrap();
}

async fn a_topic_takes_what_its_partitions_know_with_it(fixture: Fixture) {
    let lease = fixture.lease().await;
    fixture
        .metadata
        .keep_partition_producers(&lease, Offset(0), "one")
        .await
        .unwrap();
    fixture.metadata.delete_topic(lease.topic_id, NOW_MS).await.unwrap();
    assert_eq!(known(&fixture, &lease).await, None);
    let left = fixture.column("SELECT COUNT(*) FROM partition_producers").await;
    assert_eq!(left, ["0"]);
}

/// What the partition of a lease knows, read together with a partition that knows nothing.
async fn known(fixture: &Fixture, lease: &Lease) -> Option<String> {
    let other = Lease {
        partition: 9,
        ..lease.clone()
    };
    let asked = [other, lease.clone()];
    let mut states = fixture.metadata.partition_producers(&asked).await.unwrap();
    assert_eq!((states.len(), &states[0]), (2, &None));
    states.remove(1)
}
