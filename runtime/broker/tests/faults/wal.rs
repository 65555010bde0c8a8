//! Write-ahead logs that break when they are told to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures::{FutureExt, future::BoxFuture};
use millstream_batch::Offset;
use millstream_log::{Commit, Frame, LogError, ReplaySummary, Wal, WalMeasures, WalStats, WalStore};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use crate::control::{Control, Point};

type Result<T> = std::result::Result<T, LogError>;

/// Passes everything that is asked of the logs by a [`Control`].
#[derive(Debug)]
pub struct FaultyWals {
    inner: Arc<dyn WalStore>,
    control: Arc<Control>,
    /// The logs that were made, without their faults: what was handed to them is written, whoever died.
    made: Arc<Mutex<Vec<Arc<dyn Wal>>>>,
}

impl FaultyWals {
    pub fn new(inner: Arc<dyn WalStore>, control: Arc<Control>) -> FaultyWals {
        FaultyWals {
            inner,
            control,
            made: Arc::default(),
        }
    }

    pub fn made(&self) -> Arc<Mutex<Vec<Arc<dyn Wal>>>> {
        self.made.clone()
    }
}

fn broken() -> LogError {
    LogError::Io {
        path: "faulty".into(),
        action: "write",
        source: Arc::new(std::io::Error::other("the device broke")),
    }
}

impl WalStore for FaultyWals {
    fn create(&self, wal_id: Uuid) -> BoxFuture<'_, Result<Arc<dyn Wal>>> {
        let (inner, control, made) = (self.inner.clone(), self.control.clone(), self.made.clone());
        let create = move || {
            let (inner, control, made) = (inner.clone(), control.clone(), made.clone());
            async move {
                let inner = inner.create(wal_id).await?;
                made.lock().expect("no holder of the lock panics").push(inner.clone());
                Ok(Arc::new(FaultyWal::new(inner, control)) as Arc<dyn Wal>)
            }
            .boxed()
        };
        let name = wal_id.to_string();
        async move { self.control.pass(Point::Create, &name, create, broken).await }.boxed()
    }

    fn exists(&self, wal_id: Uuid) -> BoxFuture<'_, Result<bool>> {
        self.inner.exists(wal_id)
    }

    fn seal(&self, wal_id: Uuid, by: Uuid, floor: u64) -> BoxFuture<'_, Result<()>> {
        let inner = self.inner.clone();
        let seal = move || {
            let inner = inner.clone();
            async move { inner.seal(wal_id, by, floor).await }.boxed()
        };
        let name = wal_id.to_string();
        async move { self.control.pass(Point::Seal, &name, seal, broken).await }.boxed()
    }

    fn replay<'a>(
        &'a self,
        wal_id: Uuid,
        floor: u64,
        visit: &'a mut (dyn FnMut(Frame) -> Result<()> + Send),
    ) -> BoxFuture<'a, Result<ReplaySummary>> {
        let inner = self.inner.clone();
        let read = move || {
            let inner = inner.clone();
            async move {
                let mut frames = Vec::new();
                let mut keep = |frame| {
                    frames.push(frame);
                    Ok(())
                };
                let summary = inner.replay(wal_id, floor, &mut keep).await?;
                Ok((frames, summary))
            }
            .boxed()
        };
        let name = wal_id.to_string();
        async move {
            let (frames, summary) = self.control.pass(Point::Replay, &name, read, broken).await?;
            frames.into_iter().try_for_each(visit)?;
            Ok(summary)
        }
        .boxed()
    }

    fn remove(&self, wal_id: Uuid) -> BoxFuture<'_, Result<()>> {
        let inner = self.inner.clone();
        let remove = move || {
            let inner = inner.clone();
            async move { inner.remove(wal_id).await }.boxed()
        };
        let name = wal_id.to_string();
        async move { self.control.pass(Point::Remove, &name, remove, broken).await }.boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        self.inner.list()
    }
}

/// A running log. A frame that it lets fail is followed by failures until the partition starts again at or below it, as
/// a log's contract says; and it answers in order.
#[derive(Debug)]
struct FaultyWal {
    inner: Arc<dyn Wal>,
    control: Arc<Control>,
    refused: Arc<Refused>,
    answers: mpsc::UnboundedSender<Pending>,
}

/// A frame that the real log has, and who waits for it.
#[derive(Debug)]
struct Pending {
    partition: (Uuid, u32),
    offset: Offset,
    commit: Commit,
    answer: oneshot::Sender<Result<()>>,
}

/// The offset of each partition's frame that failed.
#[derive(Debug, Default)]
struct Refused(Mutex<HashMap<(Uuid, u32), Offset>>);

impl Refused {
    fn note(&self, partition: (Uuid, u32), offset: Offset) {
        let mut failed = self.0.lock().expect("no holder of the lock panics");
        failed.entry(partition).or_insert(offset);
    }

