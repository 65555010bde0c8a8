//! Calls of any bytes, without a generated client, and their answers.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http_body::{Body as _, Frame};
use tokio::time::timeout;
use tonic::{
    Code, Status, body,
    codegen::{Service as _, http},
    transport::Channel,
};

/// Before each message: whether it is compressed, and its length.
pub const PREFIX_BYTES: usize = 5;

/// What a client sends: pieces of frames.
#[derive(Clone, Debug)]
pub struct Body {
    /// As they are sent.
    pub pieces: Vec<Bytes>,
    /// What it says of its compression.
    pub encoding: Option<&'static str>,
}

impl Body {
    /// These messages, each in a frame and a piece of its own.
    pub fn of(messages: impl IntoIterator<Item = Vec<u8>>) -> Body {
        Body {
            pieces: messages.into_iter().map(|message| frame(0, &message).into()).collect(),
            encoding: None,
        }
    }
}

/// A message behind its prefix.
pub fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![flag];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

/// How a call ended.
#[derive(Debug)]
pub enum Ending {
    /// With a status, whichever.
    Answered {
        /// What it says.
        status: Status,
        /// The encoded messages before it.
        messages: Vec<Bytes>,
    },
    /// Not in time.
    Silent,
    /// The transport failed, or what came was no answer.
    Broken(String),
}

impl Ending {
    /// Whether it succeeded.
    pub fn is_ok(&self) -> bool {
        matches!(self, Ending::Answered { status, .. } if status.code() == Code::Ok)
    }

    /// The status of an answer.
    ///
    /// # Panics
    /// Where there is none.
    #[track_caller]
    pub fn status(self) -> Status {
        match self {
            Ending::Answered { status, .. } => status,
            other => panic!("{other:?}"),
        }
    }
}

/// Calls what stands at a path, and waits no longer than `patience`.
pub async fn call(channel: Channel, path: &str, body: &Body, patience: Duration) -> Ending {
    match timeout(patience, exchange(channel, path, body)).await {
        Ok(Ok(ending)) => ending,
        Ok(Err(broken)) => Ending::Broken(broken),
        Err(_) => Ending::Silent,
    }
}

async fn exchange(mut channel: Channel, path: &str, body: &Body) -> Result<Ending, String> {
    let mut request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(encoding) = body.encoding {
        request = request.header("grpc-encoding", encoding);
    }
    let pieces = Pieces(body.pieces.iter().cloned().collect());
    let request = request.body(body::Body::new(pieces));
    let request = request.map_err(|error| error.to_string())?;
    let ready = poll_fn(|cx| channel.poll_ready(cx)).await;
    ready.map_err(|error| format!("{error:?}"))?;
    let response = channel.call(request).await.map_err(|error| format!("{error:?}"))?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("the answer has the HTTP status {}", response.status()));
    }
    let (head, mut body) = response.into_parts();
    let (mut bytes, mut trailers) = (Vec::new(), head.headers);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.map_err(|error| format!("{error:?}"))?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    let status = Status::from_header_map(&trailers).ok_or("the answer has no status")?;
    let messages = messages(bytes.into())?;
    Ok(Ending::Answered { status, messages })
}

/// The messages of an answer, none of which is compressed.
fn messages(mut bytes: Bytes) -> Result<Vec<Bytes>, String> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        if bytes.len() < PREFIX_BYTES || bytes.get_u8() != 0 {
            return Err("the answer is not framed".to_owned());
        }
        let length = bytes.get_u32() as usize;
        if bytes.len() < length {
            return Err("the answer is cut short".to_owned());
        }
        messages.push(bytes.split_to(length));
    }
    Ok(messages)
}

/// Sends pieces as they are.
struct Pieces(VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}
