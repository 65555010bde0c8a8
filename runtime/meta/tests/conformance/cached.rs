use std::time::Duration;

use millstream_batch::Offset;
use millstream_meta::{CacheStats, Metadata, MetadataSettings, TopicConfig};
use uuid::Uuid;

use crate::{Fixture, NOW_MS, new_segment};

on_both! {
    a_hot_loop_of_cached_lookups_sends_no_statement,
    every_change_is_seen_by_the_next_cached_lookup,
    a_change_that_is_refused_is_forgotten_too,
    what_another_process_changes_is_seen_after_the_time_to_live,
}

const HOT_LOOP: u64 = 10_000;
/// Much longer than any time to live here.
const PATIENCE: Duration = Duration::from_secs(20);

impl Fixture {
    /// Looks everything up, cached and not: it is the same.
    async fn assert_nothing_is_old(&self, topic_id: Uuid, after: &str) {
        let (metadata, cached) = (&self.metadata, self.metadata.cached());
        let topic = cached.topic("orders").await.unwrap();
        assert_eq!(
            topic.as_deref(),
            metadata.topic("orders").await.unwrap().as_ref(),
            "{after}"
        );
        let partition = cached.partition(topic_id, 0).await.unwrap();
        let now = metadata.partition(topic_id, 0).await.unwrap();
        assert_eq!(partition.as_deref(), now.as_ref(), "{after}");
        let pipeline = cached.pipeline(topic_id).await.unwrap();
        let now = metadata.pipeline(topic_id).await.unwrap();
        assert_eq!(pipeline.as_deref(), now.as_ref(), "{after}");
    }
}

async fn a_hot_loop_of_cached_lookups_sends_no_statement(fixture: Fixture) {
    let lease = fixture.lease().await;
    let (metadata, topic_id) = (&fixture.metadata, lease.topic_id);
    metadata
        .activate_pipeline(topic_id, 0, "[]", "a test", NOW_MS)
        .await
        .unwrap();
    fixture.assert_nothing_is_old(topic_id, "the first lookups").await;

    let (before, cached) = (metadata.stats(), metadata.cached());
    for _ in 0..HOT_LOOP {
        assert_eq!(cached.topic("orders").await.unwrap().unwrap().id, topic_id);
        assert_eq!(cached.partition(topic_id, 0).await.unwrap().unwrap().epoch, lease.epoch);
        assert_eq!(cached.pipeline(topic_id).await.unwrap().unwrap().version, 1);
    }
    let after = metadata.stats();
    let sum = |kinds: &[CacheStats], count: fn(&CacheStats) -> u64| kinds.iter().map(count).sum::<u64>();
    let (hits, refreshes) = (|kind: &CacheStats| kind.hits, |kind: &CacheStats| kind.refreshes);
    assert_eq!(sum(&after.cache, hits) - sum(&before.cache, hits), 3 * HOT_LOOP);
    // None, unless the machine is so slow that the loop outlasts the time to live.
    let in_the_background = sum(&after.cache, refreshes) - sum(&before.cache, refreshes);
    assert_eq!(after.queries - before.queries, in_the_background);
}

async fn every_change_is_seen_by_the_next_cached_lookup(fixture: Fixture) {
    let metadata = &fixture.metadata;
    // By another id: one that is not given yet nobody knows.
    fixture.assert_nothing_is_old(Uuid::from_u128(9), "nothing").await;
    let topic_id = fixture.topic(1, "orders", 1).await.id;
    fixture.assert_nothing_is_old(topic_id, "create_topic").await;
    let config = TopicConfig {
        retention_ms: None,
        ..TopicConfig::default()
    };
    metadata
        .alter_topic(topic_id, &TopicConfig::default(), &config, None)
        .await
        .unwrap();
    fixture.assert_nothing_is_old(topic_id, "alter_topic").await;
    for version in 0..2 {
        metadata
            .activate_pipeline(topic_id, version, "[]", "a test", NOW_MS)
            .await
            .unwrap();
        fixture.assert_nothing_is_old(topic_id, "activate_pipeline").await;
    }

    let first = fixture.incarnation(100).await;
    let lease = metadata.acquire_lease(topic_id, 0, first).await.unwrap();
    fixture.assert_nothing_is_old(topic_id, "acquire_lease").await;
    metadata.move_wal_pointer(&lease, first).await.unwrap();
    fixture.assert_nothing_is_old(topic_id, "move_wal_pointer").await;
    for (key, base) in [("a", 0), ("b", 10), ("c", 20)] {
        let segment = new_segment(key, base, base + 10);
        metadata.commit_segment(&lease, &segment).await.unwrap();
        fixture.assert_nothing_is_old(topic_id, "commit_segment").await;
    }
    let expired = metadata.expire_segments(&lease, None, Some(20), NOW_MS).await.unwrap();
    assert!(expired.is_some());
    fixture.assert_nothing_is_old(topic_id, "expire_segments").await;
    metadata.truncate(&lease, Offset(25), NOW_MS).await.unwrap();
    fixture.assert_nothing_is_old(topic_id, "truncate").await;

    let second = fixture.incarnation(200).await;
    fixture.assert_nothing_is_old(topic_id, "register_incarnation").await;
    let leases = metadata.take_over_wal(first, second).await.unwrap();
    fixture.assert_nothing_is_old(topic_id, "take_over_wal").await;
    assert_eq!(metadata.move_wal_pointers(first, second).await.unwrap(), 1);
    fixture.assert_nothing_is_old(topic_id, "move_wal_pointers").await;
    assert!(fixture.released(&leases[0], 30).await);
    fixture.assert_nothing_is_old(topic_id, "release_leases").await;
    metadata.acquire_lease(topic_id, 0, second).await.unwrap();
    fixture.assert_nothing_is_old(topic_id, "acquire_lease").await;
    metadata.leave(second).await.unwrap();
    fixture.assert_nothing_is_old(topic_id, "leave").await;
    metadata.delete_topic(topic_id, NOW_MS).await.unwrap();
    fixture.assert_nothing_is_old(topic_id, "delete_topic").await;
    let again = fixture.topic(2, "orders", 1).await.id;
    fixture.assert_nothing_is_old(again, "create_topic").await;
}

async fn a_change_that_is_refused_is_forgotten_too(fixture: Fixture) {
    let lease = fixture.lease().await;
    let (metadata, topic_id) = (&fixture.metadata, lease.topic_id);
    fixture.assert_nothing_is_old(topic_id, "the first lookups").await;
    fixture.sql("UPDATE partitions SET epoch = epoch + 1").await;
    metadata
        .commit_segment(&lease, &new_segment("a", 0, 10))
        .await
        .unwrap_err();
    fixture.assert_nothing_is_old(topic_id, "another holder came").await;
}

async fn what_another_process_changes_is_seen_after_the_time_to_live(fixture: Fixture) {
    let settings = MetadataSettings {
        cache_ttl: Duration::from_millis(20),
        ..MetadataSettings::at(fixture.place.url())
    };
    let other = Metadata::open_with(&settings).await.unwrap();
    assert_eq!(other.cached().topic("orders").await.unwrap(), None);
    let made = fixture.topic(1, "orders", 1).await;
    let seen = async {
        loop {
            match other.cached().topic("orders").await.unwrap() {
                Some(topic) => return topic,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    let seen = tokio::time::timeout(PATIENCE, seen).await.expect("it is seen one day");
    assert_eq!(*seen, made);
}
