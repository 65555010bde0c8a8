use std::time::{Duration, Instant};

use millstream_batch::{Compression, Offset};
use millstream_meta::{MetaError, Metadata, PARTITIONS_MAX, TopicConfig};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{Fixture, NOW_MS, TASKS, is_fenced, new_segment};

on_both! {
    a_topic_reads_back_as_it_was_created,
    a_reopened_database_holds_what_it_held,
    of_racing_creations_of_one_name_exactly_one_wins,
    a_hundred_thousand_partitions_are_created_and_deleted_in_seconds,
    topics_that_cannot_be_are_refused,
    deleting_a_topic_records_every_object_of_it_and_fences_its_leases,
    a_topic_made_again_shares_nothing_with_the_one_before,
    an_altered_topic_keeps_its_identity_and_its_partitions,
    settings_that_another_changed_meanwhile_are_not_undone,
    partitions_are_added_behind_those_that_there_are_and_none_is_taken_away,
    of_racing_additions_the_greatest_number_of_partitions_stays,
    of_two_changes_on_the_same_settings_one_is_refused,
    a_call_that_comes_late_spares_the_next_topic_of_that_name,
    a_manifest_is_wanted_until_it_tells_the_settings_as_they_are,
    a_deleted_topic_is_remembered_until_it_is_forgotten,
}

async fn a_topic_reads_back_as_it_was_created(fixture: Fixture) {
    let config = TopicConfig {
        retention_ms: None,
        compression: Compression::Zstd,
        ..TopicConfig::default()
    };
    let id = Uuid::from_u128(7);
    let created = fixture
        .metadata
        .create_topic(id, "orders", 3, &config, NOW_MS)
        .await
        .unwrap();
    assert_eq!(created.config, config);
    assert_eq!(fixture.metadata.topic("orders").await.unwrap(), Some(created.clone()));
    assert_eq!(fixture.metadata.topic("Orders").await.unwrap(), None);
    let other = fixture.topic(8, "metrics", 1).await;
    assert_eq!(fixture.metadata.topics().await.unwrap(), vec![other, created]);
}

async fn a_reopened_database_holds_what_it_held(fixture: Fixture) {
    let lease = fixture.lease().await;
    fixture
        .metadata
        .commit_segment(&lease, &new_segment("a", 0, 10))
        .await
        .unwrap();
    fixture.metadata.close().await;

    let again = Metadata::open(&fixture.place.url()).await.unwrap();
    assert_eq!(again.topic("orders").await.unwrap().unwrap().id, lease.topic_id);
    let incarnation = Uuid::from_u128(100);
    let next = again.acquire_lease(lease.topic_id, 0, incarnation).await.unwrap();
    assert!(next.epoch > lease.epoch);
    assert_eq!(next.committed_end, Offset(10));
}

async fn of_racing_creations_of_one_name_exactly_one_wins(fixture: Fixture) {
    let mut tasks = JoinSet::new();
    for n in 0..TASKS {
        let metadata = fixture.metadata.clone();
        let config = TopicConfig::default();
        tasks.spawn(async move {
            metadata
                .create_topic(Uuid::from_u128(n.into()), "orders", 4, &config, NOW_MS)
                .await
        });
    }
    let answers = tasks.join_all().await;
    let winners: Vec<_> = answers.iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(
        fixture.metadata.topic("orders").await.unwrap().as_ref(),
        Some(winners[0])
    );
    for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert!(
            matches!(error, MetaError::AlreadyExists { what: "topic", .. }),
            "{error}"
        );
    }
}

async fn a_hundred_thousand_partitions_are_created_and_deleted_in_seconds(fixture: Fixture) {
    let start = Instant::now();
    let topic = fixture.topic(1, "wide", PARTITIONS_MAX).await;
    let created = start.elapsed();
    let totals = fixture.metadata.partition_totals(topic.id).await.unwrap();
    assert_eq!(totals.len(), PARTITIONS_MAX as usize);
    assert!(
        totals
            .iter()
            .enumerate()
            .all(|(n, totals)| totals.partition as usize == n)
    );
    let start = Instant::now();
    fixture.metadata.delete_topic(topic.id, NOW_MS).await.unwrap();
    let deleted = start.elapsed();
    println!("100,000 partitions created in {created:?}, deleted in {deleted:?}");
    assert!(
        created < Duration::from_secs(20) && deleted < Duration::from_secs(20),
        "{created:?} {deleted:?}"
    );
}

