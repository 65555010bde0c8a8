//! What a dead agent left: whose WAL may be taken, and which partitions with it.

use millstream_batch::{Epoch, Offset};
use millstream_meta::{Lease, MetaError, Topic, WalKind, WalStream};
use uuid::Uuid;

use crate::{Fixture, is_fenced, new_segment};

on_both! {
    a_pointer_to_a_disk_wal_waits_for_the_agent_that_has_the_disk,
    a_later_incarnation_of_the_agent_finds_its_disk_wal,
    an_object_wal_can_be_taken_over_by_anybody_once_its_agent_is_over,
    taking_over_a_wal_acquires_every_partition_that_points_to_it,
    partitions_that_another_live_incarnation_holds_are_spared,
    a_living_agents_wal_gives_nothing,
    all_pointers_move_together_and_only_those_whose_lease_is_ours,
    pointers_do_not_move_to_a_retired_wal,
    own_wals_are_those_of_earlier_starts_that_pointers_name,
    wals_of_living_agents_are_not_dead,
    many_partitions_are_given_back_together_and_each_on_its_own_terms,
}

impl Fixture {
    /// A topic whose partitions this incarnation holds, with their pointers to its WAL.
    async fn pointed(&self, incarnation: Uuid, partitions: u32) -> (Topic, Vec<Lease>) {
        let topic = self.topic(1, "orders", partitions).await;
        let mut leases = Vec::new();
        for partition in 0..partitions {
            let lease = self
                .metadata
                .acquire_lease(topic.id, partition, incarnation)
                .await
                .unwrap();
            self.metadata.move_wal_pointer(&lease, incarnation).await.unwrap();
            leases.push(lease);
        }
        (topic, leases)
    }

    async fn epochs(&self, topic: &Topic) -> Vec<Epoch> {
        let mut epochs = Vec::new();
        for partition in 0..topic.partitions {
            let row = self.metadata.partition(topic.id, partition).await.unwrap();
            epochs.push(row.unwrap().epoch);
        }
        epochs
    }

    async fn pointers(&self) -> Vec<Uuid> {
        let pointed = self.metadata.pointed_partitions().await.unwrap();
        pointed.into_iter().map(|partition| partition.wal).collect()
    }
}

fn ids(wals: &[WalStream]) -> Vec<Uuid> {
    wals.iter().map(|wal| wal.id).collect()
}

