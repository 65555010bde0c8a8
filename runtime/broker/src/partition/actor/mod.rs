//! The task that owns a partition: everything that changes it happens here, one event after the other.
//!
//! It pipelines. At any time one batch may be in the topic's pipeline, several on their way into the WAL, and one range
//! of the tail on its way to the store. Acknowledgements leave in the order in which offsets were given, because
//! commits are awaited in that order.

mod append;
mod append_time;
mod front;
mod numbered;
mod roll;

use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc};

use append_time::AppendTime;
use front::{Ask, Taken};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use millstream_batch::{Batch, Epoch, Offset};
use millstream_log::{LogError, ProducerStamp};
use millstream_meta::{Lease, SegmentRow, Topic};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use numbered::Kept;

use super::{
    Acks, Closed, Command, PartitionLog, Receipt, Reply, Shared, TailBatch, merge::Scan, producers::stamp_of,
    read::Reader,
};
use crate::{
    error::{BrokerError, Result},
    pipeline::{Chain, ChainContext, DeadLetterSource, OutputLimits, Pipeline, Produced, Side, write_dead_letters},
    versions::Sample,
};

/// Batches on their way into the WAL.
const COMMITS_MAX: usize = 64;

/// Bound on one stored batch, that of what a client may send.
const BATCH_BYTES_MAX: usize = 16 << 20;

pub(super) struct Actor {
    shared: Shared,
    topic: Arc<Topic>,
    lease: Lease,
    /// Set after a failed append: the next one needs a greater epoch, so that recovery knows which frames count.
    needs_epoch: bool,
    log: Arc<PartitionLog>,
    reader: Arc<Reader>,
    queue: mpsc::Receiver<Command>,
    pipeline: Arc<Pipeline>,
    sample: Arc<Sample>,
    append_time: AppendTime,
    /// `None` while a batch is in it, or after it was lost to a panic.
    chain: Option<Box<Chain>>,
    /// The next offset to give.
    log_end: Offset,
    /// Since when the last durable batch has been one of which no record was kept, and no checkpoint has it.
    loose_since: Option<Instant>,
    /// Set where such batches stand in the WAL under a lesser epoch than that of the next frame.
    loose_due: bool,
    /// The checkpoint on its way into the metadata.
    keeping: Option<BoxFuture<'static, Option<Kept>>>,
    transform: Option<BoxFuture<'static, (Waiting, Transformed)>>,
    commits: FuturesOrdered<BoxFuture<'static, (Appended, Result<(), LogError>)>>,
    /// The upload on its way, and the epoch under which it will commit.
    upload: Option<BoxFuture<'static, Result<SegmentRow>>>,
    upload_epoch: Epoch,
    /// What is in the tail beside the uploaded range came after this.
    upload_started: Instant,
    /// Since when the oldest batch of the tail has been there.
    tail_since: Option<Instant>,
    /// Set where somebody wants what is in the tail in a segment, until there is one.
    roll_wanted: bool,
    flushes: VecDeque<(Offset, oneshot::Sender<Result<()>>)>,
    /// What is to be taken from the front, and what is being taken.
    asks: Vec<Ask>,
    taking: Option<BoxFuture<'static, Option<Taken>>>,
    /// The merge on its way.
    merge: Option<BoxFuture<'static, Result<Scan>>>,
    /// Below it there is nothing to merge.
    merged_below: Offset,
    /// Whether there may be something to merge above it.
    merge_due: bool,
    merges: Vec<oneshot::Sender<Result<()>>>,
    stopping: Option<oneshot::Sender<(Lease, Offset)>>,
}

/// What comes out of a pipeline: the chain for the next batch, unless it was lost to a panic, and the batch.
type Transformed = Result<(Box<Chain>, Result<Produced>)>;

/// A producer that waits while its batch is in the pipeline.
struct Waiting {
    batch: Batch,
    /// Who sent it.
    stamp: ProducerStamp,
    acks: Acks,
    append_time_ms: i64,
    reply: Reply,
}

/// A batch on its way into the WAL.
struct Appended {
    entry: Option<TailBatch>,
    /// Whether an idempotent producer sent it, and it is no duplicate.
    numbered: bool,
    receipt: Receipt,
    /// `None` where the producer was answered from memory.
    reply: Option<Reply>,
}

enum Event {
    Command(Option<Command>),
    Transformed(Waiting, Transformed),
    Committed(Appended, Result<(), LogError>),
    Uploaded(Result<SegmentRow>),
    Merged(Result<Scan>),
    Taken(Option<Taken>),
    Kept(Option<Kept>),
    RollDue,
    Closed,
}

