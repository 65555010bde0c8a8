use std::num::NonZeroU32;

use millstream_batch::Offset;
use millstream_meta::{CommittedOffset, GroupRow, MetaError, Metadata, PartitionEnds, Topic};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{Fixture, NOW_MS, TASKS, new_segment};

on_both! {
    a_group_is_as_it_was_written_last,
    of_many_that_write_one_version_one_succeeds,
    a_group_that_is_made_again_has_a_greater_version,
    a_commit_needs_the_version_that_was_read,
    a_commit_is_stored_whole_or_not_at_all,
    a_later_commit_takes_the_place_of_the_one_before,
    offsets_go_with_their_topic,
    a_deleted_group_leaves_nothing,
    groups_are_listed_by_name_in_pages,
    what_no_group_can_have_is_refused,
    partitions_tell_their_ends,
}

const MEMBERS: &str = r#"{"members": {"a": {"topics": ["t"]}}}"#;

async fn group(metadata: &Metadata, name: &str) -> GroupRow {
    metadata.group(name).await.unwrap().group.unwrap()
}

/// Writes a group whatever its version.
async fn write(metadata: &Metadata, name: &str, generation: u64) -> u64 {
    let version = metadata.group(name).await.unwrap().group.map(|group| group.version);
    metadata
        .write_group(name, version, generation, MEMBERS, NOW_MS)
        .await
        .unwrap();
    group(metadata, name).await.version
}

fn offset(topic: &Topic, partition: u32, offset: u64) -> CommittedOffset {
    CommittedOffset {
        topic_id: topic.id,
        topic: topic.name.clone(),
        partition,
        offset: Offset(offset),
        metadata: format!("ü'{offset}"),
        committed_at_ms: NOW_MS,
    }
}

fn is_conflict(error: &MetaError) -> bool {
    matches!(error, MetaError::Conflict { .. })
}

async fn a_group_is_as_it_was_written_last(fixture: Fixture) {
    let metadata = &fixture.metadata;
    let absent = metadata.group("g").await.unwrap();
    assert!(absent.group.is_none() && absent.now_ms > NOW_MS, "{absent:?}");
    let first = write(metadata, "g", 1).await;
    let second = write(metadata, "g", 5).await;
    assert!(second > first);
    let found = group(metadata, "g").await;
    assert_eq!((found.name.as_str(), found.generation), ("g", 5));
    let document: serde_json::Value = serde_json::from_str(&found.members_json).unwrap();
    assert_eq!(document, serde_json::from_str::<serde_json::Value>(MEMBERS).unwrap());
}

async fn of_many_that_write_one_version_one_succeeds(fixture: Fixture) {
    write(&fixture.metadata, "g", 1).await;
    for name in ["g", "new"] {
        let version = fixture
            .metadata
            .group(name)
            .await
            .unwrap()
            .group
            .map(|group| group.version);
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let metadata = fixture.client().await;
            tasks.spawn(async move { metadata.write_group(name, version, 10 + task, MEMBERS, NOW_MS).await });
        }
        let answers = tasks.join_all().await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
        assert!(answers.iter().flat_map(|answer| answer.as_ref().err()).all(is_conflict));
        assert!(group(&fixture.metadata, name).await.generation >= 10);
    }
}

async fn a_group_that_is_made_again_has_a_greater_version(fixture: Fixture) {
    let version = write(&fixture.metadata, "g", 1).await;
    fixture.metadata.delete_group("g", version).await.unwrap();
    let later = loop {
        let made = write(&fixture.metadata, "g", 1).await;
        // The database may count the same millisecond still.
        if made > version {
            break made;
        }
        fixture.metadata.delete_group("g", made).await.unwrap();
    };
    let late = fixture
        .metadata
        .write_group("g", Some(version), 9, MEMBERS, NOW_MS)
        .await;
    assert!(is_conflict(&late.unwrap_err()));
    assert_eq!(group(&fixture.metadata, "g").await.version, later);
}

