//! Every request's bytes are charged while they arrive, and given back when its answer is out.
//!
//! ```text
//! frames -> Arriving (charges each) -> service -> Leaving -> frames that hold the charge, and a fetch's room
//! ```
//!
//! The transport takes an answer out of its body long before a slow reader has room for it. So every frame's bytes hold the
//! charge themselves, and give it back when the transport lets go of them.
//!
//! At a bound the request is answered `RESOURCE_EXHAUSTED` with a hint when to come again, before more of it is read. A
//! request that is cancelled drops its body and its answer, and the charge with them.
//!
//! Calls whose requests come one after the other wait at a bound instead of being refused, and whoever answers takes each
//! message's part out of the charge (`Charge::split`), to give it back when that message is answered.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use millstream_broker::Room;
use tokio::time::{Sleep, sleep};
use tonic::{
    Code, Request, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::NamedService,
};

use super::{
    bounds::{Bounds, Charge, ConnectionBudget, Unsent},
    compression::{Compressed, is_compressed, only_where_asked},
    status::{exhausted, of_transport, unknown},
    whole::Answers,
};

/// The calls whose requests come one after the other.
const STREAMS: [&str; 2] = [
    "/millstream.v1.ProducerService/ProduceStream",
    "/millstream.v1.ConsumerService/Subscribe",
];

/// How long one that goes beyond the bounds may take to send the rest of its message, while the others wait.
const REST_PATIENCE: Duration = Duration::from_secs(10);

/// A service whose requests are charged.
#[derive(Clone)]
pub(super) struct Charged<S> {
    inner: S,
    bounds: Arc<Bounds>,
}

impl<S> Charged<S> {
    pub(super) fn new(inner: S, bounds: &Arc<Bounds>) -> Charged<S> {
        Charged {
            inner,
            bounds: bounds.clone(),
        }
    }
}

impl<S: NamedService> NamedService for Charged<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Charged<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let connection = request.extensions().get::<ConnectionBudget>();
        let charge = self
            .bounds
            .charge(connection.expect("every connection is made with a budget"));
        let uri = request.uri().clone();
        let streams = STREAMS.contains(&uri.path());
        let last_frame = Arc::<LastFrame>::default();
        let mut request = request.map(|body| match streams {
            true => Body::new(Flowing::new(body, charge.clone(), last_frame.clone())),
            false => Body::new(Arriving {
                body,
                charge: charge.clone(),
            }),
        });
        request.extensions_mut().insert(charge.clone());
        request.extensions_mut().insert(last_frame);
        if is_compressed(request.headers()) {
            request.extensions_mut().insert(Compressed);
        }
        only_where_asked(request.headers_mut());
        let answer = self.inner.call(request);
        let bounds = self.bounds.clone();
        Box::pin(async move {
            let mut response = in_our_words(answer.await?, &uri);
            if is_refusal(&response) {
                bounds.count_refused();
            }
            let room = response.extensions_mut().remove::<Room>();
            let rooms = response.extensions_mut().remove::<Arc<LeavingRooms>>();
            let answers = response.extensions_mut().remove::<Answers>();
            Ok(response.map(|body| {
                Body::new(Leaving {
                    body: answers.map_or(body, Answers::into_body),
                    charge,
                    room,
                    rooms,
                })
            }))
        })
    }
}

/// An answer that is an error as a whole, because the transport could not read the request, says so as all others do.
fn in_our_words(response: http::Response<Body>, uri: &http::Uri) -> http::Response<Body> {
    match Status::from_header_map(response.headers()) {
        // Of a method that a service does not have it says nothing at all.
        Some(status) if status.code() == Code::Unimplemented && status.message().is_empty() => {
            Status::from(unknown("METHOD_UNKNOWN", "method", uri)).into_http()
        }
        Some(status) if status.code() != Code::Ok && status.details().is_empty() => of_transport(status).into_http(),
        _ => response,
    }
}

/// Whether a bound was met; an answer that is an error has its code in the headers.
fn is_refusal(response: &http::Response<Body>) -> bool {
    let code = response.headers().get(Status::GRPC_STATUS);
    code.is_some_and(|code| Code::from_bytes(code.as_bytes()) == Code::ResourceExhausted)
}

