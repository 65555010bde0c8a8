//! Streams of batches in, and streams of records out, over the real binary: order, bounds, and clients that misbehave.

mod hostile;
mod producing;
mod reading;
mod subscribing;

use bytes::Bytes;
use futures::stream;
use millstream_batch::{BatchBuilder, Compression};
use millstream_proto::v1::{self, produce_request::Payload, produce_stream_response::Result as Answer};
use millstream_tests::Grpc;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// A batch of these values.
fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(0, None, Some(value.as_bytes()), std::iter::empty());
    }
    builder.build(Compression::None).to_bytes()
}

/// A request that produces one batch.
fn request(topic: &str, partition: u32, batch: Bytes) -> v1::ProduceStreamRequest {
    v1::ProduceStreamRequest {
        produce: Some(v1::ProduceRequest {
            topic: topic.to_owned(),
            partition,
            payload: Some(Payload::Batch(batch)),
            acks: v1::Acks::Durable.into(),
        }),
    }
}

/// Sends all requests over one call, then ends it; every answer.
async fn produce_all(
    grpc: &Grpc,
    requests: Vec<v1::ProduceStreamRequest>,
) -> Result<Vec<v1::ProduceStreamResponse>, Status> {
    let mut answers = grpc
        .producer()
        .produce_stream(stream::iter(requests))
        .await?
        .into_inner();
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await? {
        all.push(answer);
    }
    Ok(all)
}

/// The reason of an answer that is an error.
fn reason(answer: &v1::ProduceStreamResponse) -> Option<&str> {
    match answer.result.as_ref().expect("an answer has a result") {
        Answer::Produced(_) => None,
        Answer::Error(error) => Some(&error.reason),
    }
}

/// A `Subscribe` call.
struct Call {
    requests: mpsc::UnboundedSender<v1::SubscribeRequest>,
    answers: Streaming<v1::SubscribeResponse>,
}

impl Call {
    async fn open(grpc: &Grpc, start: v1::SubscribeStart) -> Result<Call, Status> {
        let (requests, queue) = mpsc::unbounded_channel();
        let next = |mut queue: mpsc::UnboundedReceiver<_>| async move {
            let request = queue.recv().await?;
            Some((request, queue))
        };
        let call = Call::say(v1::subscribe_request::Message::Start(start));
        requests.send(call).expect("it is open");
        let answers = grpc
            .consumer()
            .subscribe(stream::unfold(queue, next))
            .await?
            .into_inner();
        Ok(Call { requests, answers })
    }

    fn say(message: v1::subscribe_request::Message) -> v1::SubscribeRequest {
        v1::SubscribeRequest { message: Some(message) }
    }

    fn ask(&self, message: v1::subscribe_request::Message) {
        self.requests.send(Call::say(message)).expect("the call is open");
    }

    async fn next(&mut self) -> Result<v1::SubscribeResponse, Status> {
        let answer = self.answers.message().await?;
        Ok(answer.expect("it ends only when it is ended"))
    }

    /// The next answer about one partition.
    async fn fetched(&mut self) -> v1::FetchedPartition {
        self.next()
            .await
            .unwrap()
            .fetched
            .expect("an answer is about a partition")
    }
}

fn start_at(topic: &str, partition: u32, offset: u64) -> v1::PartitionPosition {
    let position = v1::start_position::Position::Offset(offset);
    v1::PartitionPosition {
        topic: topic.to_owned(),
        partition,
        start: Some(v1::StartPosition {
            position: Some(position),
        }),
    }
}