async fn topics_that_cannot_be_are_refused(fixture: Fixture) {
    let config = TopicConfig::default();
    let long = "x".repeat(250);
    for (name, partitions) in [
        ("orders", 0),
        ("orders", PARTITIONS_MAX + 1),
        ("", 1),
        (long.as_str(), 1),
    ] {
        let answer = fixture
            .metadata
            .create_topic(Uuid::from_u128(1), name, partitions, &config, NOW_MS)
            .await;
        assert!(
            matches!(answer, Err(MetaError::Invalid { .. })),
            "{name} {partitions}: {answer:?}"
        );
    }
    assert!(fixture.metadata.topics().await.unwrap().is_empty());
}

async fn deleting_a_topic_records_every_object_of_it_and_fences_its_leases(fixture: Fixture) {
    let lease = fixture.lease().await;
    fixture
        .metadata
        .commit_segment(&lease, &new_segment("a", 0, 10))
        .await
        .unwrap();
    fixture
        .metadata
        .commit_segment(&lease, &new_segment("b", 10, 20))
        .await
        .unwrap();
    fixture
        .metadata
        .activate_pipeline(lease.topic_id, 0, "[]", "a test", NOW_MS)
        .await
        .unwrap();
    let deleted = fixture.metadata.delete_topic(lease.topic_id, NOW_MS + 1).await.unwrap();
    assert_eq!(deleted.name, "orders");

    assert_eq!(fixture.metadata.topic("orders").await.unwrap(), None);
    assert_eq!(
        fixture.metadata.pending_deletions(NOW_MS + 1, 10).await.unwrap(),
        ["a", "b"]
    );
    let late = fixture
        .metadata
        .commit_segment(&lease, &new_segment("c", 20, 30))
        .await
        .unwrap_err();
    assert!(is_fenced(&late, lease.epoch), "{late}");
    let again = fixture.metadata.delete_topic(lease.topic_id, NOW_MS).await.unwrap_err();
    assert!(matches!(again, MetaError::NotFound { what: "topic", .. }), "{again}");
}

async fn a_topic_made_again_shares_nothing_with_the_one_before(fixture: Fixture) {
    let old = fixture.lease().await;
    fixture
        .metadata
        .commit_segment(&old, &new_segment("a", 0, 10))
        .await
        .unwrap();
    fixture
        .metadata
        .activate_pipeline(old.topic_id, 0, "[]", "a test", NOW_MS)
        .await
        .unwrap();
    fixture.metadata.delete_topic(old.topic_id, NOW_MS).await.unwrap();

    let new = fixture.topic(2, "orders", 1).await;
    assert_eq!(fixture.metadata.pipeline(new.id).await.unwrap(), None);
    assert!(
        fixture
            .metadata
            .segments(new.id, 0, Offset(0), 10)
            .await
            .unwrap()
            .is_empty()
    );
    let lease = fixture
        .metadata
        .acquire_lease(new.id, 0, Uuid::from_u128(100))
        .await
        .unwrap();
    assert_eq!((lease.committed_end, lease.wal), (Offset(0), None));
    let late = fixture
        .metadata
        .commit_segment(&old, &new_segment("b", 10, 20))
        .await
        .unwrap_err();
    assert!(is_fenced(&late, old.epoch), "{late}");
}