/// The body of a request.
struct Arriving {
    body: Body,
    charge: Arc<Charge>,
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)?) else {
            return Poll::Ready(None);
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        Poll::Ready(Some(match self.charge.add(bytes) {
            Ok(()) => Ok(frame),
            Err(full) => Err(exhausted("REQUESTS_FULL", &full.to_string())),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long the last frame was that a stream was given: no more of what has arrived belongs to the next message.
#[derive(Debug, Default)]
pub(super) struct LastFrame(AtomicUsize);

impl LastFrame {
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// What a request was charged, and how long its last frame was.
pub(super) fn charged<T>(request: &Request<T>) -> (Arc<Charge>, Arc<LastFrame>) {
    let charge = request.extensions().get::<Arc<Charge>>().cloned();
    let last_frame = request.extensions().get::<Arc<LastFrame>>().cloned();
    (
        charge.expect("every request is charged"),
        last_frame.expect("every request is charged"),
    )
}

type Charging = Pin<Box<dyn Future<Output = Frame<Bytes>> + Send>>;

/// The body of a call whose requests come one after the other.
struct Flowing {
    body: Body,
    charge: Arc<Charge>,
    last_frame: Arc<LastFrame>,
    /// A frame that waits for room.
    charging: Option<Charging>,
    /// Until when the rest of a message has to come that goes beyond the bounds.
    rest: Option<Pin<Box<Sleep>>>,
}

impl Flowing {
    fn new(body: Body, charge: Arc<Charge>, last_frame: Arc<LastFrame>) -> Flowing {
        Flowing {
            body,
            charge,
            last_frame,
            charging: None,
            rest: None,
        }
    }

    /// Whether others have waited long enough for the rest of a message.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.charge.is_beyond() {
            self.rest = None;
            return false;
        }
        let rest = self.rest.get_or_insert_with(|| Box::pin(sleep(REST_PATIENCE)));
        rest.as_mut().poll(cx).is_ready()
    }
}

impl http_body::Body for Flowing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.poll_late(cx) {
            let message = "the rest of a message did not come in time, while others wait for room: send it again";
            return Poll::Ready(Some(Err(exhausted("REQUESTS_FULL", message))));
        }
        if self.charging.is_none() {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)?) else {
                return Poll::Ready(None);
            };
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.last_frame.0.store(bytes, Ordering::Release);
            if bytes == 0 || self.charge.add(bytes).is_ok() {
                return Poll::Ready(Some(Ok(frame)));
            }
            let charge = self.charge.clone();
            self.charging = Some(Box::pin(async move {
                charge.add_when_free(bytes).await;
                frame
            }));
        }
        let charging = self.charging.as_mut().expect("it was set just now");
        let frame = ready!(charging.as_mut().poll(cx));
        self.charging = None;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.charging.is_none() && self.body.is_end_stream()
    }
}

/// The body of an answer.
struct Leaving {
    body: Body,
    charge: Arc<Charge>,
    /// That of the one answer.
    room: Option<Room>,
    /// Those of many.
    rooms: Option<Arc<LeavingRooms>>,
}

/// The rooms of answers that are in the next frame of a stream of them.
#[derive(Debug, Default)]
pub(super) struct LeavingRooms(Mutex<Vec<Room>>);

impl LeavingRooms {
    /// The next frame holds it until it is sent.
    pub(super) fn push(&self, room: Room) {
        self.lock().push(room);
    }

