//! Stores that answer late, in pieces, or not at all.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use http_body::{Body, Frame};
use object_store::client::{HttpClient, HttpError, HttpRequest, HttpResponse, HttpResponseBody, HttpService};
use tokio::net::TcpListener;
use tokio::time::{Instant, Sleep, sleep};

use super::super::allowance::Allowance;
use super::super::s3;
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Answers after a while, with pieces that come one after the other, each a while after the one before.
#[derive(Debug, Clone)]
struct SlowService {
    answers_after: Duration,
    pieces: VecDeque<(Duration, usize)>,
}

impl HttpService for SlowService {
    fn call<'a, 'c>(&'a self, _: HttpRequest) -> BoxFuture<'c, std::result::Result<HttpResponse, HttpError>>
    where
        'a: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            sleep(self.answers_after).await;
            let pieces = self.pieces.clone();
            let pause = Box::pin(sleep(pieces.front().map_or(Duration::ZERO, |(pause, _)| *pause)));
            Ok(HttpResponse::new(HttpResponseBody::new(SlowBody { pieces, pause })))
        })
    }
}

struct SlowBody {
    pieces: VecDeque<(Duration, usize)>,
    pause: Pin<Box<Sleep>>,
}

impl Body for SlowBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, HttpError>>> {
        if self.pieces.is_empty() {
            return Poll::Ready(None);
        }
        ready!(self.pause.as_mut().poll(context));
        let (_, bytes) = self.pieces.pop_front().unwrap();
        if let Some((pause, _)) = self.pieces.front().copied() {
            self.pause.as_mut().reset(Instant::now() + pause);
        }
        Poll::Ready(Some(Ok(Frame::data(vec![0; bytes].into()))))
    }
}

/// What comes of a request with so many bytes, and when.
async fn request(bytes: usize, service: SlowService) -> (std::result::Result<usize, String>, Duration) {
    let mut request = HttpRequest::new(vec![0; bytes].into());
    *request.method_mut() = "PUT".parse().unwrap();
    let client = Allowance::default().limit(HttpClient::new(service));
    let start = Instant::now();
    let answer = async move { client.execute(request).await?.into_body().bytes().await };
    let answer = answer.await.map(|body| body.len()).map_err(|error| error.to_string());
    (answer, start.elapsed())
}

fn answering_after(answers_after: Duration) -> SlowService {
    SlowService {
        answers_after,
        pieces: VecDeque::new(),
    }
}

fn sending(pieces: &[(Duration, usize)]) -> SlowService {
    SlowService {
        answers_after: Duration::ZERO,
        pieces: pieces.iter().copied().collect(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_upload_may_take_as_long_as_its_bytes_do_on_a_slow_link() {
    let (answer, took) = request(64 << 20, answering_after(9 * MINUTE)).await;
    assert_eq!((answer, took), (Ok(0), 9 * MINUTE));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_never_answered_says_what_took_too_long() {
    let (answer, took) = request(0, answering_after(60 * MINUTE)).await;
    assert!(
        answer
            .unwrap_err()
            .contains("PUT of 0 bytes was not answered within 60s")
    );
    assert_eq!(took, MINUTE);
    let (answer, took) = request(1_250_000, answering_after(60 * MINUTE)).await;
    assert!(
        answer
            .unwrap_err()
            .contains("PUT of 1250000 bytes was not answered within 70s")
    );
    assert_eq!(took.as_secs(), 70);
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_come_as_slowly_as_the_slowest_link_and_no_slower() {
    let pieces = [(MINUTE / 2, 60 * 125_000); 20];
    let (answer, took) = request(0, sending(&pieces)).await;
    assert_eq!((answer, took), (Ok(20 * 60 * 125_000), 10 * MINUTE));

    // One byte now and then keeps nobody waiting for ever.
    let pieces = [(MINUTE / 2, 1); 20];
    let (answer, took) = request(0, sending(&pieces)).await;
    assert!(answer.unwrap_err().contains("of the answer to PUT only"));
    assert_eq!(took.as_secs(), 60);
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_an_error_that_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = S3Settings {
        bucket: "silent".into(),
        endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
        access_key_id: Some("a".into()),
        secret_access_key: Some("b".into()),
        path_style: true,
        ..S3Settings::default()
    };
    let silent = tokio::spawn(async move {
        let mut connections = Vec::new();
        loop {
            connections.push(listener.accept().await);
        }
    });
    let allowance = Allowance {
        answer_time: Duration::from_millis(100),
        ..Allowance::default()
    };
    let store = Store::over(s3::open(&settings, allowance).unwrap());
    let put = store.put_new("a/b", vec![Bytes::from_static(b"unheard")]).await;
    let refused = [
        (put.map(|_| ()), "PUT of 7 bytes"),
        (store.get("a/b").await.map(|_| ()), "GET of 0 bytes"),
        (store.get_range("a/b", 0..4).await.map(|_| ()), "GET of 0 bytes"),
        (store.list("a").await.map(|_| ()), "GET of 0 bytes"),
        (store.delete("a/b").await, "POST of"),
    ];
    for (answer, what) in refused {
        let error = answer.unwrap_err();
        assert!(matches!(error, LogError::Store { .. }), "{error}");
        let says = error.to_string();
        assert!(
            says.contains(what) && says.contains("was not answered within 10"),
            "{says}"
        );
    }
    silent.abort();
}
