use millstream_batch::Offset;
use millstream_meta::{CommitOutcome, MetaError, NewSegment};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{Fixture, NOW_MS, TASKS, is_fenced, new_segment};

on_both! {
    a_committed_segment_reads_back_with_every_field,
    of_racing_commits_at_one_base_exactly_one_is_committed,
    holders_racing_for_a_partition_leave_a_history_without_gap_or_overlap,
    a_commit_whose_answer_was_lost_is_already_committed_under_any_epoch,
    a_commit_of_a_stale_epoch_or_beside_the_committed_end_is_fenced,
    segments_that_cannot_be_are_refused_and_move_nothing,
    segments_are_found_from_the_one_that_holds_an_offset,
    totals_count_each_partition_by_itself,
    deletions_are_pending_when_due_until_they_are_done,
    a_timestamp_leads_to_the_first_segment_that_reaches_it,
    a_key_is_named_by_its_segment_or_by_its_deletion,
}

async fn a_committed_segment_reads_back_with_every_field(fixture: Fixture) {
    let lease = fixture.lease().await;
    let new = NewSegment {
        etag: Some("\"abc\"".into()),
        ..new_segment("a", 0, 10)
    };
    assert_eq!(
        fixture.metadata.commit_segment(&lease, &new).await.unwrap(),
        CommitOutcome::Committed
    );
    let rows = fixture
        .metadata
        .segments(lease.topic_id, 0, Offset(0), 10)
        .await
        .unwrap();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    let read = NewSegment {
        key: row.key.clone(),
        base_offset: row.base_offset,
        end_offset: row.end_offset,
        record_count: row.record_count,
        raw_bytes: row.raw_bytes,
        stored_bytes: row.stored_bytes,
        min_timestamp_ms: row.min_timestamp_ms,
        max_timestamp_ms: row.max_timestamp_ms,
        created_at_ms: row.created_at_ms,
        etag: row.etag.clone(),
    };
    assert_eq!((read, row.epoch), (new, lease.epoch));
}

async fn of_racing_commits_at_one_base_exactly_one_is_committed(fixture: Fixture) {
    let lease = fixture.lease().await;
    let mut tasks = JoinSet::new();
    for n in 0..TASKS {
        let (metadata, lease) = (fixture.metadata.clone(), lease.clone());
        tasks.spawn(async move {
            metadata
                .commit_segment(&lease, &new_segment(&format!("k{n}"), 0, 1 + n))
                .await
        });
    }
    let answers = tasks.join_all().await;
    assert_eq!(
        answers
            .iter()
            .filter(|answer| matches!(answer, Ok(CommitOutcome::Committed)))
            .count(),
        1
    );
    assert_eq!(
        answers
            .iter()
            .filter(|answer| matches!(answer, Err(MetaError::Fenced { .. })))
            .count(),
        15
    );
    assert_eq!(
        fixture
            .metadata
            .segments(lease.topic_id, 0, Offset(0), 100)
            .await
            .unwrap()
            .len(),
        1
    );
}

async fn holders_racing_for_a_partition_leave_a_history_without_gap_or_overlap(fixture: Fixture) {
    let topic_id = fixture.lease().await.topic_id;
    let mut tasks = JoinSet::new();
    for n in 0..TASKS {
        let (metadata, incarnation) = (fixture.metadata.clone(), Uuid::from_u128(100));
        tasks.spawn(async move {
            let mut committed = 0;
            for round in 0..8 {
                let lease = metadata.acquire_lease(topic_id, 0, incarnation).await.unwrap();
                let base = lease.committed_end.0;
                let segment = new_segment(&format!("{n}-{round}"), base, base + 1 + n);
                match metadata.commit_segment(&lease, &segment).await {
                    Ok(outcome) => {
                        assert_eq!(outcome, CommitOutcome::Committed);
                        committed += 1;
                    }
                    Err(error) => assert!(is_fenced(&error, lease.epoch), "{error}"),
                }
            }
            committed
        });
    }
    let committed: usize = tasks.join_all().await.into_iter().sum();
    let history = fixture.metadata.segments(topic_id, 0, Offset(0), 1_000).await.unwrap();
    assert_eq!(history.len(), committed);
    assert!(committed > 0 && history[0].base_offset == Offset(0));
    for pair in history.windows(2) {
        assert_eq!(pair[0].end_offset, pair[1].base_offset);
        assert!(pair[0].epoch < pair[1].epoch);
    }
    let totals = fixture.metadata.partition_totals(topic_id).await.unwrap();
    assert_eq!(totals[0].committed_end, history.last().unwrap().end_offset);
}