impl Actor {
    pub(super) fn new(
        shared: Shared,
        topic: Arc<Topic>,
        lease: Lease,
        reader: Arc<Reader>,
        pipeline: Arc<Pipeline>,
        sample: Arc<Sample>,
        queue: mpsc::Receiver<Command>,
    ) -> Actor {
        let log = reader.log.clone();
        let append_time = AppendTime::of(&log);
        let tail_since = log.state().tail.start().map(|_| Instant::now());
        let loose_due = !log.producers().loose(log.high_watermark()).is_empty();
        Actor {
            log_end: log.high_watermark(),
            loose_since: loose_due.then(Instant::now),
            loose_due,
            keeping: None,
            merged_below: lease.log_start,
            upload_epoch: lease.epoch,
            upload_started: Instant::now(),
            shared,
            topic,
            lease,
            needs_epoch: false,
            log,
            reader,
            queue,
            pipeline,
            sample,
            append_time,
            chain: None,
            transform: None,
            commits: FuturesOrdered::new(),
            upload: None,
            tail_since,
            roll_wanted: false,
            flushes: VecDeque::new(),
            asks: Vec::new(),
            taking: None,
            merge: None,
            merge_due: true,
            merges: Vec::new(),
            stopping: None,
        }
    }

    pub(super) async fn run(mut self) {
        while !self.log.is_closed() {
            self.roll_if_due();
            self.keep_producers_if_due();
            match self.next_event().await {
                Event::Command(Some(command)) => self.on_command(command).await,
                // All handles are gone: the topic was deleted.
                Event::Command(None) => self.log.close(Closed::Deleted),
                Event::Transformed(waiting, result) => self.on_transformed(waiting, result).await,
                Event::Committed(appended, Ok(())) => self.on_committed(appended),
                Event::Committed(appended, Err(error)) => self.on_append_failed(appended, &error).await,
                Event::Uploaded(result) => self.on_uploaded(result),
                Event::Merged(result) => self.on_merged(result),
                Event::Taken(taken) => self.on_taken(taken),
                Event::Kept(kept) => self.on_kept(kept),
                Event::RollDue | Event::Closed => {}
            }
            self.answer_flushes();
            self.take_from_front();
            self.finish_stop();
        }
        self.let_go().await;
    }

    /// The end: whoever still waits is told. What is durable is kept for whoever opens the partition next: it may be that
    /// our WAL is still the one that holds it. Where that cannot be, the memory goes back to the agent.
    async fn let_go(&mut self) {
        let reason = self.log.closed_because().unwrap_or_default();
        let mut failed = false;
        while let Some((mut appended, result)) = self.commits.next().await {
            failed |= result.is_err();
            if failed {
                // A batch behind one that is missing cannot be found again.
                self.fail(appended, &reason);
                continue;
            }
            self.settle_numbered(appended.numbered, appended.entry.is_some());
            if let Some(entry) = appended.entry.take() {
                self.log.publish(entry);
            }
            if let Some(reply) = appended.reply.take() {
                answer(reply, Ok(appended.receipt));
            }
        }
        let left = self.log.take_left(&self.shared.budget);
        if matches!(self.log.how_closed(), Some(Closed::SteppedDown(_))) {
            self.log.swap_left(Some(left));
        }
        if self.log.how_closed() == Some(Closed::Deleted) {
            // It may have been deleted between the two.
            self.log.swap_left(None);
        }
    }

    async fn next_event(&mut self) -> Event {
        // A checkpoint that is due waits until what is on its way into the WAL is answered; nothing more joins that.
        let has_room = self.commits.len() < COMMITS_MAX && !self.is_checkpoint_due();
        let takes_commands = self.transform.is_none() && has_room;
        let roll_due = self
            .tail_since
            .or(self.loose_since.filter(|_| self.commits.is_empty()))
            .filter(|_| self.upload.is_none() && self.keeping.is_none())
            .map(|since| since + self.segment_age());
        tokio::select! {
            biased;
            Some((appended, result)) = self.commits.next(), if !self.commits.is_empty() => {
                Event::Committed(appended, result)
            }
            (waiting, result) = pending(&mut self.transform) => {
                self.transform = None;
                Event::Transformed(waiting, result)
            }
            result = pending(&mut self.upload) => {
                self.upload = None;
                Event::Uploaded(result)
            }
            result = pending(&mut self.merge) => {
                self.merge = None;
                Event::Merged(result)
            }
            taken = pending(&mut self.taking) => {
                self.taking = None;
                Event::Taken(taken)
            }
            kept = pending(&mut self.keeping) => {
                self.keeping = None;
                Event::Kept(kept)
            }
            () = self.log.closed() => Event::Closed,
            command = self.queue.recv(), if takes_commands => Event::Command(command),
            () = sleep_until(roll_due) => Event::RollDue,
        }
    }

