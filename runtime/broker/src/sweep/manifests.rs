//! Manifests: an object for each topic with its name, id and settings, so that a bucket can be understood alone.
//!
//! Nobody waits for one: a topic is made and altered in the metadata, and described afterwards, as often as it takes.

use bytes::Bytes;
use millstream_meta::{Topic, TopicConfig};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{broker::Broker, error::Result};

const TOPICS_AT_ONCE: u32 = 100;
const FORMAT: u32 = 1;

/// What the object holds, as JSON.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Manifest {
    format: u32,
    pub(crate) name: String,
    id: String,
    pub(crate) partitions: u32,
    pub(crate) created_at_ms: i64,
    /// Counts the changes of the settings; 0 where an older broker wrote it.
    #[serde(default)]
    pub(crate) config_version: u64,
    pub(crate) config: TopicConfig,
}

impl Manifest {
    /// Reads one, or says what is wrong with it.
    pub(crate) fn read(bytes: &[u8]) -> std::result::Result<Manifest, String> {
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if manifest.format != FORMAT {
            return Err(format!("manifests of format {} are not understood", manifest.format));
        }
        Uuid::try_parse(&manifest.id).map_err(|error| format!("its id {:?}: {error}", manifest.id))?;
        Ok(manifest)
    }

    pub(crate) fn id(&self) -> Uuid {
        Uuid::try_parse(&self.id).expect("it was read or made with one")
    }
}

pub(super) async fn run(broker: &Broker) -> Result<()> {
    broker.shared().owner.confirm_again().await?;
    loop {
        let metadata = &broker.shared().metadata;
        let topics = metadata.topics_without_manifest(TOPICS_AT_ONCE).await?;
        for (topic, version) in &topics {
            describe(broker, topic, *version).await?;
        }
        if topics.len() < TOPICS_AT_ONCE as usize {
            return Ok(());
        }
    }
}

async fn describe(broker: &Broker, topic: &Topic, config_version: u64) -> Result<()> {
    let shared = broker.shared();
    let key = shared.uploads.live_key(manifest_key(topic, shared.clock.random_id()));
    let manifest = Manifest {
        format: FORMAT,
        name: topic.name.clone(),
        id: topic.id.to_string(),
        partitions: topic.partitions,
        created_at_ms: topic.created_at_ms,
        config_version,
        config: topic.config.clone(),
    };
    let json = serde_json::to_vec_pretty(&manifest).expect("a struct of strings and numbers always becomes JSON");
    shared.store.put_new(key.as_str(), vec![Bytes::from(json)]).await?;
    // Metadata comes after the PUT: a crash between them leaves an orphan, never a name of nothing.
    let (id, now_ms) = (topic.id, shared.clock.now_ms());
    shared
        .metadata
        .set_manifest(id, config_version, key.as_str(), now_ms)
        .await?;
    Ok(())
}

/// A new random id for every try: no key is used twice.
fn manifest_key(topic: &Topic, random_id: u128) -> String {
    format!("{}/topic_{}_{random_id:032x}.json", topic.name, topic.id)
}
