use millstream_batch::Offset;
use millstream_meta::{CommitOutcome, Lease, MetaError};
use uuid::Uuid;

use crate::{Fixture, NOW_MS, is_fenced, new_segment};

on_both! {
    a_merged_segment_takes_the_place_of_its_sources_at_once,
    other_segments_than_the_sources_are_never_replaced,
    a_merge_after_retention_took_a_source_changes_nothing,
    a_fenced_holder_merges_nothing,
    partitions_with_many_small_segments_are_found,
    a_commit_whose_answer_was_lost_is_already_committed_after_its_segment_was_merged_or_expired,
}

impl Fixture {
    /// A lease on a partition with segments `0..10`, `10..20` and so on.
    async fn lease_with(&self, segments: u64) -> Lease {
        let lease = self.lease().await;
        for n in 0..segments {
            let segment = new_segment(&format!("k{n}"), n * 10, n * 10 + 10);
            self.metadata.commit_segment(&lease, &segment).await.unwrap();
        }
        lease
    }

    async fn merge(&self, lease: &Lease, bases: &[u64], key: &str, end: u64) -> Result<CommitOutcome, MetaError> {
        let sources: Vec<Offset> = bases.iter().map(|base| Offset(*base)).collect();
        let merged = new_segment(key, bases[0], end);
        self.metadata.merge_segments(lease, &sources, &merged, NOW_MS).await
    }

    async fn keys(&self, lease: &Lease) -> Vec<String> {
        let rows = self.metadata.segments(lease.topic_id, 0, Offset(0), 100).await.unwrap();
        rows.windows(2)
            .for_each(|pair| assert_eq!(pair[0].end_offset, pair[1].base_offset));
        rows.into_iter().map(|row| row.key).collect()
    }
}

async fn a_merged_segment_takes_the_place_of_its_sources_at_once(fixture: Fixture) {
    let lease = fixture.lease_with(4).await;
    let merged = fixture.merge(&lease, &[10, 20], "m", 30).await.unwrap();
    assert_eq!(merged, CommitOutcome::Committed);
    assert_eq!(fixture.keys(&lease).await, ["k0", "m", "k3"]);
    assert_eq!(
        fixture.metadata.pending_deletions(NOW_MS, 10).await.unwrap(),
        ["k1", "k2"]
    );

    let again = fixture.merge(&lease, &[10, 20], "m", 30).await.unwrap();
    assert_eq!(again, CommitOutcome::AlreadyCommitted);
    assert_eq!(fixture.keys(&lease).await, ["k0", "m", "k3"]);
}

async fn other_segments_than_the_sources_are_never_replaced(fixture: Fixture) {
    let lease = fixture.lease_with(4).await;
    for (bases, end) in [
        (&[0, 10][..], 40),
        (&[0, 20], 30),
        (&[0, 10, 20], 20),
        (&[5, 10], 20),
        (&[30, 40], 50),
        (&[0, 10], 25),
    ] {
        let error = fixture.merge(&lease, bases, "m", end).await.unwrap_err();
        assert!(matches!(error, MetaError::Conflict { .. }), "{bases:?}: {error}");
    }
    assert_eq!(fixture.keys(&lease).await, ["k0", "k1", "k2", "k3"]);
    assert!(fixture.metadata.pending_deletions(NOW_MS, 10).await.unwrap().is_empty());
}

async fn a_merge_after_retention_took_a_source_changes_nothing(fixture: Fixture) {
    let lease = fixture.lease_with(3).await;
    fixture.metadata.truncate(&lease, Offset(10), NOW_MS).await.unwrap();
    let error = fixture.merge(&lease, &[0, 10, 20], "m", 30).await.unwrap_err();
    assert!(matches!(error, MetaError::Conflict { .. }), "{error}");
    assert_eq!(fixture.keys(&lease).await, ["k1", "k2"]);
}

async fn a_fenced_holder_merges_nothing(fixture: Fixture) {
    let lease = fixture.lease_with(2).await;
    fixture
        .metadata
        .acquire_lease(lease.topic_id, 0, Uuid::from_u128(100))
        .await
        .unwrap();
    let error = fixture.merge(&lease, &[0, 10], "m", 20).await.unwrap_err();
    assert!(is_fenced(&error, lease.epoch), "{error}");
}

async fn partitions_with_many_small_segments_are_found(fixture: Fixture) {
    let lease = fixture.lease_with(4).await;
    let find = async |raw_bytes_max, count_min| {
        let topic_id = lease.topic_id;
        let found = fixture
            .metadata
            .partitions_with_small_segments(topic_id, raw_bytes_max, count_min, None, 10);
        found.await.unwrap()
    };
    // Each has 20 bytes of batches.
    assert_eq!(find(21, 4).await, [0]);
    assert_eq!(find(21, 5).await, [0u32; 0]);
    assert_eq!(find(20, 1).await, [0u32; 0]);
}

async fn a_commit_whose_answer_was_lost_is_already_committed_after_its_segment_was_merged_or_expired(fixture: Fixture) {
    let lease = fixture.lease_with(3).await;
    fixture.merge(&lease, &[0, 10], "m", 20).await.unwrap();
    let merged_away = new_segment("k1", 10, 20);
    let again = fixture.metadata.commit_segment(&lease, &merged_away).await.unwrap();
    assert_eq!(again, CommitOutcome::AlreadyCommitted);
    let expired = fixture
        .metadata
        .expire_segments(&lease, Some(i64::MAX), None, NOW_MS)
        .await;
    assert!(expired.unwrap().is_some());
    let last = new_segment("k2", 20, 30);
    let again = fixture.metadata.commit_segment(&lease, &last).await.unwrap();
    assert_eq!(again, CommitOutcome::AlreadyCommitted);
}