    fn take(&self) -> Vec<Room> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Room>> {
        // Nothing panics while it holds this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of an answer, and what they hold until they are sent.
struct Held {
    bytes: Bytes,
    _unsent: Unsent,
    _room: Option<Room>,
    _rooms: Vec<Room>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl http_body::Body for Leaving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)?);
        let hold = |bytes| {
            Bytes::from_owner(Held {
                bytes,
                _unsent: Unsent::new(&self.charge),
                _room: self.room.clone(),
                _rooms: self.rooms.as_ref().map_or_else(Vec::new, |rooms| rooms.take()),
            })
        };
        Poll::Ready(frame.map(|frame| Ok(frame.map_data(hold))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::poll_fn};

    use http_body::Body as _;
    use tonic::Code;

    use super::*;

    /// Frames of ten bytes, and then no more, or no end.
    struct Frames {
        left: usize,
        ends: bool,
    }

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            match self.left {
                0 if self.ends => Poll::Ready(None),
                0 => Poll::Pending,
                _ => {
                    self.left -= 1;
                    Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"ten bytes.")))))
                }
            }
        }
    }

    /// Reads a request to its end; the answer is as long as the request.
    #[derive(Clone)]
    struct Echo;

    impl Service<http::Request<Body>> for Echo {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<http::Response<Body>, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            Box::pin(async move {
                Ok(match frames(request.into_body()).await {
                    Ok(left) => http::Response::new(Body::new(Frames { left, ends: true })),
                    Err(status) => status.into_http(),
                })
            })
        }
    }

    async fn frames(mut body: Body) -> Result<usize, Status> {
        let mut count = 0;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            frame?;
            count += 1;
        }
        Ok(count)
    }

    fn request(bounds: &Bounds, frames: usize, ends: bool) -> http::Request<Body> {
        let mut request = http::Request::new(Body::new(Frames { left: frames, ends }));
        request.extensions_mut().insert(bounds.connection());
        request
    }

    #[tokio::test]
    async fn a_request_is_charged_until_its_answer_is_out() {
        let bounds = Bounds::new(1, 100, 100);
        let mut service = Charged::new(Echo, &bounds);
        let answer = service.call(request(&bounds, 7, true)).await.unwrap();
        assert_eq!(bounds.request_bytes(), 70);
        assert_eq!(frames(answer.into_body()).await.unwrap(), 7);
        assert_eq!(bounds.request_bytes(), 0);
    }

    #[tokio::test]
    async fn a_frame_that_is_not_sent_holds_the_charge_of_its_request() {
        let bounds = Bounds::new(1, 100, 100);
        let mut service = Charged::new(Echo, &bounds);
        let request = request(&bounds, 2, true);
        let connection = request.extensions().get::<ConnectionBudget>().unwrap().clone();
        let mut body = service.call(request).await.unwrap().into_body();
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.unwrap().unwrap();
        drop(body);
        assert_eq!(bounds.request_bytes(), 20);
        // Part of a frame is as good as all of it.
        let rest = frame.into_data().unwrap().slice(9..);
        assert_eq!((&rest[..], bounds.request_bytes()), (&b"."[..], 20));
        assert!(connection.has_unsent());
        drop(rest);
        assert_eq!(bounds.request_bytes(), 0);
        assert!(!connection.has_unsent());
    }

    #[tokio::test]
    async fn a_request_that_passes_a_bound_is_refused_and_the_others_go_on() {
        let bounds = Bounds::new(1, 100, 150);
        let mut service = Charged::new(Echo, &bounds);
        let held = service.call(request(&bounds, 10, true)).await.unwrap();
        let refused = service.call(request(&bounds, 6, true)).await.unwrap();
        let status = Status::from_header_map(refused.headers()).unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains("100 of 150") || status.message().contains("150 of 150"));
        let hint = tonic_types::StatusExt::get_details_retry_info(&status).unwrap();
        assert!(hint.retry_delay.is_some());
        drop(refused);
        assert_eq!((bounds.request_bytes(), bounds.refused()), (100, 1));
        drop(held);
        service.call(request(&bounds, 6, true)).await.unwrap();
        assert_eq!(bounds.request_bytes(), 0);
    }

    #[tokio::test]
    async fn a_request_that_is_cancelled_gives_back_what_had_arrived() {
        let bounds = Bounds::new(1, 100, 100);
        let mut service = Charged::new(Echo, &bounds);
        let mut call = service.call(request(&bounds, 5, false));
        assert!(futures::poll!(&mut call).is_pending());
        assert_eq!(bounds.request_bytes(), 50);
        drop(call);
        assert_eq!(bounds.request_bytes(), 0);
    }
}
