//! The task that owns a partition: everything that changes it happens here, one event after the other.
//!
//! It pipelines. At any time one batch may be in the topic's pipeline, several on their way into the WAL, and one range
//! of the tail on its way to the store. Acknowledgements leave in the order in which offsets were given, because
//! commits are awaited in that order.

mod append;

use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use millstream_batch::{Batch, Epoch, Offset};
use millstream_log::LogError;
use millstream_meta::{Lease, SegmentRow, Topic};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{Acks, Command, PartitionLog, Receipt, Shared, TailBatch, read::Reader, upload};
use crate::{
    error::{BrokerError, Result},
    pipeline::{Chain, ChainContext, OutputLimits, Pipeline, Produced, Side},
};

/// Batches on their way into the WAL.
const COMMITS_MAX: usize = 64;

/// Where the agent's tail memory is tight, a tail of this size becomes a segment early.
const EARLY_SEGMENT_BYTES_MIN: usize = 1 << 20;

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
    /// `None` while a batch is in it, or after it was lost to a panic.
    chain: Option<Chain>,
    /// The next offset to give.
    log_end: Offset,
    transform: Option<BoxFuture<'static, (Waiting, Transformed)>>,
    commits: FuturesOrdered<BoxFuture<'static, (Appended, Result<(), LogError>)>>,
    /// The upload on its way, and the epoch under which it will commit.
    upload: Option<BoxFuture<'static, Result<SegmentRow>>>,
    upload_epoch: Epoch,
    /// What is in the tail beside the uploaded range came after this.
    upload_started: Instant,
    /// Since when the oldest batch of the tail has been there.
    tail_since: Option<Instant>,
    flushes: VecDeque<(Offset, oneshot::Sender<Result<()>>)>,
    stopping: Option<oneshot::Sender<Result<()>>>,
}

/// What comes out of a pipeline: the chain for the next batch, unless it was lost to a panic, and the batch.
type Transformed = Result<(Chain, Result<Produced>)>;

/// A producer that waits while its batch is in the pipeline.
struct Waiting {
    batch: Batch,
    acks: Acks,
    append_time_ms: i64,
    reply: oneshot::Sender<Result<Receipt>>,
}

/// A batch on its way into the WAL.
struct Appended {
    entry: Option<TailBatch>,
    receipt: Receipt,
    /// `None` where the producer was answered from memory.
    reply: Option<oneshot::Sender<Result<Receipt>>>,
}

enum Event {
    Command(Option<Command>),
    Transformed(Waiting, Transformed),
    Committed(Appended, Result<(), LogError>),
    Uploaded(Result<SegmentRow>),
    RollDue,
}

impl Actor {
    pub(super) fn new(
        shared: Shared,
        topic: Arc<Topic>,
        lease: Lease,
        log: Arc<PartitionLog>,
        reader: Arc<Reader>,
        pipeline: Arc<Pipeline>,
        queue: mpsc::Receiver<Command>,
    ) -> Actor {
        let tail_since = log.state().tail.start().map(|_| Instant::now());
        Actor {
            log_end: log.high_watermark(),
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
            chain: None,
            transform: None,
            commits: FuturesOrdered::new(),
            upload: None,
            tail_since,
            flushes: VecDeque::new(),
            stopping: None,
        }
    }

    pub(super) async fn run(mut self) {
        while self.log.closed_because().is_none() {
            self.roll_if_due();
            match self.next_event().await {
                Event::Command(Some(command)) => self.on_command(command).await,
                // All handles are gone: the topic was deleted.
                Event::Command(None) => self.log.close("its topic was deleted"),
                Event::Transformed(waiting, result) => self.on_transformed(waiting, result).await,
                Event::Committed(appended, Ok(())) => self.on_committed(appended),
                Event::Committed(appended, Err(error)) => self.on_append_failed(appended, &error).await,
                Event::Uploaded(result) => self.on_uploaded(result),
                Event::RollDue => {}
            }
            self.answer_flushes();
            self.finish_stop().await;
        }
        self.let_go().await;
    }

    /// The end: whoever still waits is told, and the memory goes back to the agent.
    async fn let_go(&mut self) {
        let reason = self.log.closed_because().unwrap_or_default();
        while let Some((mut appended, result)) = self.commits.next().await {
            if let (Ok(()), Some(reply)) = (result, appended.reply.take()) {
                // It is durable, and whoever leads the partition next finds it.
                answer(reply, Ok(appended.receipt));
            }
            self.fail(appended, &reason);
        }
        self.shared.budget.give_back(self.log.clear());
    }

