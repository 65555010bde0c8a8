//! Answers with whole batches, sent from where the batches lie: in the generated types each would be copied twice, into one
//! piece with its header and into the message.
//!
//! ```text
//! handler --Answers in the response's extensions, and no message--> `Charged` --Answers as the body--> transport
//! ```
//!
//! Answers that are compressed on the wire, and those of plain records, go the generated way.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{Stream, StreamExt as _, stream::BoxStream};
use http_body::Frame;
use millstream_batch::Batch;
use millstream_broker::Room;
use millstream_proto::v1;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use tonic::{Response, Status, body::Body, codegen::http::HeaderMap};

/// `FetchResponse.partitions`, `SubscribeResponse.fetched` and `FetchedPartition.batches`.
pub(super) const PARTITIONS_TAG: u32 = 1;
pub(super) const FETCHED_TAG: u32 = 1;
const BATCHES_TAG: u32 = 4;
/// Before every gRPC message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Records of fewer bytes are copied. They are part of a block, all of which they would hold for as long as a slow client takes,
/// while the answer is charged for them alone.
const COPIED_BYTES_MAX: usize = 256 << 10;

/// A part of an answer: what was read of one partition.
#[derive(Debug)]
pub(super) struct Part {
    /// All but the batches.
    pub(super) told: v1::FetchedPartition,
    pub(super) batches: Vec<Batch>,
}

impl Part {
    /// Encoded bytes of the batches.
    pub(super) fn batch_bytes(&self) -> usize {
        self.batches.iter().map(Batch::encoded_len).sum()
    }

    /// As the generated type has it: a copy.
    pub(super) fn joined(self) -> v1::FetchedPartition {
        let mut joined = BytesMut::with_capacity(self.batch_bytes());
        self.batches.iter().for_each(|batch| batch.encode_into(&mut joined));
        v1::FetchedPartition {
            batches: joined.freeze(),
            ..self.told
        }
    }

    /// Its bytes as a field of a message, but for the tag and the length.
    fn field_bytes(&self) -> usize {
        let batches = match self.batch_bytes() {
            0 => 0,
            bytes => key_len(BATCHES_TAG) + encoded_len_varint(bytes as u64) + bytes,
        };
        self.told.encoded_len() + batches
    }

    fn encode(&self, tag: u32, pieces: &mut Pieces) {
        encode_key(tag, WireType::LengthDelimited, &mut pieces.open);
        encode_varint(self.field_bytes() as u64, &mut pieces.open);
        self.told.encode_raw(&mut pieces.open);
        if self.batches.is_empty() {
            return;
        }
        encode_key(BATCHES_TAG, WireType::LengthDelimited, &mut pieces.open);
        encode_varint(self.batch_bytes() as u64, &mut pieces.open);
        for batch in &self.batches {
            pieces.open.put_slice(&batch.encode_header());
            pieces.put(batch.records());
        }
    }
}

/// One message.
#[derive(Debug)]
pub(super) struct Answer<M> {
    /// All but the parts.
    pub(super) rest: M,
    pub(super) parts: Vec<Part>,
    /// What the parts hold of the memory for answers.
    pub(super) room: Option<Room>,
}

impl<M: Message> Answer<M> {
    /// The message with its prefix, in pieces. The parts are the field `tag`.
    fn encode(&self, tag: u32) -> VecDeque<Bytes> {
        let part_bytes = |part: &Part| {
            let bytes = part.field_bytes();
            key_len(tag) + encoded_len_varint(bytes as u64) + bytes
        };
        let bytes = self.rest.encoded_len() + self.parts.iter().map(part_bytes).sum::<usize>();
        let lengths = self
            .parts
            .iter()
            .flat_map(|part| &part.batches)
            .map(|batch| batch.records().len());
        let apart: usize = lengths.filter(|length| *length >= COPIED_BYTES_MAX).sum();
        let mut pieces = Pieces {
            done: VecDeque::new(),
            open: BytesMut::with_capacity(PREFIX_BYTES + bytes - apart),
            room: self.room.clone(),
        };
        pieces.open.put_u8(0);
        // An answer is bounded, far below 4 GiB.
        pieces.open.put_u32(bytes as u32);
        self.parts.iter().for_each(|part| part.encode(tag, &mut pieces));
        self.rest.encode_raw(&mut pieces.open);
        pieces.close();
        pieces.done
    }
}

/// A message in the making.
struct Pieces {
    done: VecDeque<Bytes>,
    open: BytesMut,
    room: Option<Room>,
}

impl Pieces {
    fn put(&mut self, bytes: &Bytes) {
        if bytes.len() < COPIED_BYTES_MAX {
            self.open.put_slice(bytes);
            return;
        }
        self.close();
        self.done.push_back(held(bytes.clone(), self.room.clone()));
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            let bytes = self.open.split().freeze();
            self.done.push_back(held(bytes, self.room.clone()));
        }
    }
}

/// Bytes that hold the memory of their answer until they are sent.
fn held(bytes: Bytes, room: Option<Room>) -> Bytes {
    struct Held {
        bytes: Bytes,
        _room: Room,
    }

    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }

    match room {
        Some(room) => Bytes::from_owner(Held { bytes, _room: room }),
        None => bytes,
    }
}