async fn a_pointer_to_a_disk_wal_waits_for_the_agent_that_has_the_disk(fixture: Fixture) {
    let a = fixture.incarnation_of("a", 100, WalKind::Disk).await;
    let b = fixture.incarnation_of("b", 200, WalKind::Disk).await;
    let (topic, leases) = fixture.pointed(a, 1).await;
    fixture.expire("a").await;
    let error = fixture.metadata.acquire_lease(topic.id, 0, b).await.unwrap_err();
    let MetaError::WalElsewhere {
        topic_id,
        partition,
        wal,
        agent,
        address,
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!((*topic_id, *partition, *wal), (topic.id, 0, a));
    assert_eq!((agent.as_str(), address.as_str()), ("a", "host:7070"));
    assert!(error.to_string().contains("start that agent again"), "{error}");
    let taken = fixture.metadata.take_over_wal(a, b).await;
    assert!(matches!(&taken, Err(MetaError::WalElsewhere { .. })), "{taken:?}");
    assert_eq!(fixture.epochs(&topic).await, [leases[0].epoch], "no epoch was taken");
}

async fn a_later_incarnation_of_the_agent_finds_its_disk_wal(fixture: Fixture) {
    let a = fixture.incarnation_of("a", 100, WalKind::Disk).await;
    let (topic, leases) = fixture.pointed(a, 2).await;
    let again = fixture.incarnation_of("a", 101, WalKind::Disk).await;
    let one = fixture.metadata.acquire_lease(topic.id, 0, again).await.unwrap();
    assert_eq!((one.wal, one.epoch > leases[0].epoch), (Some(a), true));
    let both = fixture.metadata.take_over_wal(a, again).await.unwrap();
    assert_eq!(both.iter().map(|lease| lease.partition).collect::<Vec<_>>(), [0, 1]);
}

async fn an_object_wal_can_be_taken_over_by_anybody_once_its_agent_is_over(fixture: Fixture) {
    let a = fixture.incarnation_of("a", 100, WalKind::Object).await;
    let b = fixture.incarnation_of("b", 200, WalKind::Disk).await;
    let (topic, _) = fixture.pointed(a, 2).await;
    fixture.expire("a").await;
    let one = fixture.metadata.acquire_lease(topic.id, 0, b).await.unwrap();
    assert_eq!(one.wal, Some(a));
    assert_eq!(fixture.metadata.take_over_wal(a, b).await.unwrap().len(), 2);
}

async fn taking_over_a_wal_acquires_every_partition_that_points_to_it(fixture: Fixture) {
    let a = fixture.incarnation_of("a", 100, WalKind::Object).await;
    let b = fixture.incarnation_of("b", 200, WalKind::Object).await;
    let (topic, before) = fixture.pointed(a, 4).await;
    // This one's pointer names none, and that one's another.
    assert!(fixture.released(&before[3], before[3].committed_end.0).await);
    let later = fixture.incarnation_of("a", 101, WalKind::Object).await;
    let other = fixture.metadata.acquire_lease(topic.id, 2, later).await.unwrap();
    fixture.metadata.move_wal_pointer(&other, later).await.unwrap();
    let untouched = fixture.epochs(&topic).await[2..].to_vec();

    let taken = fixture.metadata.take_over_wal(a, b).await.unwrap();
    assert_eq!(taken.iter().map(|lease| lease.partition).collect::<Vec<_>>(), [0, 1]);
    for (lease, before) in taken.iter().zip(&before) {
        assert_eq!((lease.topic_id, lease.wal), (topic.id, Some(a)));
        assert!(lease.epoch > before.epoch);
    }
    assert_eq!(fixture.metadata.holds_leases(&taken).await.unwrap(), [true, true]);
    assert_eq!(fixture.epochs(&topic).await[2..], untouched);
    assert_eq!(
        fixture.pointers().await,
        [a, a, later],
        "the pointers stay until they are moved"
    );
    // Asked again after a lost answer.
    let again = fixture.metadata.take_over_wal(a, b).await.unwrap();
    assert!(again.iter().zip(&taken).all(|(again, taken)| again.epoch > taken.epoch));
    let nobodys = fixture.metadata.take_over_wal(Uuid::from_u128(9), b).await;
    assert!(
        matches!(&nobodys, Ok(leases) if leases.is_empty()) || nobodys.is_err(),
        "{nobodys:?}"
    );
}

async fn partitions_that_another_live_incarnation_holds_are_spared(fixture: Fixture) {
    let a = fixture.incarnation_of("a", 100, WalKind::Object).await;
    let b = fixture.incarnation_of("b", 200, WalKind::Object).await;
    let c = fixture.incarnation_of("c", 300, WalKind::Object).await;
    let (topic, _) = fixture.pointed(a, 3).await;
    fixture.metadata.leave(a).await.unwrap();
    let held = fixture.metadata.acquire_lease(topic.id, 1, c).await.unwrap();
    let taken = fixture.metadata.take_over_wal(a, b).await.unwrap();
    assert_eq!(taken.iter().map(|lease| lease.partition).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(fixture.metadata.holds_leases(&[held]).await.unwrap(), [true]);
}

async fn a_living_agents_wal_gives_nothing(fixture: Fixture) {
    let a = fixture.incarnation_of("a", 100, WalKind::Object).await;
    let b = fixture.incarnation_of("b", 200, WalKind::Object).await;
    let (_, leases) = fixture.pointed(a, 2).await;
    assert!(fixture.metadata.take_over_wal(a, b).await.unwrap().is_empty());
    assert_eq!(fixture.metadata.holds_leases(&leases).await.unwrap(), [true, true]);
}

async fn all_pointers_move_together_and_only_those_whose_lease_is_ours(fixture: Fixture) {
    let a = fixture.incarnation_of("a", 100, WalKind::Object).await;
    let b = fixture.incarnation_of("b", 200, WalKind::Object).await;
    let c = fixture.incarnation_of("c", 300, WalKind::Object).await;
    let (topic, _) = fixture.pointed(a, 4).await;
    fixture.metadata.leave(a).await.unwrap();
    fixture.metadata.acquire_lease(topic.id, 1, c).await.unwrap();
    assert_eq!(fixture.metadata.take_over_wal(a, b).await.unwrap().len(), 3);
    assert_eq!(fixture.metadata.move_wal_pointers(a, b).await.unwrap(), 3);
    assert_eq!(fixture.pointers().await, [b, a, b, b]);
    assert_eq!(
        fixture.metadata.move_wal_pointers(a, b).await.unwrap(),
        0,
        "asked again"
    );
    // b's lease is void, and c has the partition now: its pointer moves with c's.
    fixture.metadata.leave(b).await.unwrap();
    let lease = fixture.metadata.acquire_lease(topic.id, 0, c).await.unwrap();
    assert_eq!(fixture.metadata.move_wal_pointers(b, c).await.unwrap(), 1);
    assert_eq!(fixture.pointers().await, [c, a, b, b]);
    assert_eq!(fixture.metadata.holds_leases(&[lease]).await.unwrap(), [true]);
}

async fn pointers_do_not_move_to_a_retired_wal(fixture: Fixture) {
    let a = fixture.incarnation_of("a", 100, WalKind::Object).await;
    let b = fixture.incarnation_of("b", 200, WalKind::Object).await;
    fixture.pointed(a, 2).await;
    fixture.metadata.leave(a).await.unwrap();
    fixture.metadata.take_over_wal(a, b).await.unwrap();
    assert!(fixture.metadata.retire_wal(b).await.unwrap());
    let error = fixture.metadata.move_wal_pointers(a, b).await.unwrap_err();
    assert!(matches!(error, MetaError::WalDeleted { wal } if wal == b), "{error:?}");
    assert_eq!(fixture.pointers().await, [a, a]);
    let unknown = Uuid::from_u128(9);
    let error = fixture.metadata.move_wal_pointers(a, unknown).await.unwrap_err();
    assert!(matches!(error, MetaError::NotFound { .. }), "{error:?}");
}

async fn own_wals_are_those_of_earlier_starts_that_pointers_name(fixture: Fixture) {
    let first = fixture.incarnation_of("a", 100, WalKind::Object).await;
    let (topic, leases) = fixture.pointed(first, 2).await;
    let second = fixture.incarnation_of("a", 101, WalKind::Object).await;
    let lease = fixture.metadata.acquire_lease(topic.id, 1, second).await.unwrap();
    fixture.metadata.move_wal_pointer(&lease, second).await.unwrap();
    // No pointer names that one.
    fixture.incarnation_of("a", 102, WalKind::Object).await;
    let now = fixture.incarnation_of("a", 103, WalKind::Object).await;
    let other = fixture.incarnation_of("b", 200, WalKind::Object).await;
    assert_eq!(ids(&fixture.metadata.own_wals(now).await.unwrap()), [first, second]);
    assert!(fixture.metadata.own_wals(other).await.unwrap().is_empty());
    fixture.metadata.take_over_wal(first, now).await.unwrap();
    fixture.metadata.move_wal_pointers(first, now).await.unwrap();
    assert_eq!(ids(&fixture.metadata.own_wals(now).await.unwrap()), [second]);
    let late = fixture.metadata.move_wal_pointer(&leases[0], first).await.unwrap_err();
    assert!(is_fenced(&late, leases[0].epoch), "{late}");
}

async fn wals_of_living_agents_are_not_dead(fixture: Fixture) {
    let a = fixture.incarnation_of("a", 100, WalKind::Object).await;
    let b = fixture.incarnation_of("b", 200, WalKind::Object).await;
    let c = fixture.incarnation_of("c", 300, WalKind::Object).await;
    let dead = async |except| ids(&fixture.metadata.dead_wals(except).await.unwrap());
    assert!(dead(c).await.is_empty());
    let again = fixture.incarnation_of("a", 101, WalKind::Object).await;
    assert_eq!(dead(c).await, [a], "superseded");
    fixture.expire("b").await;
    assert_eq!(dead(c).await, [a, b], "and not renewed");
    assert_eq!(dead(b).await, [a], "but never the one that asks");
    fixture.metadata.leave(again).await.unwrap();
    assert!(dead(c).await.contains(&again), "and left");
    assert!(fixture.metadata.retire_wal(a).await.unwrap());
    assert!(!dead(c).await.contains(&a), "deleted ones are done with");
}

async fn many_partitions_are_given_back_together_and_each_on_its_own_terms(fixture: Fixture) {
    let a = fixture.incarnation_of("a", 100, WalKind::Object).await;
    let (topic, mut leases) = fixture.pointed(a, 4).await;
    let metadata = &fixture.metadata;
    metadata
        .commit_segment(&leases[1], &new_segment("a", 0, 10))
        .await
        .unwrap();
    // That of 0 is no more, and 2 has records that are in no segment.
    let newer = metadata.acquire_lease(topic.id, 0, a).await.unwrap();
    let ends = [0, 10, 5, 0].map(Offset);
    let asked: Vec<_> = leases.clone().into_iter().zip(ends).collect();
    assert_eq!(
        metadata.release_leases(&asked).await.unwrap(),
        [false, true, false, true]
    );
    leases[0] = newer;
    assert_eq!(
        metadata.holds_leases(&leases).await.unwrap(),
        [true, false, true, false]
    );
    assert_eq!(fixture.pointers().await, [a, a]);
    for partition in [1, 3] {
        let row = metadata.partition(topic.id, partition).await.unwrap().unwrap();
        assert_eq!((row.wal, row.holder), (None, None));
    }
    assert_eq!(metadata.release_leases(&[]).await.unwrap(), [false; 0]);
}