    async fn on_command(&mut self, command: Command) {
        match command {
            Command::Produce { reply, .. } if self.stopping.is_some() => {
                answer(reply, Err(BrokerError::Stopping));
            }
            Command::Produce { batch, acks, reply } => {
                let append_time_ms = match self.append_time().await {
                    Ok(append_time_ms) => append_time_ms,
                    Err(error) => return answer(reply, Err(error)),
                };
                self.on_produce(Waiting {
                    stamp: stamp_of(&batch),
                    batch,
                    acks,
                    append_time_ms,
                    reply,
                })
                .await;
            }
            Command::SetPipeline { pipeline, reply } => {
                // No batch is in the pipeline now: the next one is the first to go through the new version.
                self.reader.set_pipeline(pipeline.clone());
                self.pipeline = pipeline;
                self.chain = None;
                answer(reply, ());
            }
            Command::Flush { reply } => self.flushes.push_back((self.log_end, reply)),
            Command::Roll => {
                self.roll_wanted = !self.commits.is_empty() || self.log.tail_bytes().0 > 0 || self.is_loose();
            }
            Command::Expire { reply } => self.asks.push(Ask::Expire(reply)),
            Command::Truncate { before, reply } => self.truncate(before, reply),
            Command::Merge { reply } => self.start_merge(reply),
            Command::SetTopic { topic, reply } => {
                self.topic = topic;
                self.merged_below = self.log.state().log_start;
                self.merge_due = true;
                answer(reply, ());
            }
            Command::Stop { reply } => self.stopping = Some(reply),
        }
    }

    async fn on_produce(&mut self, waiting: Waiting) {
        if let Err(broken) = waiting.reply.check() {
            return answer(waiting.reply, Err(broken));
        }
        // Before the pipeline: what it did to a batch once is what happened to it.
        let Some(waiting) = self.new_only(waiting) else { return };
        self.sample.offer(&waiting.batch);
        if let Err(paused) = self.pipeline.check_open(&self.topic.name, Side::Produce) {
            return answer(waiting.reply, Err(paused));
        }
        if self.pipeline.produce.is_empty() {
            let produced = Produced::untouched(waiting.batch.clone());
            return self.append(waiting, produced).await;
        }
        let mut chain = self.chain.take().unwrap_or_else(|| {
            let context = chain_context(&self.shared, &self.topic, self.lease.partition);
            Box::new(Chain::new(&context, Side::Produce, self.pipeline.clone()))
        });
        let limits = OutputLimits {
            batch_bytes_max: BATCH_BYTES_MAX,
            record_bytes_max: self.topic.config.record_bytes_max as usize,
        };
        let (shared, batch, append_time_ms) = (self.shared.clone(), waiting.batch.clone(), waiting.append_time_ms);
        let source = DeadLetterSource {
            topic: self.topic.name.clone(),
            partition: self.lease.partition,
            append_time_ms,
        };
        let run = async move {
            let (pool, lane) = (shared.pool.clone(), chain.lane());
            let result = pool.run_in(lane, "a produce pipeline", move || {
                let produced = chain.produce(batch, append_time_ms, limits);
                (chain, produced)
            });
            let result = match result.await {
                Ok((chain, Ok(mut produced))) if !produced.dead_letters.is_empty() => {
                    // Durable there before this batch is in the log: a crash between the two leaves the letters, and a
                    // producer who was not answered.
                    let letters = std::mem::take(&mut produced.dead_letters);
                    let written = write_dead_letters(shared, source, letters).await;
                    Ok((chain, written.map(|()| produced)))
                }
                result => result,
            };
            (waiting, result)
        };
        self.transform = Some(run.boxed());
    }

    async fn on_transformed(&mut self, waiting: Waiting, result: Transformed) {
        match result {
            Ok((chain, produced)) => {
                self.chain = Some(chain);
                match produced {
                    Ok(produced) => self.append(waiting, produced).await,
                    Err(error) => answer(waiting.reply, Err(error)),
                }
            }
            Err(error) => answer(waiting.reply, Err(error)),
        }
    }
}

pub(super) fn chain_context(shared: &Shared, topic: &Topic, partition: u32) -> ChainContext {
    ChainContext {
        topic_id: topic.id,
        topic: topic.name.clone(),
        partition,
        limits: shared.settings.module_limits.clone(),
        engine: shared.engine.clone(),
        monitors: shared.monitors.clone(),
        pool: shared.pool.clone(),
    }
}

/// Where an answer goes.
trait Answered<T> {
    fn take(self, result: T);
}

impl<T> Answered<T> for oneshot::Sender<T> {
    fn take(self, result: T) {
        // Whoever asked and went away does not mind.
        let _ = self.send(result);
    }
}

impl Answered<Result<Receipt>> for Reply {
    fn take(self, result: Result<Receipt>) {
        self.answer(result);
    }
}

fn answer<T>(reply: impl Answered<T>, result: T) {
    reply.take(result);
}

/// Waits for the future in `slot`, for ever where there is none. It stays in the slot, so a cancelled wait loses
/// nothing.
async fn pending<F: Future + Unpin>(slot: &mut Option<F>) -> F::Output {
    match slot {
        Some(future) => Pin::new(future).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
