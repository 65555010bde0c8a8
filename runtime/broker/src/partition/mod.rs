//! One partition: its log in memory, the actor that owns its changes, and the handle through which both are reached.

mod actor;
mod arrivals;
mod budget;
mod log;
mod merge;
mod producers;
mod read;
mod reads;
mod recent;
mod reply;
mod results;
mod search;
mod shared;
mod tail;
mod upload;
mod uploads;
mod view;

use std::sync::Arc;

use actor::Actor;
pub(crate) use arrivals::{Arrivals, wait};
use millstream_batch::{Batch, Offset};
use millstream_log::Outcome;
pub use millstream_meta::Acks;
use millstream_meta::{Lease, Metadata, Topic};
pub(crate) use read::Query;
use read::Reader;
pub(crate) use reads::Reads;
pub use reads::{ReadStats, Room};
pub(crate) use reply::Reply;
pub use reply::{Held, StreamOrder, Submitted};
pub use results::ResultStats;
use tokio::sync::{mpsc, oneshot};

use actor::chain_context;
pub(crate) use budget::TailBudget;
pub(crate) use log::{Closed, PartitionLog};
pub(crate) use merge::SOURCES_MIN as MERGE_SOURCES_MIN;
pub(crate) use producers::{Producers, Refusal, Stamped, decode as decode_producers, encode as encode_producers};
pub(crate) use shared::Shared;
pub(crate) use tail::{LeftTail, TailBatch, held_bytes};
pub(crate) use uploads::{LiveKey, Uploads};

use crate::{
    error::{BrokerError, Result},
    pipeline::Pipeline,
    versions::Sample,
};

/// Requests that wait for one partition's actor.
const QUEUE_MAX: usize = 256;

/// What a producer learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Offset of the first stored record, or the one that the next record will get where none was stored.
    pub base_offset: Offset,
    /// Records stored.
    pub record_count: u32,
    /// Input records that the pipeline changed; of a duplicate this is not kept, and 0.
    pub changed_count: u32,
    /// Input records that the pipeline dropped.
    pub dropped_count: u32,
    /// The pipeline version that the batch went through; 0 means none, or a duplicate.
    pub pipeline_version: u64,
    /// Milliseconds since the Unix epoch; 0 for a duplicate.
    pub append_time_ms: i64,
    /// What became of each input record; `None` where every one became one.
    pub results: Option<Outcome>,
    /// Whether the batch was sent before, and this is what became of it then.
    pub duplicate: bool,
}

/// What was read of one partition.
#[derive(Clone, Debug)]
pub struct Read {
    /// Whole batches; the first may begin below the wanted offset.
    pub batches: Vec<Batch>,
    /// Their encoded bytes.
    pub bytes: usize,
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

pub(crate) enum Command {
    Produce {
        batch: Batch,
        acks: Acks,
        reply: Reply,
    },
    /// Switches between two batches; answers when that is done.
    SetPipeline {
        pipeline: Arc<Pipeline>,
        reply: oneshot::Sender<()>,
    },
    /// Answers when everything durable now is in committed segments.
    Flush {
        reply: oneshot::Sender<Result<()>>,
    },
    /// Makes a segment of what is in the tail now, without an answer.
    Roll,
    /// Lets go of what the topic's retention no longer keeps; answers whether there may be more.
    Expire {
        reply: oneshot::Sender<Result<bool>>,
    },
    /// Moves the log start up; answers where it is.
    Truncate {
        before: Offset,
        reply: oneshot::Sender<Result<Offset>>,
    },
    /// Merges small segments as long as there are any to merge.
    Merge {
        reply: oneshot::Sender<Result<()>>,
    },
    /// Goes on with other settings of the topic.
    SetTopic {
        topic: Arc<Topic>,
        reply: oneshot::Sender<()>,
    },
    /// Flush, then end.
    Stop {
        reply: oneshot::Sender<(Lease, Offset)>,
    },
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
    /// batches beyond the committed end, which our WAL holds, `producers` what is known up to their end.
    pub(crate) fn start(
        shared: Shared,
        topic: Arc<Topic>,
        lease: Lease,
        recovered: Vec<TailBatch>,
        pipeline: Arc<Pipeline>,
        sample: Arc<Sample>,
        producers: Producers,
    ) -> Partition {
        let (commands, queue) = mpsc::channel(QUEUE_MAX);
        let context = chain_context(&shared, &topic, lease.partition);
        let log = Arc::new(PartitionLog::new(
            &topic,
            &lease,
            recovered,
            producers,
            shared.settings.segment_entries_max,
        ));
        shared.budget.force(log.state().tail.held_bytes());
        let reader = Arc::new(Reader::new(log.clone(), &shared, context, pipeline.clone()));
        tokio::spawn(Actor::new(shared, topic, lease, reader.clone(), pipeline, sample, queue).run());
        Partition { log, reader, commands }
    }

