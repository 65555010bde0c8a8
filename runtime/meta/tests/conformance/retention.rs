use millstream_batch::Offset;
use millstream_meta::{EXPIRE_SEGMENTS_MAX, Lease, MetaError, NewSegment};
use uuid::Uuid;

use crate::{Fixture, NOW_MS, is_fenced, new_segment};

on_both! {
    retention_takes_from_the_front_only_and_records_what_it_took,
    one_call_expires_a_bounded_number_of_segments,
    retention_by_bytes_leaves_at_least_so_many,
    partitions_whose_first_segment_is_due_are_found_though_nobody_holds_them,
    truncation_moves_the_log_start_and_takes_what_lies_wholly_below,
}

impl Fixture {
    /// Commits segments of 10 offsets and 10 bytes each, written at these times.
    async fn segments_of(&self, lease: &Lease, created_at_ms: &[i64]) {
        for (n, created_at_ms) in created_at_ms.iter().enumerate() {
            let base = lease.committed_end.0 + n as u64 * 10;
            let segment = NewSegment {
                created_at_ms: *created_at_ms,
                ..new_segment(&format!("{}-{base}", lease.partition), base, base + 10)
            };
            self.metadata.commit_segment(lease, &segment).await.unwrap();
        }
    }
}

async fn retention_takes_from_the_front_only_and_records_what_it_took(fixture: Fixture) {
    let lease = fixture.lease().await;
    // The third is young, so the fourth stays, old as it is.
    for (n, created_at_ms) in [10, 20, 90, 30].into_iter().enumerate() {
        let base = n as u64 * 10;
        let segment = NewSegment {
            created_at_ms,
            ..new_segment(&format!("k{n}"), base, base + 10)
        };
        fixture.metadata.commit_segment(&lease, &segment).await.unwrap();
    }
    let expire = async |before_ms: i64| {
        fixture
            .metadata
            .expire_segments(&lease, Some(before_ms), None, NOW_MS)
            .await
            .unwrap()
            .map_or_else(Vec::new, |expired| expired.keys)
    };
    assert!(expire(10).await.is_empty());
    assert_eq!(expire(50).await, ["k0", "k1"]);
    assert!(expire(50).await.is_empty());
    assert_eq!(
        fixture.metadata.partition_totals(lease.topic_id).await.unwrap()[0].log_start,
        Offset(20)
    );
    let left = fixture
        .metadata
        .segments(lease.topic_id, 0, Offset(0), 10)
        .await
        .unwrap();
    assert_eq!(
        left.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(),
        ["k2", "k3"]
    );

    assert_eq!(expire(91).await, ["k2", "k3"]);
    let next = fixture
        .metadata
        .acquire_lease(lease.topic_id, 0, Uuid::from_u128(100))
        .await
        .unwrap();
    assert_eq!((next.log_start, next.committed_end), (Offset(40), Offset(40)));
    assert_eq!(
        fixture.metadata.pending_deletions(NOW_MS, 10).await.unwrap(),
        ["k0", "k1", "k2", "k3"]
    );
    let error = fixture
        .metadata
        .expire_segments(&lease, Some(91), None, NOW_MS)
        .await
        .unwrap_err();
    assert!(is_fenced(&error, lease.epoch), "{error}");
    fixture
        .metadata
        .commit_segment(&next, &new_segment("k4", 40, 50))
        .await
        .unwrap();
}

async fn one_call_expires_a_bounded_number_of_segments(fixture: Fixture) {
    let lease = fixture.lease().await;
    fixture
        .sql(
            "INSERT INTO segments (topic_id, partition, base_offset, end_offset, epoch, object_key, record_count, \
                                   raw_bytes, stored_bytes, min_timestamp_ms, max_timestamp_ms, created_at_ms) \
             WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1500) \
             SELECT p.topic_id, 0, n, n + 1, 1, 'k' || n, 1, 1, 1, 0, 0, 0 FROM numbers, partitions p",
        )
        .await;
    fixture.sql("UPDATE partitions SET committed_end = 1501").await;
    let first = fixture
        .metadata
        .expire_segments(&lease, Some(NOW_MS), None, NOW_MS)
        .await
        .unwrap();
    assert_eq!(first.unwrap().log_start, Offset(u64::from(EXPIRE_SEGMENTS_MAX)));
    let second = fixture
        .metadata
        .expire_segments(&lease, Some(NOW_MS), None, NOW_MS)
        .await
        .unwrap();
    assert_eq!(second.unwrap().keys.len(), 501);
    assert!(
        fixture
            .metadata
            .expire_segments(&lease, Some(NOW_MS), None, NOW_MS)
            .await
            .unwrap()
            .is_none()
    );
}

