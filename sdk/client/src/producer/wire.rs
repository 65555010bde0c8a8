//! Requests of a `ProduceStream` call as they go out. A batch is most of its request, and is sent from where it lies: in the
//! generated types it would be copied twice more, into one piece with its header and into the message.

use std::{
    convert::Infallible,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use millstream_batch::{Batch, HEADER_BYTES};
use millstream_proto::v1;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use tokio::sync::mpsc;
use tonic::{
    body::Body,
    codegen::{Service, http},
    transport::Channel,
};

/// `ProduceStreamRequest.produce` and `ProduceRequest.batch`.
const PRODUCE_TAG: u32 = 1;
const BATCH_TAG: u32 = 3;
/// Before every gRPC message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Records of fewer bytes are copied: a frame of their own costs more.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// What a `v1::ProduceStreamRequest` with a batch says.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) topic: Arc<str>,
    pub(super) partition: u32,
    pub(super) acks: v1::Acks,
    pub(super) batch: Batch,
}

impl Request {
    /// The message with its prefix; where the records are many they are left out of it, and follow.
    fn encode(&self) -> (Bytes, Option<Bytes>) {
        let rest = v1::ProduceRequest {
            topic: self.topic.to_string(),
            partition: self.partition,
            payload: None,
            acks: self.acks.into(),
        };
        let records = self.batch.records();
        let batch_bytes = (HEADER_BYTES + records.len()) as u64;
        let produce_bytes =
            (rest.encoded_len() + key_len(BATCH_TAG) + encoded_len_varint(batch_bytes)) as u64 + batch_bytes;
        let message_bytes = (key_len(PRODUCE_TAG) + encoded_len_varint(produce_bytes)) as u64 + produce_bytes;
        let is_copied = records.len() < COPIED_BYTES_MAX;
        let apart = if is_copied { 0 } else { records.len() };

        let mut message = BytesMut::with_capacity(PREFIX_BYTES + message_bytes as usize - apart);
        message.put_u8(0);
        // A batch is bounded by 16 MiB.
        message.put_u32(message_bytes as u32);
        encode_key(PRODUCE_TAG, WireType::LengthDelimited, &mut message);
        encode_varint(produce_bytes, &mut message);
        rest.encode_raw(&mut message);
        encode_key(BATCH_TAG, WireType::LengthDelimited, &mut message);
        encode_varint(batch_bytes, &mut message);
        message.put_slice(&self.batch.encode_header());
        if is_copied {
            message.put_slice(records);
        }
        (message.freeze(), (!is_copied).then(|| records.clone()))
    }
}

/// The body of a call: the requests of a queue.
struct Requests {
    queue: mpsc::UnboundedReceiver<Request>,
    /// The records of the request that was begun.
    records: Option<Bytes>,
}

impl http_body::Body for Requests {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        let data = match self.records.take() {
            Some(records) => records,
            None => {
                let Some(request) = ready!(self.queue.poll_recv(context)) else {
                    return Poll::Ready(None);
                };
                let (message, records) = request.encode();
                self.records = records;
                message
            }
        };
        Poll::Ready(Some(Ok(http_body::Frame::data(data))))
    }
}

/// A channel whose next call has the requests of a queue for its body, in place of those that the generated client was given.
pub(super) struct Queued {
    channel: Channel,
    body: Body,
}

impl Queued {
    pub(super) fn new(channel: Channel, queue: mpsc::UnboundedReceiver<Request>) -> Queued {
        Queued {
            channel,
            body: Body::new(Requests { queue, records: None }),
        }
    }
}

impl Service<http::Request<Body>> for Queued {
    type Response = <Channel as Service<http::Request<Body>>>::Response;
    type Error = <Channel as Service<http::Request<Body>>>::Error;
    type Future = <Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let body = mem::take(&mut self.body);
        self.channel.call(request.map(|_| body))
    }
}

#[cfg(test)]
mod tests {
    use millstream_batch::{BatchBuilder, Compression};

    use super::*;

    fn batch(value_bytes: usize) -> Batch {
        let mut builder = BatchBuilder::new();
        builder.push(7, Some(b"key"), Some(&vec![b'x'; value_bytes]), std::iter::empty());
        builder.build(Compression::None).with_producer(9, 1, 3)
    }

    #[test]
    fn a_request_is_read_as_the_one_of_the_contract() {
        for (topic, partition, value_bytes) in [
            ("t", 0, 0),
            ("a-longer.name", 1, COPIED_BYTES_MAX / 2),
            ("t", 300, COPIED_BYTES_MAX),
            ("t", u32::MAX, 3 << 20),
        ] {
            let request = Request {
                topic: topic.into(),
                partition,
                acks: v1::Acks::Memory,
                batch: batch(value_bytes),
            };
            let (message, records) = request.encode();
            assert_eq!(records.is_some(), value_bytes >= COPIED_BYTES_MAX);
            let mut sent = message.to_vec();
            sent.extend_from_slice(&records.unwrap_or_default());
            let (prefix, body) = sent.split_at(PREFIX_BYTES);
            assert_eq!(prefix[0], 0);
            assert_eq!(prefix[1..], (body.len() as u32).to_be_bytes());
            let read = v1::ProduceStreamRequest::decode(body).unwrap();
            let expected = v1::ProduceRequest {
                topic: topic.to_owned(),
                partition,
                payload: Some(v1::produce_request::Payload::Batch(request.batch.to_bytes())),
                acks: v1::Acks::Memory.into(),
            };
            assert_eq!(read.produce, Some(expected));
        }
    }
}