#[test]
fn a_configuration_takes_its_defaults_and_refuses_unknown_keys() {
    let config: TopicConfig = serde_json::from_str(r#"{"retention_ms": null, "compression": "none"}"#).unwrap();
    let expected = TopicConfig {
        retention_ms: None,
        compression: Compression::None,
        ..TopicConfig::default()
    };
    assert_eq!(config, expected);
    assert_eq!(
        serde_json::from_str::<TopicConfig>(&serde_json::to_string(&config).unwrap()).unwrap(),
        config
    );
    let unknown = serde_json::from_str::<TopicConfig>(r#"{"retention": 1}"#).unwrap_err();
    assert!(unknown.to_string().contains("retention_ms"), "{unknown}");
    let codec = serde_json::from_str::<TopicConfig>(r#"{"compression": "gzip"}"#).unwrap_err();
    assert!(codec.to_string().contains("none, lz4 or zstd"), "{codec}");
}

async fn an_altered_topic_keeps_its_identity_and_its_partitions(fixture: Fixture) {
    let topic = fixture.topic(1, "orders", 2).await;
    let config = TopicConfig {
        retention_ms: None,
        retention_bytes: Some(1 << 30),
        ..topic.config.clone()
    };
    let altered = fixture
        .metadata
        .alter_topic(topic.id, &topic.config, &config, None)
        .await
        .unwrap();
    assert_eq!(
        (altered.id, altered.partitions, &altered.config),
        (topic.id, 2, &config)
    );
    assert_eq!(fixture.metadata.topic("orders").await.unwrap(), Some(altered));
    let error = fixture
        .metadata
        .alter_topic(Uuid::from_u128(9), &topic.config, &config, None)
        .await
        .unwrap_err();
    assert!(matches!(error, MetaError::NotFound { what: "topic", .. }), "{error}");
}

async fn settings_that_another_changed_meanwhile_are_not_undone(fixture: Fixture) {
    let (topic, metadata) = (fixture.topic(1, "orders", 1).await, &fixture.metadata);
    let theirs = TopicConfig {
        segment_bytes: 1 << 20,
        ..topic.config.clone()
    };
    let ours = TopicConfig {
        retention_ms: None,
        ..topic.config.clone()
    };
    metadata
        .alter_topic(topic.id, &topic.config, &theirs, None)
        .await
        .unwrap();
    let error = metadata
        .alter_topic(topic.id, &topic.config, &ours, None)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, MetaError::SettingsChanged { name } if name == "orders"),
        "{error}"
    );
    let again = metadata
        .alter_topic(topic.id, &topic.config, &theirs, None)
        .await
        .unwrap();
    assert_eq!(again.config, theirs, "asked again after a lost answer");
    assert_eq!(metadata.topic("orders").await.unwrap().unwrap().config, theirs);
    let versions = metadata.topics_without_manifest(1).await.unwrap();
    assert_eq!(versions[0].1, 2, "they were changed once");
    let both = TopicConfig {
        segment_bytes: 1 << 20,
        ..ours
    };
    assert_eq!(
        metadata
            .alter_topic(topic.id, &theirs, &both, None)
            .await
            .unwrap()
            .config,
        both
    );
}

async fn partitions_are_added_behind_those_that_there_are_and_none_is_taken_away(fixture: Fixture) {
    let metadata = &fixture.metadata;
    let lease = fixture.lease().await;
    metadata.commit_segment(&lease, &new_segment("a", 0, 10)).await.unwrap();
    let topic = metadata.topic("orders").await.unwrap().unwrap();
    let (before, config) = (topic.partitions, &topic.config);
    let alter = async |partitions| metadata.alter_topic(topic.id, config, config, Some(partitions)).await;

    assert_eq!(alter(before + 3).await.unwrap().partitions, before + 3);
    assert_eq!(
        alter(before + 3).await.unwrap().partitions,
        before + 3,
        "asked again after a lost answer"
    );
    let totals = metadata.partition_totals(topic.id).await.unwrap();
    let ends: Vec<_> = totals
        .iter()
        .map(|total| (total.partition, total.committed_end.0))
        .collect();
    let expected: Vec<_> = (0..before + 3).map(|n| (n, if n == 0 { 10 } else { 0 })).collect();
    assert_eq!(ends, expected);
    let incarnation = fixture.incarnation(7).await;
    let new = metadata.acquire_lease(topic.id, before + 2, incarnation).await.unwrap();
    assert_eq!((new.committed_end, new.log_start), (Offset(0), Offset(0)));

    for partitions in [0, before + 2, PARTITIONS_MAX + 1] {
        let error = alter(partitions).await.unwrap_err();
        assert!(matches!(error, MetaError::Invalid { .. }), "{partitions}: {error}");
    }
    assert_eq!(metadata.topic("orders").await.unwrap().unwrap().partitions, before + 3);
    assert_eq!(
        metadata.topics_without_manifest(1).await.unwrap()[0].0.partitions,
        before + 3
    );
}

async fn of_racing_additions_the_greatest_number_of_partitions_stays(fixture: Fixture) {
    let topic = fixture.topic(1, "orders", 1).await;
    let mut tasks = JoinSet::new();
    for n in 0..TASKS as u32 {
        let (metadata, config) = (fixture.client().await, topic.config.clone());
        tasks.spawn(async move { metadata.alter_topic(topic.id, &config, &config, Some(2 + n)).await });
    }
    for answer in tasks.join_all().await {
        assert!(matches!(answer, Ok(_) | Err(MetaError::Invalid { .. })), "{answer:?}");
    }
    let stored = fixture.metadata.topic("orders").await.unwrap().unwrap();
    assert_eq!(stored.partitions, 1 + TASKS as u32);
    let totals = fixture.metadata.partition_totals(topic.id).await.unwrap();
    assert_eq!(totals.len(), stored.partitions as usize);
}

async fn of_two_changes_on_the_same_settings_one_is_refused(fixture: Fixture) {
    let topic = fixture.topic(1, "orders", 1).await;
    let mut tasks = JoinSet::new();
    for n in 0..TASKS {
        let (metadata, expected) = (fixture.client().await, topic.config.clone());
        tasks.spawn(async move {
            let config = TopicConfig {
                retention_bytes: Some(n),
                ..expected.clone()
            };
            metadata.alter_topic(Uuid::from_u128(1), &expected, &config, None).await
        });
    }
    let (done, refused): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), refused.len()), (1, TASKS as usize - 1));
    for error in refused.into_iter().map(Result::unwrap_err) {
        assert!(matches!(error, MetaError::SettingsChanged { .. }), "{error}");
    }
    let stored = fixture.metadata.topic("orders").await.unwrap().unwrap();
    assert_eq!(done[0].as_ref().unwrap(), &stored);
}