async fn a_commit_needs_the_version_that_was_read(fixture: Fixture) {
    let metadata = &fixture.metadata;
    let topic = fixture.topic(1, "orders", 2).await;
    let before = write(metadata, "g", 1).await;
    let now = write(metadata, "g", 2).await;
    let offsets = [offset(&topic, 0, 7)];
    for version in [Some(before), Some(now + 1), None] {
        let error = metadata.commit_offsets("g", version, &offsets).await.unwrap_err();
        assert!(is_conflict(&error), "{version:?}: {error}");
    }
    let error = metadata.commit_offsets("absent", Some(0), &offsets).await.unwrap_err();
    assert!(is_conflict(&error), "{error}");
    assert!(metadata.committed_offsets("g").await.unwrap().is_empty());
    metadata.commit_offsets("g", Some(now), &offsets).await.unwrap();
    assert_eq!(metadata.committed_offsets("g").await.unwrap(), offsets);
    // Only who changes the members changes the version.
    assert_eq!(group(metadata, "g").await.version, now);
    metadata.commit_offsets("made", None, &offsets).await.unwrap();
    assert_eq!(metadata.committed_offsets("made").await.unwrap(), offsets);
}

async fn a_commit_is_stored_whole_or_not_at_all(fixture: Fixture) {
    let metadata = &fixture.metadata;
    let topic = fixture.topic(1, "orders", 2).await;
    let elsewhere = CommittedOffset {
        topic_id: Uuid::from_u128(99),
        ..offset(&topic, 0, 1)
    };
    for bad in [offset(&topic, 2, 1), elsewhere] {
        let offsets = [offset(&topic, 0, 7), bad, offset(&topic, 1, 7)];
        let error = metadata.commit_offsets("g", None, &offsets).await.unwrap_err();
        assert!(
            matches!(error, MetaError::NotFound { what: "partition", .. }),
            "{error}"
        );
    }
    let nul = CommittedOffset {
        metadata: "nul\0".to_owned(),
        ..offset(&topic, 0, 1)
    };
    let long = CommittedOffset {
        metadata: "x".repeat(4_097),
        ..offset(&topic, 0, 1)
    };
    for bad in [nul, long, offset(&topic, 0, u64::MAX)] {
        let error = metadata.commit_offsets("g", None, &[bad]).await.unwrap_err();
        assert!(matches!(error, MetaError::Invalid { .. }), "{error}");
    }
    assert!(metadata.group("g").await.unwrap().group.is_none());
    assert!(metadata.committed_offsets("g").await.unwrap().is_empty());
}

async fn a_later_commit_takes_the_place_of_the_one_before(fixture: Fixture) {
    let metadata = &fixture.metadata;
    let (b, a) = (fixture.topic(1, "b", 3).await, fixture.topic(2, "a", 1).await);
    let version = write(metadata, "g", 1).await;
    let first = [offset(&b, 2, 1), offset(&a, 0, 1), offset(&b, 1, 1)];
    metadata.commit_offsets("g", Some(version), &first).await.unwrap();
    let later = CommittedOffset {
        committed_at_ms: NOW_MS + 1,
        ..offset(&b, 2, 0)
    };
    metadata
        .commit_offsets("g", Some(version), std::slice::from_ref(&later))
        .await
        .unwrap();
    let expected = [offset(&a, 0, 1), offset(&b, 1, 1), later];
    assert_eq!(metadata.committed_offsets("g").await.unwrap(), expected);
    assert!(metadata.committed_offsets("G").await.unwrap().is_empty());
}

async fn offsets_go_with_their_topic(fixture: Fixture) {
    let metadata = &fixture.metadata;
    let (gone, stays) = (fixture.topic(1, "gone", 1).await, fixture.topic(2, "stays", 1).await);
    let offsets = [offset(&gone, 0, 5), offset(&stays, 0, 6)];
    metadata.commit_offsets("g", None, &offsets).await.unwrap();
    metadata.delete_topic(gone.id, NOW_MS).await.unwrap();
    fixture.topic(3, "gone", 1).await;
    assert_eq!(metadata.committed_offsets("g").await.unwrap(), offsets[1..]);
    let error = metadata.commit_offsets("new", None, &offsets).await.unwrap_err();
    assert!(matches!(error, MetaError::NotFound { .. }), "{error}");
}