    /// Appends one batch, validated already, through the produce pipeline. Returns once it has its place in the queue.
    pub(crate) async fn submit(
        &self,
        batch: Batch,
        acks: Acks,
        order: Option<StreamOrder>,
        held: Option<Held>,
    ) -> Result<Submitted> {
        let (reply, answer) = Reply::new(order, held);
        let command = Command::Produce { batch, acks, reply };
        self.commands.send(command).await.map_err(|_| self.closed())?;
        Ok(Submitted {
            partition: self.clone(),
            answer,
            told: None,
        })
    }

    /// Reads through the fetch pipeline, without the actor.
    pub(crate) async fn read(&self, query: &Query) -> Result<Read> {
        if self.log.is_closed() {
            return Err(self.closed());
        }
        self.reader.read(query).await
    }

    /// What arrives from an offset on; an error where nothing can be read there.
    pub(crate) fn arrivals(&self, from: Offset) -> Result<Arrivals> {
        self.reader.check(from)?;
        Ok(Arrivals::new(self.log.clone(), from))
    }

    /// The first record of that time or later.
    pub(crate) async fn offset_at(&self, timestamp_ms: i64) -> Result<Option<Offset>> {
        if self.log.is_closed() {
            return Err(self.closed());
        }
        self.reader.offset_at(timestamp_ms).await
    }

    /// First offset that can be read, end of what can be read, and end of what is in segments.
    pub(crate) fn offsets(&self) -> (Offset, Offset, Offset) {
        let state = self.log.state();
        (state.log_start, self.log.high_watermark(), state.committed_end)
    }

    /// How many idempotent producers it remembers.
    pub(crate) fn producer_count(&self) -> usize {
        self.log.producers().count()
    }

    /// Switches between two batches; returns when that is done.
    pub(crate) async fn set_pipeline(&self, pipeline: Arc<Pipeline>) -> Result<()> {
        self.ask(|reply| Command::SetPipeline { pipeline, reply }).await
    }

    /// Returns when everything durable now is in committed segments.
    pub(crate) async fn flush(&self) -> Result<()> {
        self.ask(|reply| Command::Flush { reply }).await?
    }

    /// Makes a segment of what is in the tail now. Where the actor has too much to do, whoever asks asks again.
    pub(crate) fn roll(&self) {
        let _ = self.commands.try_send(Command::Roll);
    }

    /// Lets go of what the topic's retention no longer keeps; whether there may be more.
    pub(crate) async fn expire(&self) -> Result<bool> {
        self.ask(|reply| Command::Expire { reply }).await?
    }

    /// Moves the log start up to `before`; where it is then.
    pub(crate) async fn truncate(&self, before: Offset) -> Result<Offset> {
        self.ask(|reply| Command::Truncate { before, reply }).await?
    }

    /// Merges small segments as long as there are any to merge.
    pub(crate) async fn merge(&self) -> Result<()> {
        self.ask(|reply| Command::Merge { reply }).await?
    }

    /// Goes on with other settings of the topic.
    pub(crate) async fn set_topic(&self, topic: Arc<Topic>) -> Result<()> {
        self.ask(|reply| Command::SetTopic { topic, reply }).await
    }

    /// The lease as it is now.
    pub(crate) fn lease(&self) -> Lease {
        self.log.lease()
    }

    /// Whether the lease is still ours. Where it is not the partition steps down.
    pub(crate) async fn confirm_lease(&self, metadata: &Metadata) -> Result<bool> {
        let holds = metadata.holds_leases(&[self.lease()]).await?.contains(&true);
        if !holds {
            self.step_down("another one leads it");
        }
        Ok(holds)
    }

    /// Takes no requests any more, and keeps what it has acknowledged for the next opening.
    pub(crate) fn step_down(&self, reason: &str) {
        self.log.close(Closed::SteppedDown(reason.to_owned()));
    }

    /// Flushes and ends the actor; the lease, which can be given back, and the end of everything.
    pub(crate) async fn stop(&self) -> Result<(Lease, Offset)> {
        self.ask(|reply| Command::Stop { reply }).await
    }

    /// Ends the actor without a flush: the topic is gone.
    pub(crate) fn abandon(&self) {
        self.log.close(Closed::Deleted);
        self.log.swap_left(None);
    }

    /// Whether requests have a chance.
    pub(crate) fn is_open(&self) -> bool {
        !self.log.is_closed() && !self.commands.is_closed()
    }

    /// Whether it was stopped, with everything in segments.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.log.how_closed(), Some(Closed::Stopping))
    }

    /// Whether both are the same opening of the same partition.
    pub(crate) fn is_same(&self, other: &Partition) -> bool {
        Arc::ptr_eq(&self.log, &other.log)
    }

    /// What the tail counts for against the agent's bound, and what of that is on its way into a segment.
    pub(crate) fn tail_bytes(&self) -> (usize, usize) {
        self.log.tail_bytes()
    }

    /// What a partition that closed has left, once its actor has ended.
    pub(crate) async fn left(&self, budget: &TailBudget) -> LeftTail {
        self.commands.closed().await;
        // One that panicked has put nothing aside, but what it had acknowledged is in its tail.
        self.log.swap_left(None).unwrap_or_else(|| self.log.take_left(budget))
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