/// The body of a response, for `Charged` to put in place of the one that the response has.
#[derive(Clone)]
pub(super) struct Answers(Arc<Mutex<Body>>);

impl Answers {
    /// Messages of which the parts are the field `tag`.
    pub(super) fn new<M: Message + 'static>(
        tag: u32,
        answers: impl Stream<Item = Result<Answer<M>, Status>> + Send + 'static,
    ) -> Answers {
        let messages = answers.map(move |answer| Ok(answer?.encode(tag)));
        let body = Body::new(Messages {
            messages: messages.boxed(),
            pieces: VecDeque::new(),
            has_ended: false,
        });
        Answers(Arc::new(Mutex::new(body)))
    }

    /// A response with these for its body.
    pub(super) fn into_response<T>(self, empty: T) -> Response<T> {
        let mut response = Response::new(empty);
        response.extensions_mut().insert(self);
        response
    }

    pub(super) fn into_body(self) -> Body {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Messages, and behind them how the call ended.
struct Messages {
    messages: BoxStream<'static, Result<VecDeque<Bytes>, Status>>,
    /// Of the message that was begun.
    pieces: VecDeque<Bytes>,
    has_ended: bool,
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if self.has_ended {
                return Poll::Ready(None);
            }
            let end = match ready!(self.messages.poll_next_unpin(context)) {
                Some(Ok(pieces)) => {
                    self.pieces = pieces;
                    continue;
                }
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            self.has_ended = true;
            let mut trailers = HeaderMap::new();
            let told = end.add_header(&mut trailers);
            return Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}

#[cfg(test)]
mod tests {
    use millstream_batch::{BatchBuilder, Compression};

    use super::*;

    fn part(partition: u32, value_bytes: &[usize]) -> Part {
        let batch = |bytes: &usize| {
            let mut builder = BatchBuilder::new();
            builder.push(7, None, Some(&vec![b'x'; *bytes]), std::iter::empty());
            builder.build(Compression::None)
        };
        Part {
            told: v1::FetchedPartition {
                topic: "t".to_owned(),
                partition,
                next_offset: 1_000,
                high_watermark: 70_000,
                ..v1::FetchedPartition::default()
            },
            batches: value_bytes.iter().map(batch).collect(),
        }
    }

    fn sent(pieces: VecDeque<Bytes>) -> Vec<u8> {
        let sent: Vec<u8> = pieces.into_iter().flatten().collect();
        let (prefix, message) = sent.split_at(PREFIX_BYTES);
        assert_eq!(
            (prefix[0], &prefix[1..]),
            (0, &(message.len() as u32).to_be_bytes()[..])
        );
        message.to_vec()
    }

    #[test]
    fn an_answer_is_read_as_the_one_of_the_contract() {
        let sizes: [&[usize]; 5] = [&[], &[0], &[1_000, 2_000], &[COPIED_BYTES_MAX], &[3 << 20, 5, 400_000]];
        for count in 0..=sizes.len() {
            let parts = || {
                sizes[..count]
                    .iter()
                    .enumerate()
                    .map(|(at, sizes)| part(at as u32, sizes))
            };
            let answer = Answer {
                rest: v1::FetchResponse::default(),
                parts: parts().collect(),
                room: None,
            };
            let message = sent(answer.encode(PARTITIONS_TAG));
            let read = v1::FetchResponse::decode(&message[..]).unwrap();
            assert_eq!(read.partitions, parts().map(Part::joined).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_goes_with_the_parts_is_read_too() {
        let answer = Answer {
            rest: v1::SubscribeResponse {
                credit_bytes: 40_100,
                ..v1::SubscribeResponse::default()
            },
            parts: vec![part(3, &[400_000])],
            room: None,
        };
        let message = sent(answer.encode(FETCHED_TAG));
        let read = v1::SubscribeResponse::decode(&message[..]).unwrap();
        assert_eq!(read.fetched, Some(part(3, &[400_000]).joined()));
        assert_eq!(read.credit_bytes, 40_100);
    }

    #[tokio::test]
    async fn how_a_call_ends_is_told_behind_its_answers() {
        for (end, code) in [(None, "0"), (Some(Status::aborted("no more")), "10")] {
            let answer = Answer {
                rest: v1::FetchResponse::default(),
                parts: vec![part(0, &[500_000])],
                room: None,
            };
            let answers = futures::stream::iter([Ok(answer)].into_iter().chain(end.map(Err)));
            let mut body = Answers::new(PARTITIONS_TAG, answers).into_body();
            let mut data = 0;
            let trailers = loop {
                let frame = std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await;
                match frame.unwrap().unwrap().into_data() {
                    Ok(bytes) => data += bytes.len(),
                    Err(frame) => break frame.into_trailers().unwrap(),
                }
            };
            assert!(data > 500_000);
            assert_eq!(trailers[Status::GRPC_STATUS], code);
            assert!(http_body::Body::is_end_stream(&body));
        }
    }
}
