//! Leases live as long as their agent renews them, by the database's clock.

use std::time::Duration;

use millstream_batch::Epoch;
use millstream_meta::{Lease, MetaError, NewIncarnation, WalKind};
use uuid::Uuid;

use crate::{Fixture, LEASE, NOW_MS, is_superseded, new_segment};

on_both! {
    a_live_holder_refuses_others_with_its_name_its_address_and_the_time_left,
    a_lease_whose_time_is_over_lets_others_in_with_a_greater_epoch,
    lease_time_runs_by_itself,
    renewal_keeps_the_epoch_and_keeps_others_out,
    one_renewal_is_for_all_partitions_of_the_agent,
    acquiring_renews_what_has_run_out,
    a_new_incarnation_voids_the_leases_of_the_one_before_at_once,
    a_superseded_incarnation_is_refused_whatever_it_asks_for,
    leaving_lets_others_in_at_once,
    who_has_left_does_not_come_back_by_a_call_that_is_late,
    a_partition_whose_wal_a_living_agent_writes_is_that_agents,
    a_takeover_that_began_goes_on_when_the_one_before_comes_back,
    a_superseded_incarnation_that_leaves_takes_nothing_from_its_successor,
    a_released_partition_is_free_at_once,
    the_epoch_never_falls_when_lease_rows_are_deleted,
    the_epoch_never_falls_when_the_agent_is_deleted_and_made_again,
}

/// Two agents, and a lease of the first on partition 0 of a topic.
struct Two {
    fixture: Fixture,
    lease: Lease,
    a: Uuid,
    b: Uuid,
}

impl Two {
    async fn new(fixture: Fixture) -> Two {
        let topic = fixture.topic(1, "orders", 2).await;
        let a = fixture.incarnation_of("a", 100, WalKind::Object).await;
        let b = fixture.incarnation_of("b", 200, WalKind::Object).await;
        let lease = fixture.metadata.acquire_lease(topic.id, 0, a).await.unwrap();
        Two { fixture, lease, a, b }
    }

    async fn acquire(&self, incarnation: Uuid) -> Result<Lease, MetaError> {
        let lease = &self.lease;
        self.fixture
            .metadata
            .acquire_lease(lease.topic_id, lease.partition, incarnation)
            .await
    }

    async fn epoch(&self) -> Epoch {
        let row = self.fixture.metadata.partition(self.lease.topic_id, 0).await.unwrap();
        row.unwrap().epoch
    }

    #[track_caller]
    fn is_held(&self, answer: Result<Lease, MetaError>) -> Duration {
        match answer {
            Err(MetaError::LeaseHeld {
                expires_in_ms, agent, ..
            }) if agent == "a" => Duration::from_millis(expires_in_ms),
            other => panic!("agent a holds it, not {other:?}"),
        }
    }
}

