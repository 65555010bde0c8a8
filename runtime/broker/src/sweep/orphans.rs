//! Orphans: objects that nothing names. A put whose commit failed leaves one, and so does a crash between the two.
//!
//! An object is deleted only where it can never be committed any more:
//!
//! 1. It was listed before anything else is looked at, so it was put before.
//! 2. Its partition is led by us: what others put there was put under a lease that is fenced. That is confirmed with the
//!    metadata after everything else, so it held all the time. What another agent leads is left to that agent.
//! 3. It is not among the keys that an upload or merge of ours may still commit. They are looked at before the metadata
//!    is asked: a key leaves them only after its commit was answered, and then the metadata names it.
//! 4. The metadata names it neither as a segment, nor as a manifest, nor among the deletions.
//!
//! For a manifest, which any agent may put, 2 is that another one describes the topic as it is, and that it is still the
//! topic of that name.
//!
//! Above that it is older than a grace, which forgives what nobody thought of. Under the name of a topic that was deleted
//! nothing can be committed at all: a topic made again under that name is another one. The same holds of a partition that
//! the topic of that name does not have.

use std::collections::BTreeMap;

use millstream_log::StoredObject;

use crate::{broker::Broker, error::Result, topic::LiveTopic};

const DELETED_TOPICS_AT_ONCE: u32 = 100;
const TOPICS_AT_ONCE: u32 = 1_000;

/// What an object under a topic's name is, told by its key.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Segment { partition: u32 },
    Manifest,
}

pub(super) async fn run(broker: &Broker) -> Result<()> {
    // In another database's store everything would look like an orphan.
    broker.shared().owner.confirm_again().await?;
    for live in broker.live_topics() {
        collect_living(broker, &live).await?;
    }
    collect_deleted(broker).await
}

async fn collect_living(broker: &Broker, live: &LiveTopic) -> Result<()> {
    let name = live.topic().name.clone();
    let mut by_kind: BTreeMap<Kind, Vec<String>> = BTreeMap::new();
    for (kind, key) in old_objects(broker, &name).await? {
        by_kind.entry(kind).or_default().push(key);
    }
    for (kind, keys) in by_kind {
        let orphans = unnamed(broker, keys).await?;
        if orphans.is_empty() {
            continue;
        }
        if let Kind::Segment { partition } = kind
            && partition >= live.topic().partitions
        {
            // Asked last: it was this topic all the time, so what lies there is of an earlier one.
            if is_still_there(broker, live).await? {
                delete(broker, &name, orphans).await?;
            }
            continue;
        }
        // What may still have been committed meanwhile is looked at again, once nothing more can be.
        if let Kind::Segment { partition } = kind {
            let Ok(partition) = broker.partition(live, partition).await else {
                continue;
            };
            let orphans = unnamed(broker, orphans).await?;
            if partition.confirm_lease(&broker.shared().metadata).await? {
                delete(broker, &name, orphans).await?;
            }
        } else if is_described(broker, live).await? {
            let orphans = unnamed(broker, orphans).await?;
            // Else it may be that of a topic made again under the name, put and not named yet.
            if is_still_there(broker, live).await? {
                delete(broker, &name, orphans).await?;
            }
        }
    }
    Ok(())
}

/// Whether the topic still has its name.
async fn is_still_there(broker: &Broker, live: &LiveTopic) -> Result<bool> {
    let now = broker.shared().metadata.topic(&live.topic().name).await?;
    Ok(now.is_some_and(|now| now.id == live.topic().id))
}

/// Whether a manifest tells the topic's settings as they are. Then no other one that was put before can be named any more.
async fn is_described(broker: &Broker, live: &LiveTopic) -> Result<bool> {
    let missing = broker.shared().metadata.topics_without_manifest(TOPICS_AT_ONCE).await?;
    // Where there are more than were asked for it may be one of the others; they are made soon.
    let all = missing.len() < TOPICS_AT_ONCE as usize;
    Ok(all && missing.iter().all(|(topic, _)| topic.id != live.topic().id))
}