async fn a_commit_whose_answer_was_lost_is_already_committed_under_any_epoch(fixture: Fixture) {
    let lease = fixture.lease().await;
    let segment = new_segment("a", 0, 10);
    fixture.metadata.commit_segment(&lease, &segment).await.unwrap();
    let again = fixture.metadata.commit_segment(&lease, &segment).await.unwrap();
    assert_eq!(again, CommitOutcome::AlreadyCommitted);
    fixture
        .metadata
        .acquire_lease(lease.topic_id, 0, Uuid::from_u128(100))
        .await
        .unwrap();
    let fenced_but_done = fixture.metadata.commit_segment(&lease, &segment).await.unwrap();
    assert_eq!(fenced_but_done, CommitOutcome::AlreadyCommitted);
    for other in [new_segment("b", 0, 10), new_segment("a", 0, 11)] {
        let error = fixture.metadata.commit_segment(&lease, &other).await.unwrap_err();
        assert!(is_fenced(&error, lease.epoch), "{error}");
    }
}

async fn a_commit_of_a_stale_epoch_or_beside_the_committed_end_is_fenced(fixture: Fixture) {
    let stale = fixture.lease().await;
    let lease = fixture
        .metadata
        .acquire_lease(stale.topic_id, 0, Uuid::from_u128(100))
        .await
        .unwrap();
    let error = fixture
        .metadata
        .commit_segment(&stale, &new_segment("a", 0, 10))
        .await
        .unwrap_err();
    assert!(is_fenced(&error, stale.epoch), "{error}");
    fixture
        .metadata
        .commit_segment(&lease, &new_segment("b", 0, 10))
        .await
        .unwrap();
    for beside in [new_segment("c", 9, 20), new_segment("d", 11, 20)] {
        let error = fixture.metadata.commit_segment(&lease, &beside).await.unwrap_err();
        assert!(is_fenced(&error, lease.epoch), "{error}");
    }
    fixture
        .metadata
        .commit_segment(&lease, &new_segment("e", 10, 20))
        .await
        .unwrap();
}

async fn segments_that_cannot_be_are_refused_and_move_nothing(fixture: Fixture) {
    let lease = fixture.lease().await;
    let beyond = NewSegment {
        end_offset: Offset(u64::MAX),
        ..new_segment("a", 0, 1)
    };
    let unstored = NewSegment {
        stored_bytes: 0,
        ..new_segment("a", 0, 1)
    };
    for segment in [new_segment("a", 0, 0), new_segment("", 0, 1), beyond, unstored] {
        let error = fixture.metadata.commit_segment(&lease, &segment).await.unwrap_err();
        assert!(matches!(error, MetaError::Invalid { .. }), "{error}");
    }
    assert_eq!(
        fixture.metadata.partition_totals(lease.topic_id).await.unwrap()[0].committed_end,
        Offset(0)
    );
}

