use millstream_batch::{Epoch, Offset};
use millstream_meta::{CommitOutcome, Lease, MetaError};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{Fixture, NOW_MS, TASKS, is_fenced, new_segment};

on_both! {
    the_first_lease_of_a_partition_starts_at_nothing,
    racing_acquisitions_each_get_an_epoch_of_their_own_and_the_last_one_holds,
    a_partition_whose_epochs_are_used_up_says_so_and_stays_fenced,
    a_lease_needs_a_known_partition_and_a_known_incarnation,
    a_new_holder_finds_the_pointer_of_the_one_before,
    a_lease_is_released_only_when_everything_is_committed_and_then_it_is_over,
    a_fenced_holder_cannot_release_what_another_holds,
    a_lease_is_held_until_another_one_is_given_or_it_is_released,
}

async fn the_first_lease_of_a_partition_starts_at_nothing(fixture: Fixture) {
    let lease = fixture.lease().await;
    assert_eq!(lease.epoch, Epoch(1));
    assert_eq!(
        (lease.committed_end, lease.log_start, lease.wal),
        (Offset(0), Offset(0), None)
    );
}

async fn racing_acquisitions_each_get_an_epoch_of_their_own_and_the_last_one_holds(fixture: Fixture) {
    let first = fixture.lease().await;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (metadata, incarnation) = (fixture.metadata.clone(), Uuid::from_u128(100));
        tasks.spawn(async move {
            let mut leases = Vec::new();
            for _ in 0..5 {
                leases.push(metadata.acquire_lease(first.topic_id, 0, incarnation).await.unwrap());
            }
            leases
        });
    }
    let by_task = tasks.join_all().await;
    assert!(
        by_task
            .iter()
            .all(|leases| leases.is_sorted_by(|a, b| a.epoch < b.epoch))
    );
    let mut leases: Vec<_> = by_task.into_iter().flatten().collect();
    leases.sort_by_key(|lease| lease.epoch);
    let epochs: Vec<_> = leases.iter().map(|lease| lease.epoch.0).collect();
    assert_eq!(epochs, (2..2 + TASKS * 5).collect::<Vec<_>>());

    let (last, fenced) = leases.split_last().unwrap();
    for lease in fenced {
        let error = fixture
            .metadata
            .commit_segment(lease, &new_segment("a", 0, 1))
            .await
            .unwrap_err();
        assert!(is_fenced(&error, lease.epoch), "{error}");
    }
    let outcome = fixture
        .metadata
        .commit_segment(last, &new_segment("a", 0, 1))
        .await
        .unwrap();
    assert_eq!(outcome, CommitOutcome::Committed);
}

async fn a_partition_whose_epochs_are_used_up_says_so_and_stays_fenced(fixture: Fixture) {
    let first = fixture.lease().await;
    fixture.sql("UPDATE partitions SET epoch = 2147483646").await;
    let incarnation = Uuid::from_u128(100);
    let last = fixture
        .metadata
        .acquire_lease(first.topic_id, 0, incarnation)
        .await
        .unwrap();
    assert_eq!(last.epoch, Epoch(i32::MAX as u64));
    let error = fixture
        .metadata
        .acquire_lease(first.topic_id, 0, incarnation)
        .await
        .unwrap_err();
    assert!(
        matches!(error, MetaError::EpochsExhausted { partition: 0, .. }),
        "{error}"
    );
    fixture
        .metadata
        .commit_segment(&last, &new_segment("a", 0, 1))
        .await
        .unwrap();
    assert!(fixture.released(&last, 1).await);
}

async fn a_lease_needs_a_known_partition_and_a_known_incarnation(fixture: Fixture) {
    let lease = fixture.lease().await;
    let known = Uuid::from_u128(100);
    for (topic_id, partition, incarnation, missing) in [
        (lease.topic_id, 1, known, "partition"),
        (Uuid::from_u128(99), 0, known, "partition"),
        (lease.topic_id, 0, Uuid::from_u128(99), "incarnation"),
    ] {
        let error = fixture
            .metadata
            .acquire_lease(topic_id, partition, incarnation)
            .await
            .unwrap_err();
        assert!(
            matches!(error, MetaError::NotFound { what, .. } if what == missing),
            "{error}"
        );
    }
    // The refused attempts gave no epoch away.
    fixture
        .metadata
        .commit_segment(&lease, &new_segment("a", 0, 1))
        .await
        .unwrap();
}