async fn a_live_holder_refuses_others_with_its_name_its_address_and_the_time_left(fixture: Fixture) {
    let two = Two::new(fixture).await;
    let error = two.acquire(two.b).await.unwrap_err();
    let MetaError::LeaseHeld {
        topic_id,
        partition,
        agent,
        address,
        expires_in_ms,
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!((*topic_id, *partition), (two.lease.topic_id, 0));
    assert_eq!((agent.as_str(), address.as_str()), ("a", "host:7070"));
    let left = Duration::from_millis(*expires_in_ms);
    assert!(left <= LEASE && left > LEASE / 2, "{left:?}");
    assert!(error.to_string().contains("host:7070"), "{error}");
    assert_eq!(two.epoch().await, two.lease.epoch, "no epoch was taken");
    two.fixture
        .metadata
        .commit_segment(&two.lease, &new_segment("a", 0, 1))
        .await
        .unwrap();
}

async fn a_lease_whose_time_is_over_lets_others_in_with_a_greater_epoch(fixture: Fixture) {
    let two = Two::new(fixture).await;
    two.fixture.expire("a").await;
    let next = two.acquire(two.b).await.unwrap();
    assert!(next.epoch > two.lease.epoch);
    assert_eq!(
        two.fixture
            .metadata
            .holds_leases(&[two.lease.clone(), next])
            .await
            .unwrap(),
        [false, true]
    );
}

async fn lease_time_runs_by_itself(fixture: Fixture) {
    let topic = fixture.topic(1, "orders", 1).await;
    let short = NewIncarnation {
        lease: Duration::from_millis(500),
        ..crate::fixture::new_incarnation("a", 100, WalKind::Object)
    };
    fixture.metadata.register_incarnation(&short, NOW_MS).await.unwrap();
    let lease = fixture
        .metadata
        .acquire_lease(topic.id, 0, short.incarnation)
        .await
        .unwrap();
    let other = fixture.incarnation_of("b", 200, WalKind::Object).await;
    let (mut refused, mut left) = (0, u64::MAX);
    let next = loop {
        match fixture.metadata.acquire_lease(topic.id, 0, other).await {
            Ok(next) => break next,
            Err(MetaError::LeaseHeld { expires_in_ms, .. }) => {
                assert!(
                    expires_in_ms <= left && expires_in_ms <= 500,
                    "{expires_in_ms} after {left}"
                );
                (refused, left) = (refused + 1, expires_in_ms);
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert!(refused > 0);
    assert_eq!(next.epoch.0, lease.epoch.0 + 1, "refusals took no epoch");
}

async fn renewal_keeps_the_epoch_and_keeps_others_out(fixture: Fixture) {
    let two = Two::new(fixture).await;
    for seconds in [10, 20_000] {
        two.fixture.expire("a").await;
        let lease = Duration::from_secs(seconds);
        two.fixture.metadata.renew_leases(two.a, lease).await.unwrap();
        let left = two.is_held(two.acquire(two.b).await);
        assert!(left <= lease && left > lease / 2, "{left:?}");
    }
    assert_eq!(two.epoch().await, two.lease.epoch);
    two.fixture
        .metadata
        .commit_segment(&two.lease, &new_segment("a", 0, 1))
        .await
        .unwrap();
}

async fn one_renewal_is_for_all_partitions_of_the_agent(fixture: Fixture) {
    let two = Two::new(fixture).await;
    let metadata = &two.fixture.metadata;
    metadata.acquire_lease(two.lease.topic_id, 1, two.a).await.unwrap();
    two.fixture.expire("a").await;
    let before = metadata.stats().queries;
    metadata.renew_leases(two.a, LEASE).await.unwrap();
    assert_eq!(metadata.stats().queries - before, 1);
    for partition in [0, 1] {
        let answer = metadata.acquire_lease(two.lease.topic_id, partition, two.b).await;
        two.is_held(answer);
    }
}

async fn acquiring_renews_what_has_run_out(fixture: Fixture) {
    let two = Two::new(fixture).await;
    two.fixture.expire("a").await;
    let again = two.acquire(two.a).await.unwrap();
    assert!(again.epoch > two.lease.epoch);
    two.is_held(two.acquire(two.b).await);
}

async fn a_new_incarnation_voids_the_leases_of_the_one_before_at_once(fixture: Fixture) {
    let two = Two::new(fixture).await;
    two.is_held(two.acquire(two.b).await);
    two.fixture.incarnation_of("a", 101, WalKind::Object).await;
    let next = two.acquire(two.b).await.unwrap();
    assert!(next.epoch > two.lease.epoch);
}

async fn a_superseded_incarnation_is_refused_whatever_it_asks_for(fixture: Fixture) {
    let two = Two::new(fixture).await;
    let metadata = &two.fixture.metadata;
    metadata.move_wal_pointer(&two.lease, two.a).await.unwrap();
    let successor = two.fixture.incarnation_of("a", 101, WalKind::Object).await;
    for error in [
        two.acquire(two.a).await.unwrap_err(),
        metadata.renew_leases(two.a, LEASE).await.unwrap_err(),
        metadata.take_over_wal(two.a, two.a).await.unwrap_err(),
        metadata
            .register_incarnation(&crate::fixture::new_incarnation("a", 100, WalKind::Object), NOW_MS)
            .await
            .unwrap_err(),
    ] {
        assert!(is_superseded(&error), "{error:?}");
        assert!(
            error.to_string().contains("two agents must not have one name"),
            "{error}"
        );
    }
    assert_eq!(two.epoch().await, two.lease.epoch, "no epoch was taken");
    two.acquire(successor).await.unwrap();
}

async fn leaving_lets_others_in_at_once(fixture: Fixture) {
    let two = Two::new(fixture).await;
    two.fixture.metadata.leave(two.a).await.unwrap();
    two.fixture.metadata.leave(two.a).await.unwrap();
    assert!(two.acquire(two.b).await.unwrap().epoch > two.lease.epoch);
}

async fn who_has_left_does_not_come_back_by_a_call_that_is_late(fixture: Fixture) {
    let two = Two::new(fixture).await;
    let metadata = &two.fixture.metadata;
    metadata.leave(two.a).await.unwrap();
    for error in [
        metadata.renew_leases(two.a, LEASE).await.unwrap_err(),
        two.acquire(two.a).await.unwrap_err(),
        metadata.take_over_wal(two.a, two.a).await.unwrap_err(),
    ] {
        assert!(is_superseded(&error), "{error:?}");
    }
    assert!(two.acquire(two.b).await.unwrap().epoch > two.lease.epoch);
    // The next start is another incarnation.
    let again = two.fixture.incarnation_of("a", 101, WalKind::Object).await;
    metadata.renew_leases(again, LEASE).await.unwrap();
}

/// The lease time of `a` was over for long enough that `b` took its partition, but the pointer still names its WAL.
async fn lapsed_and_back(two: &Two) -> Lease {
    two.fixture.metadata.move_wal_pointer(&two.lease, two.a).await.unwrap();
    two.fixture.expire("a").await;
    let taken = two.acquire(two.b).await.unwrap();
    two.fixture.metadata.renew_leases(two.a, LEASE).await.unwrap();
    taken
}

async fn a_partition_whose_wal_a_living_agent_writes_is_that_agents(fixture: Fixture) {
    let two = Two::new(fixture).await;
    let metadata = &two.fixture.metadata;
    let c = two.fixture.incarnation_of("c", 300, WalKind::Object).await;
    let taken = lapsed_and_back(&two).await;
    metadata.leave(two.b).await.unwrap();
    two.is_held(two.acquire(c).await);
    assert!(metadata.take_over_wal(two.a, c).await.unwrap().is_empty());
    assert_eq!(two.epoch().await, taken.epoch, "no epoch was taken");
    let own = two.acquire(two.a).await.unwrap();
    assert_eq!((own.wal, own.epoch > taken.epoch), (Some(two.a), true));
    // Nobody holds it, but its log is that of a living agent all the same.
    two.fixture.sql("DELETE FROM partition_leases").await;
    two.is_held(two.acquire(c).await);
    metadata.leave(two.a).await.unwrap();
    assert!(two.acquire(c).await.unwrap().epoch > own.epoch);
}

async fn a_takeover_that_began_goes_on_when_the_one_before_comes_back(fixture: Fixture) {
    let two = Two::new(fixture).await;
    let metadata = &two.fixture.metadata;
    let taken = lapsed_and_back(&two).await;
    // Each told to ask the other, nobody could ever have it.
    let refused = two.acquire(two.a).await.unwrap_err();
    assert!(
        matches!(&refused, MetaError::LeaseHeld { agent, .. } if agent == "b"),
        "{refused:?}"
    );
    let again = two.acquire(two.b).await.unwrap();
    assert!(again.epoch > taken.epoch);
    let whole = metadata.take_over_wal(two.a, two.b).await.unwrap();
    assert_eq!((whole.len(), whole[0].epoch > again.epoch), (1, true));
    assert_eq!(metadata.move_wal_pointers(two.a, two.b).await.unwrap(), 1);
}

async fn a_superseded_incarnation_that_leaves_takes_nothing_from_its_successor(fixture: Fixture) {
    let two = Two::new(fixture).await;
    let successor = two.fixture.incarnation_of("a", 101, WalKind::Object).await;
    two.acquire(successor).await.unwrap();
    // Whether it is told so or not.
    let _ = two.fixture.metadata.leave(two.a).await;
    two.is_held(two.acquire(two.b).await);
}

async fn a_released_partition_is_free_at_once(fixture: Fixture) {
    let two = Two::new(fixture).await;
    assert!(two.fixture.released(&two.lease, 0).await);
    assert!(two.acquire(two.b).await.unwrap().epoch > two.lease.epoch);
}

async fn the_epoch_never_falls_when_lease_rows_are_deleted(fixture: Fixture) {
    let two = Two::new(fixture).await;
    let mut last = two.lease.epoch;
    for incarnation in [two.a, two.b, two.a] {
        two.fixture.sql("DELETE FROM partition_leases").await;
        let next = two.acquire(incarnation).await.unwrap();
        assert!(next.epoch > last);
        last = next.epoch;
    }
}

async fn the_epoch_never_falls_when_the_agent_is_deleted_and_made_again(fixture: Fixture) {
    let mut two = Two::new(fixture).await;
    for _ in 0..3 {
        for table in ["partition_leases", "wal_streams", "agents"] {
            two.fixture.sql(&format!("DELETE FROM {table}")).await;
        }
        // The same names and ids, as if nothing had been there before.
        let again = two.fixture.incarnation_of("a", 100, WalKind::Object).await;
        let next = two.acquire(again).await.unwrap();
        assert!(next.epoch > two.lease.epoch);
        let error = two
            .fixture
            .metadata
            .commit_segment(&two.lease, &new_segment("a", 0, 1))
            .await;
        assert!(matches!(error, Err(MetaError::Fenced { .. })), "{error:?}");
        two.lease = next;
    }
}