async fn segments_are_found_from_the_one_that_holds_an_offset(fixture: Fixture) {
    let lease = fixture.lease().await;
    for n in 0..5 {
        let segment = new_segment(&format!("k{n}"), n * 10, n * 10 + 10);
        fixture.metadata.commit_segment(&lease, &segment).await.unwrap();
    }
    let bases = async |from: u64, limit: u32| -> Vec<u64> {
        let rows = fixture
            .metadata
            .segments(lease.topic_id, 0, Offset(from), limit)
            .await
            .unwrap();
        rows.iter().map(|row| row.base_offset.0).collect()
    };
    assert_eq!(bases(0, 2).await, [0, 10]);
    assert_eq!(bases(19, 10).await, [10, 20, 30, 40]);
    assert_eq!(bases(20, 10).await, [20, 30, 40]);
    assert_eq!(bases(49, 10).await, [40]);
    assert!(bases(50, 10).await.is_empty());
    assert!(
        fixture
            .metadata
            .segments(lease.topic_id, 7, Offset(0), 10)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn totals_count_each_partition_by_itself(fixture: Fixture) {
    let topic = fixture.topic(1, "orders", 2).await;
    let incarnation = fixture.incarnation(100).await;
    let lease = fixture.metadata.acquire_lease(topic.id, 1, incarnation).await.unwrap();
    fixture
        .metadata
        .commit_segment(&lease, &new_segment("a", 0, 10))
        .await
        .unwrap();
    fixture
        .metadata
        .commit_segment(&lease, &new_segment("b", 10, 30))
        .await
        .unwrap();
    let totals = fixture.metadata.partition_totals(topic.id).await.unwrap();
    assert_eq!(
        (totals[0].segment_count, totals[0].raw_bytes, totals[0].committed_end),
        (0, 0, Offset(0))
    );
    assert_eq!(
        (totals[1].segment_count, totals[1].raw_bytes, totals[1].stored_bytes),
        (2, 40, 20)
    );
    assert_eq!(totals[1].committed_end, Offset(30));
}

async fn deletions_are_pending_when_due_until_they_are_done(fixture: Fixture) {
    let lease = fixture.lease().await;
    for (n, key) in ["a", "b", "c"].into_iter().enumerate() {
        let base = n as u64;
        fixture
            .metadata
            .commit_segment(&lease, &new_segment(key, base, base + 1))
            .await
            .unwrap();
    }
    fixture.metadata.delete_topic(lease.topic_id, 50).await.unwrap();
    assert!(fixture.metadata.pending_deletions(49, 10).await.unwrap().is_empty());
    assert_eq!(fixture.metadata.pending_deletions(50, 2).await.unwrap(), ["a", "b"]);
    let done = ["a".to_string(), "c".to_string(), "never recorded".to_string()];
    fixture.metadata.deletions_done(&done).await.unwrap();
    assert_eq!(fixture.metadata.pending_deletions(50, 10).await.unwrap(), ["b"]);
    fixture.metadata.deletions_done(&[]).await.unwrap();
}

async fn a_timestamp_leads_to_the_first_segment_that_reaches_it(fixture: Fixture) {
    let lease = fixture.lease().await;
    // The second is out of order: the first that reaches a time counts, not the nearest.
    for (n, max_timestamp_ms) in [100, 50, 300].into_iter().enumerate() {
        let base = n as u64 * 10;
        let segment = NewSegment {
            max_timestamp_ms,
            ..new_segment(&format!("k{n}"), base, base + 10)
        };
        fixture.metadata.commit_segment(&lease, &segment).await.unwrap();
    }
    let first_at = async |timestamp_ms| {
        let found = fixture.metadata.first_segment_at(lease.topic_id, 0, timestamp_ms).await;
        found.unwrap().map(|row| row.base_offset.0)
    };
    assert_eq!(first_at(i64::MIN).await, Some(0));
    assert_eq!(first_at(100).await, Some(0));
    assert_eq!(first_at(101).await, Some(20));
    assert_eq!(first_at(301).await, None);
    fixture.metadata.truncate(&lease, Offset(15), NOW_MS).await.unwrap();
    assert_eq!(first_at(40).await, Some(10));
}

async fn a_key_is_named_by_its_segment_or_by_its_deletion(fixture: Fixture) {
    let lease = fixture.lease().await;
    for (key, base) in [("a", 0), ("b", 10)] {
        let segment = new_segment(key, base, base + 10);
        fixture.metadata.commit_segment(&lease, &segment).await.unwrap();
    }
    fixture.metadata.truncate(&lease, Offset(10), NOW_MS).await.unwrap();
    let keys = ["a", "b", "c"].map(str::to_string);
    let named = fixture.metadata.named_keys(&keys).await.unwrap();
    assert_eq!(named, ["a", "b"].map(str::to_string).into());
}
