//! A topic that this agent serves: its partitions as they are opened, and its pipeline.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use millstream_meta::Topic;
use tokio::sync::OnceCell;

use crate::{
    error::{BrokerError, Result},
    partition::Partition,
    pipeline::Pipeline,
};

/// One topic in memory.
pub(crate) struct LiveTopic {
    pub(crate) topic: Arc<Topic>,
    /// Filled when a partition is first asked for, so that a topic of 100,000 partitions costs what is used of it.
    partitions: Mutex<HashMap<u32, Arc<OnceCell<Partition>>>>,
    /// Loaded with the first partition. Its lock is held while a partition opens and while a change of the pipeline
    /// spreads, so that no partition opens with a version that is being replaced.
    pub(crate) pipeline: tokio::sync::RwLock<Option<Arc<Pipeline>>>,
}

impl LiveTopic {
    pub(crate) fn new(topic: Topic) -> LiveTopic {
        LiveTopic {
            topic: Arc::new(topic),
            partitions: Mutex::default(),
            pipeline: tokio::sync::RwLock::new(None),
        }
    }

    /// The place of a partition, opened or not.
    pub(crate) fn cell(&self, partition: u32) -> Result<Arc<OnceCell<Partition>>> {
        if partition >= self.topic.partitions {
            let (topic, last) = (self.topic.name.clone(), self.topic.partitions - 1);
            return Err(BrokerError::UnknownPartition { topic, partition, last });
        }
        Ok(self.cells().entry(partition).or_default().clone())
    }

    /// The partitions that are open.
    pub(crate) fn open_partitions(&self) -> Vec<Partition> {
        self.cells().values().filter_map(|cell| cell.get().cloned()).collect()
    }

    fn cells(&self) -> MutexGuard<'_, HashMap<u32, Arc<OnceCell<Partition>>>> {
        self.partitions.lock().expect("no code panics while it holds this lock")
    }
}
