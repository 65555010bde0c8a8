//! `ProduceStream`: many batches under way over one call, answered in their order.
//!
//! ```text
//! requests -> submitting (one) -> partitions' queues -> answers (in order) -> the transport
//! ```
//!
//! The transport drives it: it asks for the next answer only while it has room for one. So a client that does not read its
//! answers is not read either, and what it holds stays below the bounds here. A message's bytes are charged until its
//! partition has answered, also where the client has gone away by then.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture};
use millstream_broker::{Broker, StreamOrder, Submitted};
use millstream_proto::v1::{self, produce_stream_response::Result as Answer};
use prost::Message as _;
use tonic::{Code, Request, Status, Streaming};

use super::{
    Api,
    bounds::{Bounds, Charge},
    charged::{LastFrame, charged},
    compression::Compressed,
    producer::{Wanted, produced_message},
    status::{Refusal, of_transport},
    stopping,
};

/// Batches of one stream that are not answered yet.
const BATCHES_MAX: usize = 256;
/// Their bytes, where there is more than one.
const BYTES_MAX: usize = 32 << 20;
/// Partitions that one stream may write to.
const PARTITIONS_MAX: usize = 10_000;
/// Before the length of a message there is one byte, and the length takes four.
const MESSAGE_HEADER_BYTES: usize = 5;

/// How long an agent takes to start again, at the least.
const STOPPING_RETRY_MS: u32 = 500;

/// One call.
pub(super) struct ProduceStream {
    broker: Arc<Broker>,
    bounds: Arc<Bounds>,
    requests: Streaming<v1::ProduceStreamRequest>,
    charge: Arc<Charge>,
    last_frame: Arc<LastFrame>,
    is_compressed: bool,
    stopping: BoxFuture<'static, ()>,
    /// By topic and partition.
    orders: HashMap<String, HashMap<u32, StreamOrder>>,
    order_count: usize,
    /// The request that is on its way into a queue; those behind it wait.
    submitting: Option<(usize, BoxFuture<'static, Result<Submitted, Refusal>>)>,
    /// Those that are answered next, in their order, with the bytes of each.
    waiting: VecDeque<(usize, Waiting)>,
    waiting_bytes: usize,
    answered: u64,
    /// Why no more requests are read: `Ok` where the client has ended its side.
    ended: Option<Result<(), Status>>,
    /// An answer has been given since the transport last heard that there is no other one yet.
    unsent: bool,
}

/// A request that is not answered yet.
enum Waiting {
    Submitted(Submitted),
    /// `None` once it was told.
    Refused(Option<Refusal>),
}

impl Waiting {
    fn refused(refusal: Refusal) -> Waiting {
        Waiting::Refused(Some(refusal))
    }
}

impl ProduceStream {
    pub(super) fn new(api: &Api, request: Request<Streaming<v1::ProduceStreamRequest>>) -> ProduceStream {
        let (charge, last_frame) = charged(&request);
        let is_compressed = request.extensions().get::<Compressed>().is_some();
        let requests = request.into_inner();
        ProduceStream {
            broker: api.broker.clone(),
            bounds: api.bounds.clone(),
            requests,
            charge,
            last_frame,
            is_compressed,
            stopping: stopping(api.stop.clone()).boxed(),
            orders: HashMap::new(),
            order_count: 0,
            submitting: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            answered: 0,
            ended: None,
            unsent: false,
        }
    }

