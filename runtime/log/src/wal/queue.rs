//! What both kinds of log do with a frame before it is written: check it, bound what waits, and answer in the end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::frame::{FRAME_BYTES_MAX, Frame};
use super::seam::WalStats;
use crate::error::{LogError, Result};
use crate::measure::WalMeasures;

/// The most bytes of frames that were submitted and not answered yet; beyond it, submitting waits.
pub const QUEUE_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// What each waiting frame counts for at least, so that the queue's bound also holds for their number.
const QUEUED_FRAME_BYTES_MIN: usize = 1 << 10;

/// Where frames come in.
#[derive(Debug)]
pub(super) struct Door {
    room: Arc<Semaphore>,
}

impl Default for Door {
    fn default() -> Door {
        Door {
            room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
        }
    }
}

impl Door {
    /// Waits for room for the frame.
    ///
    /// Errors: [`LogError::FrameTooLarge`], [`LogError::FrameMismatch`].
    pub(super) async fn admit(&self, frame: Frame) -> Result<(Submission, Commit)> {
        if let Some(batch) = &frame.batch
            && batch.base_offset() != frame.base_offset
        {
            return Err(LogError::FrameMismatch {
                frame: frame.base_offset,
                batch: batch.base_offset(),
            });
        }
        let bytes = frame.encoded_len();
        if bytes > FRAME_BYTES_MAX {
            return Err(LogError::FrameTooLarge {
                bytes,
                bytes_max: FRAME_BYTES_MAX,
            });
        }
        let permits = bytes.max(QUEUED_FRAME_BYTES_MIN) as u32;
        let acquired = self.room.clone().acquire_many_owned(permits).await;
        let room = acquired.map_err(|_| LogError::WalClosed)?;
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter { answer, _room: room };
        Ok((Submission { frame, bytes, waiter }, Commit { answered }))
    }
}

/// A frame that waits for its group.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) frame: Frame,
    pub(super) bytes: usize,
    pub(super) waiter: Waiter,
}

/// Who waits for a frame. Holds the frame's room in the queue until it is answered.
#[derive(Debug)]
pub(super) struct Waiter {
    answer: oneshot::Sender<Result<()>>,
    _room: OwnedSemaphorePermit,
}

impl Waiter {
    pub(super) fn answer(self, result: Result<()>) {
        // Whoever stopped waiting has no use for the answer.
        let _ = self.answer.send(result);
    }
}

/// Resolves once the frame's group is written as durably as the log promises; with [`LogError::WalClosed`] where the log
/// ended without having answered.
#[derive(Debug)]
#[must_use = "a frame is not durable before its commit resolves"]
pub struct Commit {
    answered: oneshot::Receiver<Result<()>>,
}

/// What another implementation of a log gives to whoever submits; it answers through the other end.
impl From<oneshot::Receiver<Result<()>>> for Commit {
    fn from(answered: oneshot::Receiver<Result<()>>) -> Commit {
        Commit { answered }
    }
}

impl Future for Commit {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.answered)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(LogError::WalClosed)))
    }
}

/// Why the log takes nothing any more, once it does not. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    reason: watch::Sender<Option<String>>,
}

impl Default for Failure {
    fn default() -> Failure {
        Failure {
            reason: watch::Sender::new(None),
        }
    }
}

impl Failure {
    /// Takes the log out of use. The first reason stays.
    pub(super) fn poison(&self, reason: String) {
        self.reason.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                tracing::error!(reason, "the write-ahead log has failed");
                *failure = Some(reason);
            }
            first
        });
    }

    pub(super) fn check(&self) -> Result<()> {
        match &*self.reason.borrow() {
            Some(reason) => Err(LogError::WalPoisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.reason.subscribe()
    }

    /// For `who` to hold while it works.
    pub(super) fn unless_disarmed(&self, who: &'static str) -> EndGuard {
        EndGuard {
            failure: self.clone(),
            who,
            armed: true,
        }
    }
}

/// Fails the log when it is dropped before an orderly end: whoever writes it must not be gone unnoticed, by a panic or
/// with its runtime.
#[derive(Debug)]
#[must_use = "the guard fails the log when it is dropped"]
pub(super) struct EndGuard {
    failure: Failure,
    who: &'static str,
    armed: bool,
}

impl EndGuard {
    /// This is the orderly end.
    pub(super) fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        if self.armed {
            self.failure
                .poison(format!("the {} has ended before its time", self.who));
        }
    }
}

/// What was written so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) measures: WalMeasures,
    groups: AtomicU64,
    frames: AtomicU64,
    bytes_written: AtomicU64,
}

impl Counts {
    pub(super) fn add_group(&self, frames: usize, bytes: usize) {
        self.measures.group_bytes.observe(bytes as f64);
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.frames.fetch_add(frames as u64, Ordering::Relaxed);
        self.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn stats(&self, bytes_stored: u64) -> WalStats {
        WalStats {
            bytes_stored,
            groups: self.groups.load(Ordering::Relaxed),
            frames: self.frames.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
        }
    }
}
