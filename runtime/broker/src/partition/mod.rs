//! One partition: its log in memory, the actor that owns its changes, and the handle through which both are reached.

mod actor;
mod index;
mod log;
mod read;
mod tail;
mod upload;

use std::{sync::Arc, time::Duration};

use actor::Actor;
use millstream_batch::{Batch, Offset};
use millstream_log::{DiskWal, SegmentCache, Store};
use millstream_meta::{Lease, Metadata, Topic};
use read::Reader;
use tokio::sync::{mpsc, oneshot};

use actor::chain_context;
pub(crate) use log::PartitionLog;
pub(crate) use tail::{TailBatch, TailBudget};

use crate::{
    clock::Clock,
    error::{BrokerError, Result},
    pipeline::{Pipeline, Pool},
    settings::Settings,
};

/// Requests that wait for one partition's actor.
const QUEUE_MAX: usize = 256;

/// When a producer is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// After the write-ahead log has the batch on stable storage.
    #[default]
    Durable,
    /// Once the batch is appended in memory.
    Memory,
}

/// What a producer learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Offset of the first stored record, or the one that the next record will get where none was stored.
    pub base_offset: Offset,
    /// Records stored.
    pub record_count: u32,
    /// Input records that the pipeline changed.
    pub changed_count: u32,
    /// Input records that the pipeline dropped.
    pub dropped_count: u32,
    /// The pipeline version that the batch went through; 0 means none.
    pub pipeline_version: u64,
    /// Milliseconds since the Unix epoch.
    pub append_time_ms: i64,
}

/// What a reader gets.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Whole batches; the first may begin below the wanted offset.
    pub batches: Vec<Batch>,
    /// Where to go on.
    pub next_offset: Offset,
    /// End of what can be read.
    pub high_watermark: Offset,
    /// First offset that can be read.
    pub log_start: Offset,
}

/// One partition as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: u32,
    /// First offset that can be read.
    pub log_start: Offset,
    /// End of what can be read.
    pub high_watermark: Offset,
    /// End of what is in committed segments.
    pub committed_end: Offset,
    /// Committed segments.
    pub segment_count: u64,
    /// Bytes of their batches before block compression.
    pub raw_bytes: u64,
    /// Bytes of their objects.
    pub stored_bytes: u64,
}

/// What all partitions of an agent share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metadata: Metadata,
    pub(crate) store: Store,
    pub(crate) segments: SegmentCache,
    pub(crate) wal: DiskWal,
    pub(crate) incarnation: uuid::Uuid,
    pub(crate) pool: Pool,
    pub(crate) budget: TailBudget,
}

pub(crate) enum Command {
    Produce {
        batch: Batch,
        acks: Acks,
        reply: oneshot::Sender<Result<Receipt>>,
    },
    /// Switches between two batches; answers when that is done.
    SetPipeline {
        pipeline: Arc<Pipeline>,
        reply: oneshot::Sender<()>,
    },
    /// Answers when everything durable now is in committed segments.
    Flush { reply: oneshot::Sender<Result<()>> },
    /// Lets go of segments written before the given time.
    Expire {
        created_before_ms: i64,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Flush, then give the lease back and end.
    Stop { reply: oneshot::Sender<Result<()>> },
}

/// The way to one partition. Cheap to clone; the actor ends when told to stop or when all handles are gone.
#[derive(Clone)]
pub(crate) struct Partition {
    log: Arc<PartitionLog>,
    reader: Arc<Reader>,
    commands: mpsc::Sender<Command>,
}

impl Partition {
    /// Starts the actor of a partition whose lease is held and whose WAL pointer names our WAL. `recovered` are the
    /// batches beyond the committed end, which our WAL holds.
    pub(crate) fn start(
        shared: Shared,
        topic: Arc<Topic>,
        lease: Lease,
        recovered: Vec<TailBatch>,
        pipeline: Arc<Pipeline>,
    ) -> Partition {
        let (commands, queue) = mpsc::channel(QUEUE_MAX);
        let context = chain_context(&shared, &topic, lease.partition);
        let log = Arc::new(PartitionLog::new(&topic, &lease, recovered));
        shared.budget.force(log.state().tail.bytes());
        let reader = Arc::new(Reader::new(log.clone(), &shared, context, pipeline.clone()));
        tokio::spawn(Actor::new(shared, topic, lease, log.clone(), reader.clone(), pipeline, queue).run());
        Partition { log, reader, commands }
    }

    /// Appends one batch, validated already, through the produce pipeline.
    pub(crate) async fn produce(&self, batch: Batch, acks: Acks) -> Result<Receipt> {
        self.ask(|reply| Command::Produce { batch, acks, reply }).await?
    }

    /// Reads from `offset` on through the fetch pipeline, without the actor.
    pub(crate) async fn fetch(&self, offset: Offset, bytes_max: usize, wait: Duration) -> Result<Fetched> {
        if self.log.closed_because().is_some() {
            return Err(self.closed());
        }
        self.reader.fetch(offset, bytes_max, wait).await
    }

    /// First offset that can be read, end of what can be read, and end of what is in segments.
    pub(crate) fn offsets(&self) -> (Offset, Offset, Offset) {
        let state = self.log.state();
        (state.log_start, self.log.high_watermark(), state.committed_end)
    }

    /// Switches between two batches; returns when that is done.
    pub(crate) async fn set_pipeline(&self, pipeline: Arc<Pipeline>) -> Result<()> {
        self.ask(|reply| Command::SetPipeline { pipeline, reply }).await
    }

    /// Returns when everything durable now is in committed segments.
    pub(crate) async fn flush(&self) -> Result<()> {
        self.ask(|reply| Command::Flush { reply }).await?
    }

    /// Lets go of segments written before the given time.
    pub(crate) async fn expire(&self, created_before_ms: i64) -> Result<()> {
        self.ask(|reply| Command::Expire {
            created_before_ms,
            reply,
        })
        .await?
    }

    /// Flushes, gives the lease back and ends the actor.
    pub(crate) async fn stop(&self) -> Result<()> {
        self.ask(|reply| Command::Stop { reply }).await?
    }

    /// Ends the actor without a flush: the topic is gone.
    pub(crate) fn abandon(&self, reason: &str) {
        self.log.close(reason);
        // The actor sees the reason with its next event; this makes sure that there is one.
        let (reply, _) = oneshot::channel();
        let _ = self.commands.try_send(Command::Flush { reply });
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| self.closed())?;
        answer.await.map_err(|_| self.closed())
    }

    fn closed(&self) -> BrokerError {
        BrokerError::PartitionClosed {
            topic: self.log.topic().to_owned(),
            partition: self.log.partition(),
            reason: self.log.closed_because().unwrap_or_else(|| "it was closed".to_owned()),
        }
    }
}