async fn a_deleted_group_leaves_nothing(fixture: Fixture) {
    let metadata = &fixture.metadata;
    let topic = fixture.topic(1, "orders", 1).await;
    let version = write(metadata, "g", 1).await;
    metadata
        .commit_offsets("g", Some(version), &[offset(&topic, 0, 5)])
        .await
        .unwrap();
    assert!(is_conflict(&metadata.delete_group("g", version - 1).await.unwrap_err()));
    metadata.delete_group("g", version).await.unwrap();
    assert!(metadata.committed_offsets("g").await.unwrap().is_empty());
    assert!(metadata.group("g").await.unwrap().group.is_none());
    let error = metadata.delete_group("g", version).await.unwrap_err();
    assert!(matches!(error, MetaError::NotFound { what: "group", .. }), "{error}");
}

async fn groups_are_listed_by_name_in_pages(fixture: Fixture) {
    let metadata = &fixture.metadata;
    let (a, b) = (fixture.topic(1, "a", 2).await, fixture.topic(2, "b", 1).await);
    let names = ["B", "_", "a", "b"];
    for name in names.iter().rev() {
        write(metadata, name, 3).await;
    }
    let offsets = [offset(&b, 0, 1), offset(&a, 0, 1), offset(&a, 1, 1)];
    let version = group(metadata, "_").await.version;
    metadata.commit_offsets("_", Some(version), &offsets).await.unwrap();
    let page = |after: &'static str| metadata.groups_after(after, NonZeroU32::new(3).unwrap());
    let (now_ms, first) = page("").await.unwrap();
    let (_, second) = page("a").await.unwrap();
    assert!(now_ms > NOW_MS);
    let found: Vec<_> = first.iter().chain(&second).map(|group| group.name.as_str()).collect();
    assert_eq!(found, names);
    let topics = metadata.committed_topics("B", "a").await.unwrap();
    assert_eq!(
        topics,
        [("_", "a"), ("_", "b")].map(|(group, topic)| (group.to_owned(), topic.to_owned()))
    );
    assert!(metadata.committed_topics("a", "b").await.unwrap().is_empty());
}

async fn what_no_group_can_have_is_refused(fixture: Fixture) {
    let metadata = &fixture.metadata;
    let long = "x".repeat(250);
    for (name, members) in [
        ("", "{}"),
        (&long, "{}"),
        ("nul\0", "{}"),
        ("g", "{"),
        ("g", r#""\u0000""#),
    ] {
        let error = metadata.write_group(name, None, 1, members, NOW_MS).await.unwrap_err();
        assert!(
            matches!(error, MetaError::Invalid { .. }),
            "{name:?} {members}: {error}"
        );
    }
    assert!(metadata.groups_after("", NonZeroU32::MIN).await.unwrap().1.is_empty());
    for group in 0..10_000 / 500 {
        // Names of 500 groups, in one statement of each database.
        let numbers = "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 499)";
        let insert = format!(
            "INSERT INTO consumer_groups (name, created_at_ms) {numbers} SELECT '{group}-' || n, 0 FROM numbers"
        );
        fixture.sql(&insert).await;
    }
    let error = metadata.write_group("more", None, 1, "{}", NOW_MS).await.unwrap_err();
    assert!(matches!(error, MetaError::TooMany { most: 10_000, .. }), "{error}");
    metadata.write_group("0-0", Some(0), 1, "{}", NOW_MS).await.unwrap();
}

async fn partitions_tell_their_ends(fixture: Fixture) {
    let metadata = &fixture.metadata;
    let lease = fixture.lease().await;
    metadata.commit_segment(&lease, &new_segment("s", 0, 10)).await.unwrap();
    let absent = [(lease.topic_id, 1), (Uuid::from_u128(9), 0)];
    let asked = [(lease.topic_id, 0), absent[0], absent[1]];
    let ends = PartitionEnds {
        topic_id: lease.topic_id,
        partition: 0,
        log_start: Offset(0),
        committed_end: Offset(10),
    };
    assert_eq!(metadata.partition_ends(&asked).await.unwrap(), [ends]);
}
