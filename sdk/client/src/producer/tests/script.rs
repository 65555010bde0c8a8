//! An agent that follows a script: one topic, and a closure that decides on each batch.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use futures::stream;
use millstream_batch::{Batch, RecordIter};
use millstream_proto::v1::{
    self,
    produce_request::Payload,
    produce_stream_response::Result as Answer,
    producer_service_server::{ProducerService, ProducerServiceServer},
    topic_service_server::{TopicService, TopicServiceServer},
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status, Streaming,
    codegen::BoxStream,
    transport::{Server, server::TcpIncoming},
};

use crate::{Code, Connection};

/// What becomes of a batch.
pub enum Verdict {
    Store,
    Refuse(v1::Error),
    /// It is stored, and the call breaks before the answer.
    StoreAndBreak,
    /// It is stored, and the call ends with a status in place of the answer.
    StoreAndEnd(Status),
}

/// Decides by partition and values.
type Decide = Box<dyn Fn(u32, &[String]) -> Verdict + Send + Sync>;

pub struct Script {
    partitions: u32,
    decide: Decide,
    pub log: Mutex<Log>,
    /// A permit lets one batch be answered.
    pub gate: tokio::sync::Semaphore,
}

#[derive(Default)]
pub struct Log {
    /// Values stored, by partition, in order.
    pub stored: HashMap<u32, Vec<String>>,
    pub requests: u32,
    pub calls: u32,
    pub compression: Vec<millstream_batch::Compression>,
    /// HOST:PORT of the agents that lead partitions in its place.
    pub leaders: HashMap<u32, String>,
    epoch: i32,
    /// By partition: the producer's epoch, and what is next.
    next: HashMap<u32, (i16, i32)>,
}

/// The script as the services hold it.
#[derive(Clone)]
struct Agent(Arc<Script>);

/// One call, and which partitions it has broken off.
struct Call {
    agent: Agent,
    requests: Streaming<v1::ProduceStreamRequest>,
    index: u64,
    broken: Vec<u32>,
}

impl Call {
    async fn answer(&mut self) -> Option<Result<v1::ProduceStreamResponse, Status>> {
        let request = self.requests.message().await.ok()??.produce.unwrap();
        self.agent.0.gate.acquire().await.unwrap().forget();
        let request_index = self.index;
        self.index += 1;
        let partition = request.partition;
        let result = match self.broken.contains(&partition) {
            true => Err(error(Code::Aborted, "STREAM_BROKEN", Some(0))),
            false => match self.agent.take(request) {
                Ok(result) => result,
                Err(end) => return end.map(Err),
            },
        };
        if result.as_ref().is_err_and(|error| error.retry_after_ms.is_some()) {
            self.broken.push(partition);
        }
        let result = Some(result.map_or_else(Answer::Error, Answer::Produced));
        Some(Ok(v1::ProduceStreamResponse { request_index, result }))
    }
}

impl Agent {
    /// An error where the call ends, with its status where it has one.
    fn take(&self, request: v1::ProduceRequest) -> Result<Result<v1::ProduceResponse, v1::Error>, Option<Status>> {
        let Some(Payload::Batch(bytes)) = request.payload else {
            panic!("the producer sends batches")
        };
        let batch = Batch::validate(bytes, &Default::default()).unwrap();
        let records = batch.decompressed(64 << 20).unwrap();
        let value = |record: millstream_batch::RecordView<'_>| record.value.unwrap_or_default().to_vec();
        let values: Vec<String> = RecordIter::new(&records)
            .map(|record| String::from_utf8(value(record.unwrap())).unwrap())
            .collect();
        let partition = request.partition;
        let mut log = self.0.log.lock().unwrap();
        log.requests += 1;
        if let Some(leader) = log.leaders.get(&partition).cloned() {
            return Ok(Err(elsewhere(leader)));
        }
        log.compression.push(batch.compression());
        let response = v1::ProduceResponse {
            base_offset: log.stored.get(&partition).map_or(0, Vec::len) as u64,
            record_count: values.len() as u32,
            ..Default::default()
        };
        let (epoch, sequence) = (batch.header().producer_epoch, batch.header().base_sequence);
        if batch.header().producer_id >= 0 {
            let (of, next) = *log.next.get(&partition).unwrap_or(&(epoch, 0));
            let next = if of == epoch { next } else { 0 };
            if sequence < next {
                return Ok(Ok(v1::ProduceResponse {
                    duplicate: true,
                    ..response
                }));
            }
            if sequence > next {
                return Ok(Err(error(Code::Aborted, "SEQUENCE_OUT_OF_ORDER", None)));
            }
        }
        let told = match (self.0.decide)(partition, &values) {
            Verdict::Refuse(error) => return Ok(Err(error)),
            Verdict::Store => Ok(Ok(response)),
            Verdict::StoreAndBreak => Err(None),
            Verdict::StoreAndEnd(status) => Err(Some(status)),
        };
        log.next.insert(partition, (epoch, sequence + values.len() as i32));
        log.stored.entry(partition).or_default().extend(values);
        told
    }
}

