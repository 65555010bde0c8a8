//! The way in for readers.

use std::{ops::Deref, time::Duration};

use millstream_batch::Offset;
use tokio::time::Instant;

use crate::{
    broker::Broker,
    error::{BrokerError, Result},
    partition::{Partition, Query, Read, ReadStats, Room, wait},
    pipeline::StageSpec,
};

/// What to read of one partition.
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

/// What to read of several partitions. Its bounds are as those of a [`FetchQuery`], for all of them together.
#[derive(Clone, Debug)]
pub struct FetchEach {
    /// They are filled in this order.
    pub partitions: Vec<PartitionOffset>,
    /// One whole batch is always returned, of the first partition that has any.
    pub bytes_max: usize,
    /// In all of them together.
    pub bytes_min: usize,
    /// What is wrong with one of them ends the wait.
    pub wait: Duration,
    /// For all of them.
    pub stage: Option<StageSpec>,
}

/// A place in a partition.
#[derive(Clone, Debug)]
pub struct PartitionOffset {
    /// Name of the topic.
    pub topic: String,
    /// Its partition.
    pub partition: u32,
    /// First offset wanted.
    pub offset: Offset,
}

/// What a reader gets of one partition.
#[derive(Debug)]
pub struct Fetched {
    /// What was read.
    pub read: Read,
    /// The memory that the answer takes until this is dropped.
    pub room: Room,
}

impl Deref for Fetched {
    type Target = Read;

    fn deref(&self) -> &Read {
        &self.read
    }
}

/// What a reader gets of several partitions.
#[derive(Debug)]
pub struct FetchedEach {
    /// In the order of the query.
    pub parts: Vec<Result<Read>>,
    /// The memory that the answer takes until this is dropped.
    pub room: Room,
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
        let each = FetchEach {
            partitions: vec![PartitionOffset {
                topic: query.topic,
                partition: query.partition,
                offset: query.offset,
            }],
            bytes_max: query.bytes_max,
            bytes_min: query.bytes_min,
            wait: query.wait,
            stage: query.stage,
        };
        let FetchedEach { mut parts, room } = self.fetch_each(each).await?;
        let read = parts.pop().expect("there is a part for each partition")?;
        Ok(Fetched { read, room })
    }

    /// Reads from several partitions, one after the other. What is wrong with one of them stands in its part.
    ///
    /// # Errors
    /// [`BrokerError::AnswersFull`] where there was no memory for the answer for too long.
    pub async fn fetch_each(&self, query: FetchEach) -> Result<FetchedEach> {
        if !query.wait.is_zero() {
            self.wait_for_records(&query).await;
        }
        // After the wait: who only waits takes no memory.
        let reads = &self.shared().reads;
        let mut reserved = reads.reserve(query.bytes_max).await?;
        let (mut parts, mut bytes) = (Vec::with_capacity(query.partitions.len()), 0);
        for place in &query.partitions {
            let mut part = self.read(place, &query, bytes).await;
            // Only the first one with records may hold more than was asked for.
            while let Ok(read) = &part
                && !reserved.holds(bytes + read.bytes)
            {
                // A batch larger than what was asked for: it is read again once there is room for it.
                let needed = bytes + read.bytes;
                drop((part, reserved));
                reserved = reads.reserve(needed).await?;
                part = self.read(place, &query, bytes).await;
            }
            bytes += part.as_ref().map_or(0, |read| read.bytes);
            parts.push(part);
        }
        Ok(FetchedEach {
            parts,
            room: reserved.shrink(bytes),
        })
    }

    /// Returns once there is enough to read, time is up, or something is wrong with one of the partitions.
    async fn wait_for_records(&self, query: &FetchEach) {
        let until = Instant::now() + query.wait;
        let mut arrivals = Vec::with_capacity(query.partitions.len());
        for place in &query.partitions {
            let opened = self.opened(place).await;
            match opened.and_then(|partition| partition.arrivals(place.offset)) {
                Ok(arriving) => arrivals.push(arriving),
                // It is told to whoever reads there.
                Err(_) => return,
            }
        }
        let wanted = query.bytes_min.min(query.bytes_max).max(1);
        let _ = wait(arrivals, wanted, Some(until)).await;
    }

    /// Returns once there is a record at an offset or beyond it; an error where nothing can be read there.
    pub async fn arrived(&self, topic: &str, partition: u32, offset: Offset) -> Result<()> {
        let place = PartitionOffset {
            topic: topic.to_owned(),
            partition,
            offset,
        };
        let arriving = self.opened(&place).await?.arrivals(offset)?;
        wait(vec![arriving], 1, None).await
    }

    /// What there is of one partition, where the answer holds `bytes` already.
    async fn read(&self, place: &PartitionOffset, query: &FetchEach, bytes: usize) -> Result<Read> {
        let begun = Instant::now();
        let read = self.read_unmeasured(place, query, bytes).await;
        self.shared().measures.fetched(begun, &read);
        read
    }

    async fn read_unmeasured(&self, place: &PartitionOffset, query: &FetchEach, bytes: usize) -> Result<Read> {
        let partition = self.opened(place).await?;
        let further = match query.stage.clone() {
            None => None,
            Some(stage) => Some(self.further_stage(&place.topic, stage).await?),
        };
        let query = Query {
            offset: place.offset,
            bytes_max: query.bytes_max.saturating_sub(bytes),
            one_at_least: bytes == 0,
            further,
        };
        match partition.read(&query).await {
            // It stepped down meanwhile; opened again it goes on where it was.
            Err(BrokerError::PartitionClosed { .. }) if !self.is_stopping() => {
                self.opened(place).await?.read(&query).await
            }
            result => result,
        }
    }

    async fn opened(&self, place: &PartitionOffset) -> Result<Partition> {
        let live = self.live(&place.topic).await?;
        self.partition(&live, place.partition).await
    }

    /// First offset that can be read, and the end of what can be read.
    pub async fn offsets(&self, topic: &str, partition: u32) -> Result<(Offset, Offset)> {
        let live = self.live(topic).await?;
        let (log_start, high_watermark, _) = self.partition(&live, partition).await?.offsets();
        Ok((log_start, high_watermark))
    }

    /// The same as far as the metadata have it, also of a partition that another agent leads: the first offset that can be
    /// read, and the end of the segments, beyond which there may be more.
    pub async fn stored_offsets(&self, topic: &str, partition: u32) -> Result<(Offset, Offset)> {
        let live = self.live(topic).await?;
        let row = self.shared().metadata.partition(live.topic().id, partition).await?;
        let row = row.ok_or_else(|| BrokerError::UnknownPartition {
            topic: topic.to_owned(),
            partition,
            last: live.topic().partitions - 1,
        })?;
        Ok((row.log_start, row.committed_end))
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