async fn a_new_holder_finds_the_pointer_of_the_one_before(fixture: Fixture) {
    let first = fixture.lease().await;
    let (old, new) = (Uuid::from_u128(100), fixture.incarnation(101).await);
    fixture.metadata.move_wal_pointer(&first, old).await.unwrap();
    let second = fixture.metadata.acquire_lease(first.topic_id, 0, new).await.unwrap();
    assert_eq!(second.wal, Some(old));
    fixture.metadata.move_wal_pointer(&second, new).await.unwrap();
    fixture.metadata.move_wal_pointer(&second, new).await.unwrap();
    let error = fixture.metadata.move_wal_pointer(&first, old).await.unwrap_err();
    assert!(is_fenced(&error, first.epoch), "{error}");
    assert_eq!(fixture.metadata.pointed_partitions().await.unwrap()[0].wal, new);
}

async fn a_lease_is_released_only_when_everything_is_committed_and_then_it_is_over(fixture: Fixture) {
    let lease = fixture.lease().await;
    let incarnation = Uuid::from_u128(100);
    fixture.metadata.move_wal_pointer(&lease, incarnation).await.unwrap();
    fixture
        .metadata
        .commit_segment(&lease, &new_segment("a", 0, 10))
        .await
        .unwrap();
    assert!(!fixture.released(&lease, 15).await);
    assert_eq!(fixture.metadata.pointed_partitions().await.unwrap().len(), 1);

    assert!(fixture.released(&lease, 10).await);
    assert!(fixture.metadata.pointed_partitions().await.unwrap().is_empty());
    assert!(!fixture.released(&lease, 10).await);
    for error in [
        fixture
            .metadata
            .move_wal_pointer(&lease, incarnation)
            .await
            .unwrap_err(),
        fixture
            .metadata
            .expire_segments(&lease, Some(NOW_MS + 1), None, NOW_MS)
            .await
            .unwrap_err(),
        fixture
            .metadata
            .commit_segment(&lease, &new_segment("b", 10, 20))
            .await
            .unwrap_err(),
    ] {
        assert!(is_fenced(&error, lease.epoch), "{error}");
    }
    let next = fixture
        .metadata
        .acquire_lease(lease.topic_id, 0, incarnation)
        .await
        .unwrap();
    assert!(next.epoch > lease.epoch);
    assert_eq!((next.committed_end, next.wal), (Offset(10), None));
}

async fn a_fenced_holder_cannot_release_what_another_holds(fixture: Fixture) {
    let first = fixture.lease().await;
    let second = fixture
        .metadata
        .acquire_lease(first.topic_id, 0, fixture.incarnation(101).await)
        .await
        .unwrap();
    assert!(!fixture.released(&first, 0).await);
    assert!(fixture.released(&second, 0).await);
}

async fn a_lease_is_held_until_another_one_is_given_or_it_is_released(fixture: Fixture) {
    let first = fixture.lease().await;
    let holds = async |leases: &[&Lease]| {
        let leases: Vec<Lease> = leases.iter().map(|lease| (*lease).clone()).collect();
        fixture.metadata.holds_leases(&leases).await.unwrap()
    };
    assert_eq!(holds(&[&first]).await, [true]);
    let second = fixture
        .metadata
        .acquire_lease(first.topic_id, 0, Uuid::from_u128(100))
        .await
        .unwrap();
    assert_eq!(holds(&[&first, &second, &first]).await, [false, true, false]);
    assert!(fixture.released(&second, 0).await);
    let elsewhere = Lease {
        partition: 7,
        ..second.clone()
    };
    assert_eq!(holds(&[&first, &second, &elsewhere]).await, [false, false, false]);
}