pub fn error(code: Code, reason: &str, retry_after_ms: Option<u32>) -> v1::Error {
    v1::Error {
        code: code.into(),
        reason: reason.to_owned(),
        message: format!("{reason} in the script"),
        retry_after_ms,
        ..v1::Error::default()
    }
}

/// Another agent leads the partition.
pub fn elsewhere(leader: String) -> v1::Error {
    v1::Error {
        leader,
        ..error(Code::Unavailable, "LED_ELSEWHERE", Some(250))
    }
}

#[tonic::async_trait]
impl ProducerService for Agent {
    type ProduceStreamStream = BoxStream<v1::ProduceStreamResponse>;

    async fn produce(&self, _: Request<v1::ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        self.0.log.lock().unwrap().calls += 1;
        let call = Call {
            agent: self.clone(),
            requests: request.into_inner(),
            index: 0,
            broken: Vec::new(),
        };
        let answers = stream::unfold(call, |mut call| async move {
            let answer = call.answer().await?;
            Some((answer, call))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn init_producer(
        &self,
        request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let mut log = self.0.log.lock().unwrap();
        log.epoch += i32::from(request.into_inner().producer_epoch.is_some());
        Ok(Response::new(v1::InitProducerResponse {
            producer_id: 7,
            producer_epoch: log.epoch,
        }))
    }
}

#[tonic::async_trait]
impl TopicService for Agent {
    async fn create_topic(
        &self,
        _: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn list_topics(&self, _: Request<v1::ListTopicsRequest>) -> Result<Response<v1::ListTopicsResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn get_topic(&self, _: Request<v1::GetTopicRequest>) -> Result<Response<v1::GetTopicResponse>, Status> {
        let topic = v1::Topic {
            partitions: self.0.partitions,
            ..Default::default()
        };
        Ok(Response::new(v1::GetTopicResponse {
            topic: Some(topic),
            partitions: Vec::new(),
        }))
    }

    async fn alter_topic(&self, _: Request<v1::AlterTopicRequest>) -> Result<Response<v1::AlterTopicResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn truncate_topic(
        &self,
        _: Request<v1::TruncateTopicRequest>,
    ) -> Result<Response<v1::TruncateTopicResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn delete_topic(
        &self,
        _: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
}

/// An agent that answers at once.
pub async fn agent(
    partitions: u32,
    decide: impl Fn(u32, &[String]) -> Verdict + Send + Sync + 'static,
) -> (Arc<Script>, Connection) {
    let (script, connection) = gated_agent(partitions, decide).await;
    script.gate.add_permits(1_000_000);
    (script, connection)
}

/// An agent that answers as many batches as its gate has permits.
pub async fn gated_agent(
    partitions: u32,
    decide: impl Fn(u32, &[String]) -> Verdict + Send + Sync + 'static,
) -> (Arc<Script>, Connection) {
    let script = Arc::new(Script {
        partitions,
        decide: Box::new(decide),
        log: Mutex::default(),
        gate: tokio::sync::Semaphore::new(0),
    });
    let agent = Agent(Arc::clone(&script));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::builder()
        .add_service(ProducerServiceServer::new(agent.clone()).max_decoding_message_size(20 << 20))
        .add_service(TopicServiceServer::new(agent));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let connection = Connection::open(&url).await.unwrap();
    (script, connection)
}