async fn collect_deleted(broker: &Broker) -> Result<()> {
    let shared = broker.shared();
    let grace_ms = shared.settings.orphan_grace.as_millis() as u64;
    for deleted in shared.metadata.deleted_topics(DELETED_TOPICS_AT_ONCE).await? {
        let listed_at_ms = shared.clock.now_ms();
        let old = old_objects(broker, &deleted.name).await?;
        // Asked after the listing: what was listed belongs to no topic of this name that came later. Where there is one,
        // its own turn finds these objects.
        if shared.metadata.topic(&deleted.name).await?.is_none() {
            let keys = old.into_iter().map(|(_, key)| key).collect();
            let orphans = unnamed(broker, keys).await?;
            delete(broker, &deleted.name, orphans).await?;
        }
        // Twice the grace after the deletion everything that was put before it is old enough to have been found.
        if deleted
            .deleted_at_ms
            .saturating_add_unsigned(grace_ms.saturating_mul(2))
            < listed_at_ms
        {
            shared.metadata.forget_deleted_topic(deleted.id).await?;
        }
    }
    Ok(())
}

/// The segments and manifests under a topic's name that are older than the grace.
async fn old_objects(broker: &Broker, topic: &str) -> Result<Vec<(Kind, String)>> {
    let shared = broker.shared();
    let grace_ms = shared.settings.orphan_grace.as_millis() as u64;
    let before_ms = shared.clock.now_ms().saturating_sub_unsigned(grace_ms);
    let objects = shared.store.list_objects(topic).await?.into_iter();
    let old = objects.filter(|object| object.modified_ms <= before_ms);
    let known = old.filter_map(|StoredObject { key, .. }| Some((kind_of(topic, &key)?, key)));
    Ok(known.collect())
}

/// Those that nothing names, and that no upload of ours may still commit.
async fn unnamed(broker: &Broker, mut keys: Vec<String>) -> Result<Vec<String>> {
    let live = broker.shared().uploads.live_keys();
    keys.retain(|key| !live.contains(key));
    let named = broker.shared().metadata.named_keys(&keys).await?;
    keys.retain(|key| !named.contains(key));
    Ok(keys)
}

async fn delete(broker: &Broker, topic: &str, orphans: Vec<String>) -> Result<()> {
    if orphans.is_empty() {
        return Ok(());
    }
    tracing::info!(
        topic,
        count = orphans.len(),
        first = orphans[0],
        "deleting objects that nothing names"
    );
    Ok(broker.shared().store.delete_all(orphans).await?)
}

/// What the key says; `None` for one that this broker never made.
pub(crate) fn kind_of(topic: &str, key: &str) -> Option<Kind> {
    let rest = key.strip_prefix(topic)?.strip_prefix('/')?;
    if let Some(manifest) = rest.strip_prefix("topic_") {
        let (id, random_id) = manifest.strip_suffix(".json")?.split_once('_')?;
        uuid::Uuid::try_parse(id).ok()?;
        return is_random_id(random_id).then_some(Kind::Manifest);
    }
    let (partition, file) = rest.split_once('/')?;
    let (base, random_id) = file.strip_prefix("seg_")?.strip_suffix(".bin")?.split_once('_')?;
    let is_base = base.len() == 20 && base.bytes().all(|byte| byte.is_ascii_digit());
    let partition = partition.parse().ok()?;
    (is_base && is_random_id(random_id)).then_some(Kind::Segment { partition })
}

fn is_random_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use millstream_batch::Offset;
    use millstream_log::segment_key;

    use super::*;

    #[test]
    fn only_keys_of_the_brokers_own_making_are_known() {
        let segment = segment_key("a", 7, Offset(12), 5);
        assert_eq!(kind_of("a", &segment), Some(Kind::Segment { partition: 7 }));
        let manifest = format!("a/topic_{}_{:032x}.json", uuid::Uuid::nil(), 5);
        assert_eq!(kind_of("a", &manifest), Some(Kind::Manifest));
        for foreign in [
            "ab/7/seg_1_2.bin",
            "a/notes.txt",
            "a/7/seg_x.bin",
            "a/x/seg_00000000000000000012_00000000000000000000000000000005.bin",
            "a/7/seg_00000000000000000012_00000000000000000000000000000005.bin.old",
            "a/topic_1.json",
        ] {
            assert_eq!(kind_of("a", foreign), None, "{foreign}");
        }
    }
}