    /// Whether a frame of the partition before this one failed.
    fn covers(&self, partition: (Uuid, u32), offset: Offset) -> bool {
        let failed = self.0.lock().expect("no holder of the lock panics");
        failed.get(&partition).is_some_and(|failed| offset > *failed)
    }

    /// The partition goes on at an offset that is not beyond the failure.
    fn start_again(&self, partition: (Uuid, u32)) {
        self.0.lock().expect("no holder of the lock panics").remove(&partition);
    }
}

impl FaultyWal {
    /// To be made on the agent's runtime, with which its answers end.
    fn new(inner: Arc<dyn Wal>, control: Arc<Control>) -> FaultyWal {
        let (answers, mut pending) = mpsc::unbounded_channel::<Pending>();
        let refused = Arc::new(Refused::default());
        let (passes_by, failures) = (control.clone(), refused.clone());
        tokio::spawn(async move {
            while let Some(next) = pending.recv().await {
                let result = settle(&passes_by, &failures, next.partition, next.offset, next.commit).await;
                // Whoever stopped waiting has no use for the answer.
                let _ = next.answer.send(result);
            }
        });
        FaultyWal {
            inner,
            control,
            refused,
            answers,
        }
    }

    async fn queue(&self, frame: Frame) -> Result<Commit> {
        let (partition, offset) = ((frame.topic_id, frame.partition), frame.base_offset);
        if self.refused.covers(partition, offset) {
            return Err(broken());
        }
        self.refused.start_again(partition);
        let inner = self.inner.clone();
        let submit = move || {
            let (inner, frame) = (inner.clone(), frame.clone());
            async move { inner.submit(frame).await }.boxed()
        };
        let submitted = self
            .control
            .pass(Point::Submit, &name_of(partition), submit, broken)
            .await;
        let commit = submitted.inspect_err(|_| self.refused.note(partition, offset))?;
        let (answer, answered) = oneshot::channel();
        let pending = Pending {
            partition,
            offset,
            commit,
            answer,
        };
        self.answers.send(pending).map_err(|_| LogError::WalClosed)?;
        Ok(Commit::from(answered))
    }
}

/// What whoever waits for a frame is told.
async fn settle(
    control: &Control,
    refused: &Refused,
    partition: (Uuid, u32),
    offset: Offset,
    commit: Commit,
) -> Result<()> {
    let committed = commit.boxed().shared();
    let wait = move || committed.clone().boxed();
    let mut result = control.pass(Point::Commit, &name_of(partition), wait, broken).await;
    if refused.covers(partition, offset) {
        result = Err(broken());
    }
    result.inspect_err(|_| refused.note(partition, offset))
}

fn name_of((topic_id, partition): (Uuid, u32)) -> String {
    format!("{topic_id}/{partition}")
}

impl Wal for FaultyWal {
    fn submit(&self, frame: Frame) -> BoxFuture<'_, Result<Commit>> {
        self.queue(frame).boxed()
    }

    fn committed(&self, topic_id: Uuid, partition: u32, end: Offset) {
        self.inner.committed(topic_id, partition, end);
    }

    fn parts_begun(&self) -> u64 {
        self.inner.parts_begun()
    }

    fn checkpointed(&self, topic_id: Uuid, partition: u32, end: Offset, parts_begun: u64) {
        self.inner.checkpointed(topic_id, partition, end, parts_begun);
    }

    fn give_up(&self, topic_id: Uuid, partition: u32) {
        self.inner.give_up(topic_id, partition);
    }

    fn forget_topic(&self, topic_id: Uuid) {
        self.inner.forget_topic(topic_id);
    }

    fn failure(&self) -> watch::Receiver<Option<String>> {
        self.inner.failure()
    }

    fn stats(&self) -> WalStats {
        self.inner.stats()
    }

    fn measures(&self) -> WalMeasures {
        self.inner.measures()
    }

    fn pinned_by(&self, bytes_max: u64) -> Vec<(Uuid, u32)> {
        self.inner.pinned_by(bytes_max)
    }

    fn trimmable(&self) -> u64 {
        self.inner.trimmable()
    }

    fn trim(&self, floor: u64) -> BoxFuture<'_, Result<()>> {
        let inner = self.inner.clone();
        let trim = move || {
            let inner = inner.clone();
            async move { inner.trim(floor).await }.boxed()
        };
        async move { self.control.pass(Point::Trim, &floor.to_string(), trim, broken).await }.boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let inner = self.inner.clone();
        let close = move || {
            let inner = inner.clone();
            async move {
                inner.close().await;
                Ok(())
            }
            .boxed()
        };
        async move {
            let _ = self.control.pass(Point::Close, "", close, broken).await;
        }
        .boxed()
    }
}