async fn retention_by_bytes_leaves_at_least_so_many(fixture: Fixture) {
    let lease = fixture.lease().await;
    fixture.segments_of(&lease, &[1, 2, 3, 4]).await;
    let expire = async |bytes_max| {
        let expired = fixture.metadata.expire_segments(&lease, None, Some(bytes_max), NOW_MS);
        expired.await.unwrap().map(|expired| expired.log_start.0)
    };
    assert_eq!(expire(40).await, None);
    assert_eq!(expire(31).await, None);
    assert_eq!(expire(25).await, Some(10));
    assert_eq!(expire(u64::MAX).await, None);
    assert_eq!(expire(10).await, Some(30));
    assert_eq!(expire(0).await, Some(40));
    assert_eq!(expire(0).await, None);
}

async fn partitions_whose_first_segment_is_due_are_found_though_nobody_holds_them(fixture: Fixture) {
    let topic = fixture.topic(1, "orders", 4).await;
    let incarnation = fixture.incarnation(100).await;
    for (partition, times) in [(0, &[10, 90][..]), (1, &[90, 10]), (3, &[20])] {
        let lease = fixture
            .metadata
            .acquire_lease(topic.id, partition, incarnation)
            .await
            .unwrap();
        fixture.segments_of(&lease, times).await;
    }
    let find = async |before_ms, bytes_max, after, limit| {
        let found = fixture
            .metadata
            .partitions_to_expire(topic.id, before_ms, bytes_max, after, limit);
        found.await.unwrap()
    };
    assert_eq!(find(Some(50), None, None, 10).await, [0, 3]);
    assert_eq!(find(Some(50), None, None, 1).await, [0]);
    assert_eq!(find(Some(50), None, Some(0), 10).await, [3]);
    assert_eq!(find(None, Some(10), None, 10).await, [0, 1]);
    assert_eq!(find(None, Some(u64::MAX), None, 10).await, [0u32; 0]);
    assert_eq!(find(None, None, None, 10).await, [0u32; 0]);
}

async fn truncation_moves_the_log_start_and_takes_what_lies_wholly_below(fixture: Fixture) {
    let lease = fixture.lease().await;
    fixture.segments_of(&lease, &[1, 2, 3]).await;
    let truncate = async |before| fixture.metadata.truncate(&lease, Offset(before), NOW_MS).await;

    let cut = truncate(15).await.unwrap();
    assert_eq!((cut.log_start, cut.keys), (Offset(15), vec!["0-0".to_string()]));
    let again = truncate(15).await.unwrap();
    assert_eq!((again.log_start, again.keys.len()), (Offset(15), 0));
    assert_eq!(truncate(3).await.unwrap().log_start, Offset(15));
    let beyond = truncate(31).await.unwrap_err();
    assert!(
        matches!(
            beyond,
            MetaError::Conflict {
                expected: 31,
                found: 30,
                ..
            }
        ),
        "{beyond}"
    );
    assert_eq!(truncate(30).await.unwrap().keys.len(), 2);
    assert_eq!(fixture.metadata.pending_deletions(NOW_MS, 10).await.unwrap().len(), 3);

    let next = fixture
        .metadata
        .acquire_lease(lease.topic_id, 0, Uuid::from_u128(100))
        .await
        .unwrap();
    assert_eq!((next.log_start, next.committed_end), (Offset(30), Offset(30)));
    let error = truncate(30).await.unwrap_err();
    assert!(is_fenced(&error, lease.epoch), "{error}");
}