async fn a_call_that_comes_late_spares_the_next_topic_of_that_name(fixture: Fixture) {
    let (first, metadata) = (fixture.topic(1, "orders", 1).await, &fixture.metadata);
    metadata.delete_topic(first.id, NOW_MS).await.unwrap();
    let next = fixture.topic(2, "orders", 1).await;
    let config = TopicConfig {
        retention_ms: None,
        ..first.config.clone()
    };
    for error in [
        metadata.delete_topic(first.id, NOW_MS).await.unwrap_err(),
        metadata
            .alter_topic(first.id, &first.config, &config, None)
            .await
            .unwrap_err(),
    ] {
        assert!(matches!(error, MetaError::NotFound { what: "topic", .. }), "{error}");
    }
    assert_eq!(metadata.topic("orders").await.unwrap(), Some(next));
}

async fn a_manifest_is_wanted_until_it_tells_the_settings_as_they_are(fixture: Fixture) {
    let topic = fixture.topic(1, "orders", 1).await;
    let wanted = async || {
        let topics = fixture.metadata.topics_without_manifest(10).await.unwrap();
        topics.into_iter().map(|(_, version)| version).collect::<Vec<_>>()
    };
    let set = async |version, key| {
        fixture
            .metadata
            .set_manifest(topic.id, version, key, NOW_MS)
            .await
            .unwrap()
    };
    assert_eq!(wanted().await, [1]);
    assert!(set(1, "m1").await);
    assert!(set(1, "m1").await, "asked again after a lost answer");
    assert_eq!(wanted().await, [0u64; 0]);

    fixture
        .metadata
        .alter_topic(topic.id, &topic.config, &topic.config, None)
        .await
        .unwrap();
    assert_eq!(wanted().await, [2]);
    assert!(!set(1, "late").await);
    assert!(set(2, "m2").await);
    assert_eq!(fixture.metadata.manifest(topic.id).await.unwrap().unwrap(), "m2");
    assert_eq!(fixture.metadata.pending_deletions(NOW_MS, 10).await.unwrap(), ["m1"]);
    fixture.metadata.delete_topic(topic.id, NOW_MS).await.unwrap();
    assert_eq!(
        fixture.metadata.pending_deletions(NOW_MS, 10).await.unwrap(),
        ["m1", "m2"]
    );
}

async fn a_deleted_topic_is_remembered_until_it_is_forgotten(fixture: Fixture) {
    for id in [1, 2] {
        fixture.topic(id, "orders", 1).await;
        fixture
            .metadata
            .delete_topic(Uuid::from_u128(id), NOW_MS + id as i64)
            .await
            .unwrap();
    }
    let deleted = fixture.metadata.deleted_topics(10).await.unwrap();
    assert_eq!(
        deleted
            .iter()
            .map(|topic| (topic.id.as_u128(), topic.name.as_str()))
            .collect::<Vec<_>>(),
        [(1, "orders"), (2, "orders")]
    );
    assert_eq!(deleted[0].deleted_at_ms, NOW_MS + 1);
    fixture.metadata.forget_deleted_topic(Uuid::from_u128(1)).await.unwrap();
    assert_eq!(fixture.metadata.deleted_topics(10).await.unwrap().len(), 1);
}