    async fn next_event(&mut self) -> Event {
        let takes_commands = self.transform.is_none() && self.commits.len() < COMMITS_MAX;
        let roll_due = self
            .tail_since
            .filter(|_| self.upload.is_none())
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
            command = self.queue.recv(), if takes_commands => Event::Command(command),
            () = sleep_until(roll_due) => Event::RollDue,
            () = self.shared.budget.exhausted() => Event::RollDue,
        }
    }

    async fn on_command(&mut self, command: Command) {
        match command {
            Command::Produce { reply, .. } if self.stopping.is_some() => {
                answer(reply, Err(BrokerError::Stopping));
            }
            Command::Produce { batch, acks, reply } => {
                let append_time_ms = self.shared.clock.now_ms();
                self.on_produce(Waiting {
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
            Command::Expire {
                created_before_ms,
                reply,
            } => {
                let result = self.expire(created_before_ms).await;
                answer(reply, result);
            }
            Command::Stop { reply } => self.stopping = Some(reply),
        }
    }

    async fn on_produce(&mut self, waiting: Waiting) {
        if self.pipeline.produce.is_empty() {
            let produced = Produced::untouched(waiting.batch.clone());
            return self.append(waiting, produced).await;
        }
        let mut chain = self.chain.take().unwrap_or_else(|| {
            Chain::new(
                &chain_context(&self.shared, &self.topic, self.lease.partition),
                Side::Produce,
                self.pipeline.clone(),
            )
        });
        let limits = OutputLimits {
            batch_bytes_max: BATCH_BYTES_MAX,
            record_bytes_max: self.topic.config.record_bytes_max as usize,
        };
        let (pool, batch, append_time_ms) = (self.shared.pool.clone(), waiting.batch.clone(), waiting.append_time_ms);
        let run = async move {
            let result = pool.run("a produce pipeline", move || {
                let produced = chain.produce(batch, append_time_ms, limits);
                (chain, produced)
            });
            (waiting, result.await)
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

    /// Starts an upload where the tail is large, old or wanted in segments.
    fn roll_if_due(&mut self) {
        if self.upload.is_some() {
            return;
        }
        let segment_bytes = self.topic.config.segment_bytes;
        let range = {
            let state = self.log.state();
            let bytes = state.tail.bytes();
            let old = self
                .tail_since
                .is_some_and(|since| since.elapsed() >= self.segment_age());
            let wanted = !self.flushes.is_empty() || self.stopping.is_some();
            let budget = &self.shared.budget;
            let early = budget.is_exhausted() || (bytes >= EARLY_SEGMENT_BYTES_MIN && budget.is_tight());
            if bytes == 0 || !(bytes as u64 >= segment_bytes || old || wanted || early) {
                return;
            }
            state.tail.oldest(segment_bytes)
        };
        self.upload_epoch = self.lease.epoch;
        self.upload_started = Instant::now();
        let (shared, topic, lease) = (self.shared.clone(), self.topic.clone(), self.lease.clone());
        self.upload = Some(upload::start(shared, topic, lease, range));
    }

    fn on_uploaded(&mut self, result: Result<SegmentRow>) {
        match result {
            Ok(row) => {
                let end = row.end_offset;
                self.shared.budget.give_back(self.log.committed(row));
                // Only now may the WAL let go: until here it was the only durable copy that recovery would find.
                self.shared.wal.committed(self.topic.id, self.lease.partition, end);
                self.tail_since = self.log.state().tail.start().map(|_| self.upload_started);
            }
            // The range is still in the tail: the next round uploads it under the epoch that was taken meanwhile.
            Err(error) if self.upload_epoch < self.lease.epoch => {
                tracing::warn!(%error, "an upload under a former epoch of ours was refused");
            }
            Err(error) => {
                tracing::error!(topic = self.topic.name, partition = self.lease.partition, %error, "stepping down");
                self.log.close(&error.to_string());
            }
        }
    }

    fn answer_flushes(&mut self) {
        let committed_end = self.log.state().committed_end;
        while self.flushes.front().is_some_and(|(wanted, _)| *wanted <= committed_end) {
            let (_, reply) = self.flushes.pop_front().expect("the loop's condition saw it");
            answer(reply, Ok(()));
        }
    }

    /// Where a stop was asked for, gives the lease back once everything is in segments, and closes.
    async fn finish_stop(&mut self) {
        let idle = self.transform.is_none() && self.commits.is_empty() && self.upload.is_none();
        if !idle || self.log.state().tail.bytes() > 0 {
            return;
        }
        let Some(reply) = self.stopping.take() else { return };
        self.log.close("the agent is stopping");
        let result = self
            .shared
            .metadata
            .release_lease(&self.lease, self.log_end)
            .await
            .map_err(BrokerError::from);
        answer(reply, result);
    }

    async fn expire(&mut self, created_before_ms: i64) -> Result<()> {
        let now_ms = self.shared.clock.now_ms();
        let expired = self
            .shared
            .metadata
            .expire_segments(&self.lease, created_before_ms, now_ms)
            .await?;
        if let Some(expired) = expired {
            tracing::info!(
                topic = self.topic.name,
                segments = expired.keys.len(),
                "retention took segments"
            );
            self.log.start_at(expired.log_start);
        }
        Ok(())
    }

    fn segment_age(&self) -> Duration {
        Duration::from_millis(self.topic.config.segment_age_ms)
    }
}

pub(super) fn chain_context(shared: &Shared, topic: &Topic, partition: u32) -> ChainContext {
    ChainContext {
        topic: topic.name.clone(),
        partition,
        limits: shared.settings.module_limits.clone(),
    }
}

/// A producer that went away does not mind.
fn answer<T>(reply: oneshot::Sender<T>, result: T) {
    let _ = reply.send(result);
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