    /// The answer that comes next, where it is there.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<v1::ProduceStreamResponse> {
        let Some((bytes, waiting)) = self.waiting.front_mut() else {
            return Poll::Pending;
        };
        let result = match waiting {
            Waiting::Submitted(submitted) => match submitted.poll_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => result.map_err(Refusal::from),
            },
            Waiting::Refused(refusal) => match refusal.take() {
                Some(refusal) => Err(refusal),
                None => return Poll::Pending,
            },
        };
        self.waiting_bytes -= *bytes;
        self.waiting.pop_front();
        if result.as_ref().is_err_and(Refusal::is_exhausted) {
            self.bounds.count_refused();
        }
        let answer = v1::ProduceStreamResponse {
            request_index: self.answered,
            result: Some(match result {
                Ok(receipt) => Answer::Produced(produced_message(receipt)),
                Err(refusal) => Answer::Error(refusal.message()),
            }),
        };
        self.answered += 1;
        Poll::Ready(answer)
    }

    /// Takes in what there is, as much as has room.
    fn poll_requests(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some((bytes, submitting)) = &mut self.submitting {
                let Poll::Ready(submitted) = submitting.poll_unpin(cx) else {
                    return;
                };
                let bytes = *bytes;
                self.submitting = None;
                self.wait_for(bytes, submitted.map_or_else(Waiting::refused, Waiting::Submitted));
            }
            let full = self.waiting.len() >= BATCHES_MAX || self.waiting_bytes >= BYTES_MAX;
            if full || self.ended.is_some() {
                return;
            }
            match self.requests.poll_next_unpin(cx) {
                Poll::Pending => return,
                Poll::Ready(None) => self.ended = Some(Ok(())),
                Poll::Ready(Some(Err(status))) => self.ended = Some(Err(of_transport(status))),
                Poll::Ready(Some(Ok(request))) => self.take(request),
            }
        }
    }

    fn take(&mut self, request: v1::ProduceStreamRequest) {
        let bytes = request.encoded_len() + MESSAGE_HEADER_BYTES;
        let charge = Arc::new(self.charge.split(bytes, self.last_frame.bytes()));
        let wanted = request.produce.ok_or_else(|| Refusal::missing("produce"));
        let wanted = wanted.and_then(Wanted::of).and_then(|wanted| {
            let order = self.order(&wanted)?;
            Ok((wanted, order))
        });
        let (wanted, order) = match wanted {
            Ok(wanted) => wanted,
            Err(refusal) => return self.wait_for(0, Waiting::refused(refusal)),
        };
        // While it arrived only its bytes on the wire were charged.
        if self.is_compressed
            && let Err(full) = charge.add(bytes)
        {
            order.break_off();
            let refusal = Refusal::exhausted("REQUESTS_FULL", full.to_string());
            return self.wait_for(0, Waiting::refused(refusal));
        }
        let broker = self.broker.clone();
        let submitting = async move {
            let Wanted {
                topic,
                partition,
                batch,
                acks,
            } = wanted;
            let submitted = broker.submit(&topic, partition, batch, acks, &order, charge).await;
            match submitted {
                Ok(submitted) => Ok(submitted),
                Err(error) => Err(Refusal::from(broker.with_nearest_name(error).await)),
            }
        };
        self.submitting = Some((bytes, submitting.boxed()));
    }

    fn wait_for(&mut self, bytes: usize, waiting: Waiting) {
        self.waiting_bytes += bytes;
        self.waiting.push_back((bytes, waiting));
    }

    /// What keeps the requests for one partition in their order.
    fn order(&mut self, wanted: &Wanted) -> Result<StreamOrder, Refusal> {
        let known = self.orders.get(&wanted.topic).and_then(|of| of.get(&wanted.partition));
        if let Some(order) = known {
            return Ok(order.clone());
        }
        if self.order_count == PARTITIONS_MAX {
            let message = format!("one stream writes to {PARTITIONS_MAX} partitions at most: open another one");
            return Err(Refusal::invalid("PARTITIONS_TOO_MANY", message));
        }
        self.order_count += 1;
        let of_topic = self.orders.entry(wanted.topic.clone()).or_default();
        Ok(of_topic.entry(wanted.partition).or_default().clone())
    }
}

impl Stream for ProduceStream {
    type Item = Result<v1::ProduceStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Poll::Ready(answer) = this.poll_answer(cx) {
            this.unsent = true;
            return Poll::Ready(Some(Ok(answer)));
        }
        if std::mem::take(&mut this.unsent) {
            // What was answered leaves before anything else is taken in.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.ended.is_none() && this.stopping.poll_unpin(cx).is_ready() {
            let refusal = Refusal::new(Code::Unavailable, "AGENT_STOPPING", "the agent is stopping");
            this.ended = Some(Err(refusal.retry_after(STOPPING_RETRY_MS).into()));
        }
        this.poll_requests(cx);
        // Some are answered at once.
        if let Poll::Ready(answer) = this.poll_answer(cx) {
            this.unsent = true;
            return Poll::Ready(Some(Ok(answer)));
        }
        if this.submitting.is_some() || !this.waiting.is_empty() {
            return Poll::Pending;
        }
        match this.ended.take() {
            None => Poll::Pending,
            Some(Ok(())) => {
                this.ended = Some(Ok(()));
                Poll::Ready(None)
            }
            Some(Err(status)) => {
                this.ended = Some(Ok(()));
                Poll::Ready(Some(Err(status)))
            }
        }
    }
}
