//! The way in for readers.

use std::time::Duration;

use millstream_batch::Offset;

use crate::{
    broker::Broker,
    error::{BrokerError, Result},
    partition::{Fetched, Query, ReadStats},
    pipeline::StageSpec,
};

/// What to read.
#[derive(Clone, Debug)]
pub struct FetchQuery {
    /// Name of the topic.
    pub topic: String,
    /// Its partition.
    pub partition: u32,
    /// First offset wanted.
    pub offset: Offset,
    /// About how many encoded bytes; one whole batch is always returned.
    pub bytes_max: usize,
    /// How many encoded bytes, as stored, to wait for; 0 means one record, and more than `bytes_max` are not waited for.
    pub bytes_min: usize,
    /// How long to wait for them.
    pub wait: Duration,
    /// A module that the records go through for this reader alone, after the topic's fetch pipeline; version 0 is its
    /// current one.
    pub stage: Option<StageSpec>,
}

impl Broker {
    /// Reads from one partition. Where answers that were not dropped yet hold all the memory there is for them, it waits.
    /// The answer's `next_offset` is beyond the offset asked for wherever there is something beyond it, also where modules
    /// left none of that.
    ///
    /// # Errors
    /// Those of the stage that the query names: an unknown module, parameters that it refuses, a policy that is none on
    /// fetch; and [`BrokerError::ModuleOnFetch`] where the first record that is not decided makes a module fail whose policy
    /// is to halt.
    pub async fn fetch(&self, query: FetchQuery) -> Result<Fetched> {
        let live = self.live(&query.topic).await?;
        let partition_number = query.partition;
        let partition = self.partition(&live, partition_number).await?;
        let further = match query.stage {
            None => None,
            Some(stage) => Some(self.further_stage(&query.topic, stage).await?),
        };
        let query = Query {
            offset: query.offset,
            bytes_max: query.bytes_max,
            bytes_min: query.bytes_min,
            wait: query.wait,
            further,
        };
        match partition.fetch(query.clone()).await {
            // It stepped down meanwhile; opened again it goes on where it was. A reader that waited comes again.
            Err(BrokerError::PartitionClosed { .. }) if !self.is_stopping() => {
                let partition = self.partition(&live, partition_number).await?;
                let at_once = Query {
                    wait: Duration::ZERO,
                    ..query
                };
                partition.fetch(at_once).await
            }
            result => result,
        }
    }

    /// First offset that can be read, and the end of what can be read.
    pub async fn offsets(&self, topic: &str, partition: u32) -> Result<(Offset, Offset)> {
        let live = self.live(topic).await?;
        let (log_start, high_watermark, _) = self.partition(&live, partition).await?.offsets();
        Ok((log_start, high_watermark))
    }

    /// The first record, in the order of offsets, whose timestamp is `timestamp_ms` (milliseconds since the Unix epoch) or
    /// later.
    pub async fn offset_at(&self, topic: &str, partition: u32, timestamp_ms: i64) -> Result<Option<Offset>> {
        let live = self.live(topic).await?;
        self.partition(&live, partition).await?.offset_at(timestamp_ms).await
    }

    /// What readers hold now.
    pub fn read_stats(&self) -> ReadStats {
        self.shared().reads.stats()
    }
}
