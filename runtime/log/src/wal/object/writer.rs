//! The one task that writes: gathers frames into groups, puts several at once, answers in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::put::put_group;
use super::{ObjectWalSettings, Shared};
use crate::error::{LogError, Result};
use crate::wal::group::{GROUP_HEADER_BYTES, GroupHeader};
use crate::wal::queue::{Submission, Waiter};

/// What is trimmed as a whole: so many objects, or the fewer that together have this many bytes. A bound on what is
/// remembered for each partition.
const PART_OBJECTS: u64 = 64;
const PART_BYTES: u64 = 64 << 20;

/// What the writer is asked.
#[expect(
    clippy::large_enum_variant,
    reason = "all but one request is a frame, and a box would allocate for each"
)]
pub(super) enum Request {
    Write(Submission),
    Close(oneshot::Sender<()>),
}

pub(super) struct Writer {
    settings: ObjectWalSettings,
    wal_id: Uuid,
    shared: Arc<Shared>,
    /// The number of the next group, and its log position.
    number: u64,
    position: u64,
    /// Every byte below this log position is stored.
    durable_end: u64,
    pending: Pending,
    /// Gives results in the order of the numbers, whatever the store answers first. What has ended behind one that has not
    /// counts as in flight.
    puts: FuturesOrdered<BoxFuture<'static, Result<()>>>,
    in_flight: VecDeque<InFlight>,
    part: Part,
    closing: Vec<oneshot::Sender<()>>,
    /// Whether anything more may come.
    open: bool,
}

/// Frames that are in no group yet, with when each came.
#[derive(Default)]
struct Pending {
    frames: VecDeque<(Instant, Submission)>,
    bytes: usize,
}

/// Who waits for a group, and the log position behind it.
struct InFlight {
    waiters: Vec<Waiter>,
    bytes: usize,
    end: u64,
}

/// The part of the log that is being written.
#[derive(Default)]
struct Part {
    objects: u64,
    bytes: u64,
}

impl Writer {
    pub(super) fn new(settings: ObjectWalSettings, wal_id: Uuid, shared: Arc<Shared>) -> Writer {
        Writer {
            settings,
            wal_id,
            shared,
            number: 0,
            position: 0,
            durable_end: 0,
            pending: Pending::default(),
            puts: FuturesOrdered::new(),
            in_flight: VecDeque::new(),
            part: Part::default(),
            closing: Vec::new(),
            open: true,
        }
    }

