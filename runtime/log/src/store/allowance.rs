//! How long a request over HTTP may take.
//!
//! One time for every request would give up a large upload on a slow link again and again, or wait as long for a store that
//! is dead. So a request has a fixed time to be answered in, and on top what its body takes at a slow link's rate. From
//! then on the same holds for the body of the answer, for as much of it as has come. Each attempt has its own time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    ReqwestConnector,
};
use tokio::time::{Instant, Sleep, sleep, timeout};

/// How long a request without a body may take to be answered, and an answer until its first byte.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// The slowest link that is waited for, 1 Mbit/s: a segment of 64 MiB may take 10 minutes.
const BYTES_PER_SECOND: u64 = 125_000;

/// What a request may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    pub(super) answer_time: Duration,
    pub(super) bytes_per_second: u64,
}

impl Default for Allowance {
    fn default() -> Allowance {
        Allowance {
            answer_time: ANSWER_TIME,
            bytes_per_second: BYTES_PER_SECOND,
        }
    }
}

impl Allowance {
    fn of(&self, bytes: u64) -> Duration {
        self.answer_time + Duration::from_millis(bytes.saturating_mul(1_000) / self.bytes_per_second)
    }
}

// The clients that fetch credentials are made here too.
impl HttpConnector for Allowance {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.limit(ReqwestConnector::default().connect(options)?))
    }
}

impl Allowance {
    /// A client that gives up what takes longer than this.
    pub(super) fn limit(&self, client: HttpClient) -> HttpClient {
        HttpClient::new(Limited {
            client,
            allowance: *self,
        })
    }
}

#[derive(Debug)]
struct Limited {
    client: HttpClient,
    allowance: Allowance,
}

impl HttpService for Limited {
    fn call<'a, 'c>(&'a self, request: HttpRequest) -> BoxFuture<'c, Result<HttpResponse, HttpError>>
    where
        'a: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            let method = request.method().to_string();
            let bytes = request.body().content_length();
            let allowed = self.allowance.of(bytes as u64);
            let answered = timeout(allowed, self.client.execute(request)).await;
            let late = |_| timed_out(format!("{method} of {bytes} bytes was not answered within {allowed:?}"));
            let (head, body) = answered.map_err(late)??.into_parts();
            let body = LimitedBody {
                body,
                method,
                allowance: self.allowance,
                start: Instant::now(),
                bytes: 0,
                deadline: Box::pin(sleep(self.allowance.of(0))),
            };
            Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
        })
    }
}

/// The body of an answer, up to when it is too late.
struct LimitedBody {
    body: HttpResponseBody,
    method: String,
    allowance: Allowance,
    start: Instant,
    /// How many have come.
    bytes: u64,
    deadline: Pin<Box<Sleep>>,
}

impl Body for LimitedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        // First what is there: a reader that comes late is not the store's fault.
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            if let Some(Ok(frame)) = &frame {
                this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                let deadline = this.start + this.allowance.of(this.bytes);
                this.deadline.as_mut().reset(deadline);
            }
            return Poll::Ready(frame);
        }
        ready!(this.deadline.as_mut().poll(context));
        let (method, bytes, took) = (&this.method, this.bytes, this.start.elapsed());
        let late = timed_out(format!(
            "of the answer to {method} only {bytes} bytes came within {took:?}"
        ));
        Poll::Ready(Some(Err(late)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn timed_out(what: String) -> HttpError {
    HttpError::new(HttpErrorKind::Timeout, io::Error::new(io::ErrorKind::TimedOut, what))
}
