//! The reads that repeat, answered from memory: moka in front of the database.
//!
//! [`Cached`] is what users see, `Cache` what [`Metadata`] keeps: it knows no SQL, each lookup brings the future that
//! loads. The rules for every kind of thing:
//!
//! 1. An answer younger than its kind's time to live comes from memory. So does one up to twice as old, and one load in
//!    the background replaces it. For an older one, or none, the caller waits for a load.
//! 2. One load at a time for one key: whoever asks meanwhile waits for it and takes its outcome.
//! 3. Where the database is not available, the last answer is given on, however old, and the database is asked again
//!    about once a second.
//! 4. A change forgets what it changed, whatever became of it: it may have happened. No lookup that begins after the
//!    change has returned gets an answer from a load that began before.
//! 5. What another process changes is seen within the time to live, or twice that where nobody asked meanwhile.
//! 6. Memory is bounded by the number of entries and the length of names.
//!
//! A lookup that hits allocates nothing; moka looks after its lists once in about a hundred of them, and that does.
//!
//! | file | owns |
//! |---|---|
//! | `kind` | one kind of thing: the bounded map, the counters |
//! | `slot` | one answer: its age, and the one load for it |

mod kind;
mod slot;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

pub use kind::CacheStats;

use crate::{Metadata, PartitionRow, PipelineRow, Result, Topic};
use kind::Kind;
use slot::Ages;

/// How many topics, by name, are remembered at most.
const TOPICS_MAX: u64 = 10_000;
/// How many partitions are remembered at most.
const PARTITIONS_MAX: u64 = 100_000;
/// How many pipelines are remembered at most.
const PIPELINES_MAX: u64 = 10_000;
/// The time to live of "there is no such topic, no such partition", at most: whoever waits for a topic to be made does not
/// wait long.
const ABSENT_TTL_MAX: Duration = Duration::from_secs(1);
/// No topic has a longer name: 249 characters of at most 4 bytes.
const NAME_BYTES_MAX: usize = 249 * 4;

/// What is remembered.
#[derive(Debug)]
pub(crate) struct Cache {
    topics: Kind<String, Topic>,
    partitions: Kind<(Uuid, u32), PartitionRow>,
    pipelines: Kind<Uuid, PipelineRow>,
}

impl Cache {
    /// An empty one whose answers are young for `ttl`.
    pub(crate) fn new(ttl: Duration) -> Cache {
        let ages = Ages {
            present: ttl,
            absent: ttl.min(ABSENT_TTL_MAX),
        };
        Cache {
            topics: Kind::new("topic", TOPICS_MAX, ages),
            partitions: Kind::new("partition", PARTITIONS_MAX, ages),
            // Who activates a pipeline forgets that there was none. So only those of other agents are waited for, as
            // changes of a pipeline are; and most topics have none.
            pipelines: Kind::new("pipeline", PIPELINES_MAX, Ages { absent: ttl, ..ages }),
        }
    }

    /// A topic by its name; `load` asks the database.
    pub(crate) async fn topic<F>(&self, name: &str, load: impl FnOnce() -> F) -> Result<Option<Arc<Topic>>>
    where
        F: Future<Output = Result<Option<Topic>>> + Send + 'static,
    {
        if name.len() > NAME_BYTES_MAX {
            return Ok(None);
        }
        self.topics.get(name, load).await
    }

    /// A partition; `load` asks the database.
    pub(crate) async fn partition<F>(
        &self,
        topic_id: Uuid,
        partition: u32,
        load: impl FnOnce() -> F,
    ) -> Result<Option<Arc<PartitionRow>>>
    where
        F: Future<Output = Result<Option<PartitionRow>>> + Send + 'static,
    {
        self.partitions.get(&(topic_id, partition), load).await
    }

    /// A topic's pipeline in force; `load` asks the database.
    pub(crate) async fn pipeline<F>(&self, topic_id: Uuid, load: impl FnOnce() -> F) -> Result<Option<Arc<PipelineRow>>>
    where
        F: Future<Output = Result<Option<PipelineRow>>> + Send + 'static,
    {
        self.pipelines.get(&topic_id, load).await
    }

    /// To be held while something is changed: forgets it when dropped. So it is forgotten after success and after
    /// failure, also where the caller goes away in the midst of a commit.
    #[must_use = "it forgets when it is dropped"]
    pub(crate) fn forgetting<F: Fn(&Cache)>(&self, forget: F) -> Forgetting<'_, F> {
        Forgetting { cache: self, forget }
    }

    /// Forgets what stands under the topic's name.
    pub(crate) fn forget_topic(&self, name: &str) {
        self.topics.forget(name);
    }

    /// Forgets all topics.
    pub(crate) fn forget_topics(&self) {
        self.topics.forget_all();
    }

    /// Forgets the pipeline in force for a topic.
    pub(crate) fn forget_pipeline(&self, topic_id: Uuid) {
        self.pipelines.forget(&topic_id);
    }

    /// Forgets one partition.
    pub(crate) fn forget_partition(&self, topic_id: Uuid, partition: u32) {
        self.partitions.forget(&(topic_id, partition));
    }

    /// Forgets all partitions: what an agent holds, and whether it lives, stands in each of them.
    pub(crate) fn forget_partitions(&self) {
        self.partitions.forget_all();
    }

    /// Forgets everything.
    pub(crate) fn forget_all(&self) {
        self.forget_topics();
        self.forget_partitions();
        self.pipelines.forget_all();
    }

    /// What was counted, by kind.
    pub(crate) fn stats(&self) -> Vec<CacheStats> {
        vec![self.topics.stats(), self.partitions.stats(), self.pipelines.stats()]
    }
}

/// See [`Cache::forgetting`].
pub(crate) struct Forgetting<'a, F: Fn(&Cache)> {
    cache: &'a Cache,
    forget: F,
}

impl<F: Fn(&Cache)> Drop for Forgetting<'_, F> {
    fn drop(&mut self) {
        (self.forget)(self.cache);
    }
}

/// The reads that repeat, from memory where they can be: see the module for how old an answer can be.
///
/// What decides something that must not be decided on an old answer is asked of [`Metadata`] itself.
#[derive(Clone, Copy, Debug)]
pub struct Cached<'a> {
    metadata: &'a Metadata,
}

impl Metadata {
    /// The reads that repeat, from memory where they can be.
    pub fn cached(&self) -> Cached<'_> {
        Cached { metadata: self }
    }
}

impl Cached<'_> {
    /// [`Metadata::topic`].
    pub async fn topic(&self, name: &str) -> Result<Option<Arc<Topic>>> {
        let load = || {
            let (metadata, name) = (self.metadata.clone(), name.to_owned());
            async move { metadata.topic(&name).await }
        };
        self.metadata.cache.topic(name, load).await
    }

    /// [`Metadata::partition`].
    pub async fn partition(&self, topic_id: Uuid, partition: u32) -> Result<Option<Arc<PartitionRow>>> {
        let load = || {
            let metadata = self.metadata.clone();
            async move { metadata.partition(topic_id, partition).await }
        };
        self.metadata.cache.partition(topic_id, partition, load).await
    }

    /// [`Metadata::pipeline`].
    pub async fn pipeline(&self, topic_id: Uuid) -> Result<Option<Arc<PipelineRow>>> {
        let load = || {
            let metadata = self.metadata.clone();
            async move { metadata.pipeline(topic_id).await }
        };
        self.metadata.cache.pipeline(topic_id, load).await
    }
}