    /// Puts group after group until the log is closed or nobody holds it any more.
    pub(super) async fn run(mut self, mut requests: UnboundedReceiver<Request>) {
        let guard = self.shared.failure.unless_disarmed("writer");
        while self.open || !self.pending.frames.is_empty() || !self.in_flight.is_empty() {
            let due = self.due();
            tokio::select! {
                biased;
                Some(result) = self.puts.next(), if !self.puts.is_empty() => self.settle(result),
                request = requests.recv(), if self.open => self.take(request, &mut requests),
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            self.start_puts();
        }
        guard.disarm();
        for done in self.closing {
            // Whoever stopped waiting has no use for the answer.
            let _ = done.send(());
        }
    }

    fn take(&mut self, request: Option<Request>, requests: &mut UnboundedReceiver<Request>) {
        match request {
            Some(Request::Write(submission)) => match self.shared.failure.check() {
                Ok(()) => self.pending.push(submission),
                Err(error) => submission.waiter.answer(Err(error)),
            },
            // Whoever submits from here on is told that the log is closed; what was queued before still comes.
            Some(Request::Close(done)) => {
                requests.close();
                self.closing.push(done);
            }
            None => self.open = false,
        }
    }

    /// When the frame that has waited longest has done so for long enough; nothing while no put may start.
    fn due(&self) -> Option<Instant> {
        let (came, _) = self.pending.frames.front()?;
        (self.puts.len() < self.settings.puts_max).then(|| *came + self.settings.flush_interval)
    }

    fn start_puts(&mut self) {
        while let Some(due) = self.due()
            && (!self.open || self.pending.bytes >= self.settings.flush_bytes || due <= Instant::now())
        {
            let group = self.pending.take_group(self.settings.flush_bytes);
            self.start_put(group);
        }
    }

    fn start_put(&mut self, group: Vec<Submission>) {
        let encoded = self.encode(&group);
        self.record(&group, encoded.len() as u64);
        let (number, bytes) = (self.number, encoded.len());
        self.number += 1;
        self.position += bytes as u64;
        self.in_flight.push_back(InFlight {
            waiters: group.into_iter().map(|submission| submission.waiter).collect(),
            bytes,
            end: self.position,
        });
        let shared = self.shared.clone();
        let put = async move {
            let begun = Instant::now();
            let put = put_group(&shared.store, &shared.keys, number, encoded).await;
            let sync_seconds = &shared.counts.measures.sync_seconds;
            sync_seconds.observe(begun.elapsed().as_secs_f64());
            put
        };
        self.puts.push_back(Box::pin(put));
    }

    fn encode(&self, group: &[Submission]) -> Bytes {
        let payload_len: usize = group.iter().map(|submission| submission.bytes).sum();
        let header = GroupHeader {
            wal_id: self.wal_id,
            number: self.number,
            position: self.position,
            durable_end: self.durable_end,
            payload_len: u32::try_from(payload_len).expect("a group is bounded by 64 MiB"),
            frame_count: u32::try_from(group.len()).expect("a frame takes more than one byte"),
        };
        let mut encoded = Vec::with_capacity(GROUP_HEADER_BYTES + payload_len);
        encoded.extend_from_slice(&header.encode());
        for submission in group {
            submission.frame.encode_into(&mut encoded);
        }
        encoded.into()
    }

    /// Notes what the object holds, before it can be there.
    fn record(&mut self, group: &[Submission], bytes: u64) {
        let mut coverage = self.shared.coverage();
        let full = self.part.objects >= PART_OBJECTS || self.part.bytes >= PART_BYTES;
        if self.number == 0 || full {
            coverage.begin_part(self.number, 0);
            self.part = Part::default();
        }
        self.part.objects += 1;
        self.part.bytes += bytes;
        coverage.set_bytes(self.part.bytes);
        for submission in group {
            coverage.record(&submission.frame);
        }
    }

    /// The oldest put has ended.
    fn settle(&mut self, result: Result<()>) {
        let put = self.in_flight.pop_front().expect("each put has its waiters");
        match result {
            Ok(()) => {
                self.durable_end = put.end;
                self.shared.stored_end.fetch_add(1, Ordering::Release);
                self.shared.counts.add_group(put.waiters.len(), put.bytes);
                put.waiters.into_iter().for_each(|waiter| waiter.answer(Ok(())));
            }
            Err(error) => {
                let reason = error.to_string();
                self.shared.failure.poison(reason.clone());
                self.in_flight.push_front(put);
                self.fail_all(&LogError::WalPoisoned { reason });
            }
        }
    }

    /// What is still on its way may arrive, behind a missing number or a seal: nobody is told that it has.
    fn fail_all(&mut self, error: &LogError) {
        self.puts = FuturesOrdered::new();
        let in_flight = self.in_flight.drain(..).flat_map(|put| put.waiters);
        let pending = std::mem::take(&mut self.pending).frames.into_iter();
        for waiter in in_flight.chain(pending.map(|(_, submission)| submission.waiter)) {
            waiter.answer(Err(error.clone()));
        }
    }
}

impl Pending {
    fn push(&mut self, submission: Submission) {
        self.bytes += submission.bytes;
        self.frames.push_back((Instant::now(), submission));
    }

    /// The first frame and those behind it that fit into one object with it.
    fn take_group(&mut self, bytes_max: usize) -> Vec<Submission> {
        let mut bytes = 0;
        let fits = self.frames.iter().take_while(|(_, submission)| {
            bytes += submission.bytes;
            bytes <= bytes_max
        });
        let count = fits.count().max(1);
        let group: Vec<Submission> = self.frames.drain(..count).map(|(_, submission)| submission).collect();
        self.bytes -= group.iter().map(|submission| submission.bytes).sum::<usize>();
        group
    }
}
