//! The producer against an agent that follows a script.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use millstream_batch::{Batch, RecordIter};
use millstream_proto::v1::{
    produce_request::Payload,
    producer_service_server::{ProducerService, ProducerServiceServer},
    topic_service_server::{TopicService, TopicServiceServer},
};
use tokio::net::TcpListener;
use tonic::{
    Code, Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::*;

/// What the script answers to a request, by partition and values.
type Answer = Box<dyn Fn(u32, &[String]) -> Result<(), Status> + Send + Sync>;

/// An agent with one topic, whose answers come from a closure over partition and values.
struct Script {
    partitions: u32,
    answer: Answer,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    /// Values accepted, by partition, in order.
    accepted: HashMap<u32, Vec<String>>,
    requests: u32,
    in_flight: HashMap<u32, u32>,
    in_flight_max: u32,
}

/// The script as the services hold it.
#[derive(Clone)]
struct Agent(Arc<Script>);

#[tonic::async_trait]
impl ProducerService for Agent {
    type ProduceStreamStream = tonic::codegen::BoxStream<v1::ProduceStreamResponse>;

    async fn produce_stream(
        &self,
        _: Request<tonic::Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn init_producer(
        &self,
        _: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn produce(&self, request: Request<v1::ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        let request = request.into_inner();
        let values = values(request.payload);
        {
            let mut log = self.0.log.lock().unwrap();
            log.requests += 1;
            let now = log.in_flight.entry(request.partition).or_default();
            *now += 1;
            let now = *now;
            log.in_flight_max = log.in_flight_max.max(now);
        }
        // Other requests get their turn here, so that two of one partition would be seen together.
        tokio::task::yield_now().await;
        let result = (self.0.answer)(request.partition, &values);
        let mut log = self.0.log.lock().unwrap();
        *log.in_flight.get_mut(&request.partition).unwrap() -= 1;
        result?;
        let record_count = values.len() as u32;
        log.accepted.entry(request.partition).or_default().extend(values);
        Ok(Response::new(v1::ProduceResponse {
            record_count,
            ..Default::default()
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

fn values(payload: Option<Payload>) -> Vec<String> {
    let Some(Payload::Batch(bytes)) = payload else {
        panic!("the producer sends batches")
    };
    let batch = Batch::validate(bytes, &Default::default()).unwrap();
    RecordIter::new(batch.records())
        .map(|record| String::from_utf8(record.unwrap().value.unwrap_or_default().to_vec()).unwrap())
        .collect()
}

async fn agent(
    partitions: u32,
    answer: impl Fn(u32, &[String]) -> Result<(), Status> + Send + Sync + 'static,
) -> (Arc<Script>, Connection) {
    let script = Arc::new(Script {
        partitions,
        answer: Box::new(answer),
        log: Mutex::default(),
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

async fn send(producer: &mut Producer, key: Option<&str>, value: &str) -> Result<(), ProduceError> {
    let record = NewRecord {
        key: key.map(str::as_bytes),
        value: Some(value.as_bytes()),
        ..NewRecord::default()
    };
    producer.send(record).await
}

fn one_run(run: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(run).collect()
}

fn small_batches() -> ProducerSettings {
    ProducerSettings {
        batch_bytes: 300,
        buffer_bytes_max: 2_000,
        ..ProducerSettings::default()
    }
}

#[tokio::test]
async fn every_record_arrives_in_order_within_its_partition_with_one_request_in_flight() {
    let (script, connection) = agent(3, |_, _| Ok(())).await;
    let mut producer = Producer::open(&connection, "t", small_batches()).await.unwrap();
    for i in 0..500 {
        let key = format!("k{}", i % 7);
        send(&mut producer, Some(&key), &format!("{i:04}")).await.unwrap();
    }

    let totals = producer.close().await.unwrap();

    assert_eq!((totals.acknowledged, totals.stored), (500, 500));
    assert!(totals.batches > 20, "{totals:?}");
    let log = script.log.lock().unwrap();
    assert_eq!(log.in_flight_max, 1);
    for (partition, values) in &log.accepted {
        assert!(values.is_sorted(), "partition {partition}");
        let by_key = |value: &String| {
            let key = format!("k{}", value.parse::<u32>().unwrap() % 7);
            crate::partition_for_key(key.as_bytes(), 3) == *partition
        };
        assert!(values.iter().all(by_key), "partition {partition}");
    }
    assert_eq!(log.accepted.values().map(Vec::len).sum::<usize>(), 500);
}

#[tokio::test]
async fn records_without_a_key_go_round_all_partitions() {
    let (script, connection) = agent(4, |_, _| Ok(())).await;
    let mut producer = Producer::open(&connection, "t", small_batches()).await.unwrap();
    for i in 0..400 {
        send(&mut producer, None, &format!("{i:04}")).await.unwrap();
    }
    producer.close().await.unwrap();

    let log = script.log.lock().unwrap();
    assert_eq!(log.accepted.len(), 4);
    assert!(
        log.accepted
            .values()
            .all(|values| values.len() > 50 && values.is_sorted())
    );
}

#[tokio::test]
async fn a_refused_batch_names_its_records_and_nothing_follows_it() {
    let (script, connection) = agent(1, |_, values| match values.iter().position(|value| value == "0100") {
        None => Ok(()),
        Some(at) => {
            let details = ErrorDetails::with_bad_request_violation(format!("records[{at}]"), "no good");
            Err(Status::with_error_details(
                Code::InvalidArgument,
                "one record rejected",
                details,
            ))
        }
    })
    .await;
    let mut producer = Producer::open(&connection, "t", small_batches()).await.unwrap();
    for i in 0..300 {
        if send(&mut producer, None, &format!("{i:04}")).await.is_err() {
            break;
        }
    }

    let error = producer.flush().await.unwrap_err();

    assert_eq!(error.to_string(), "one record rejected");
    assert_eq!(
        error.rejects,
        [Reject {
            index: 100,
            reason: "no good".to_owned()
        }]
    );
    let log = script.log.lock().unwrap();
    let accepted = log.accepted[&0].len() as u64;
    assert!(accepted <= 100);
    assert_eq!(error.totals.acknowledged, accepted);
    assert_eq!(error.unacknowledged.len(), 1);
    assert_eq!(
        error.unacknowledged[0].start, accepted,
        "what is not acknowledged begins where the accepted end"
    );
    assert!(error.unacknowledged[0].end > 100);
}

#[tokio::test]
async fn an_agent_that_is_full_is_asked_again() {
    let refusals = Mutex::new(2);
    let (script, connection) = agent(1, move |_, _| {
        let mut left = refusals.lock().unwrap();
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        let details = ErrorDetails::with_retry_info(Some(std::time::Duration::from_millis(1)));
        Err(Status::with_error_details(
            Code::ResourceExhausted,
            "tails are full",
            details,
        ))
    })
    .await;
    let mut producer = Producer::open(&connection, "t", ProducerSettings::default())
        .await
        .unwrap();
    send(&mut producer, None, "a").await.unwrap();

    assert_eq!(producer.close().await.unwrap().acknowledged, 1);
    assert_eq!(script.log.lock().unwrap().requests, 3);
}

#[tokio::test]
async fn any_other_failure_is_not_tried_again() {
    let (script, connection) = agent(1, |_, _| Err(Status::unavailable("stopping"))).await;
    let mut producer = Producer::open(&connection, "t", ProducerSettings::default())
        .await
        .unwrap();
    send(&mut producer, None, "a").await.unwrap();

    let error = producer.flush().await.unwrap_err();

    assert_eq!(error.cause.code(), Some(Code::Unavailable));
    assert_eq!(error.unacknowledged, one_run(0..1));
    assert_eq!(script.log.lock().unwrap().requests, 1);
    assert_eq!(
        send(&mut producer, None, "b").await.unwrap_err().unacknowledged,
        one_run(0..2)
    );
    assert_eq!(producer.flush().await.unwrap_err().unacknowledged, one_run(0..2));
}

#[tokio::test]
async fn a_record_that_fits_no_batch_fails_after_those_before_it() {
    let (_script, connection) = agent(2, |_, _| Ok(())).await;
    let mut producer = Producer::open(&connection, "t", ProducerSettings::default())
        .await
        .unwrap();
    send(&mut producer, None, "a").await.unwrap();

    let error = send(&mut producer, None, &"x".repeat(16 << 20)).await.unwrap_err();

    assert!(matches!(*error.cause, ClientError::RecordTooLarge { .. }), "{error:?}");
    assert_eq!(error.totals.acknowledged, 1);
    assert_eq!(error.unacknowledged, one_run(1..2));
}

#[tokio::test]
async fn a_record_larger_than_a_batch_travels_alone() {
    let (script, connection) = agent(1, |_, _| Ok(())).await;
    let mut producer = Producer::open(&connection, "t", small_batches()).await.unwrap();
    let large = "x".repeat(5_000);
    for value in ["a", &large, "b"] {
        send(&mut producer, None, value).await.unwrap();
    }
    producer.close().await.unwrap();

    let log = script.log.lock().unwrap();
    assert_eq!(log.requests, 3);
    assert_eq!(log.accepted[&0], ["a", &large, "b"]);
}

#[tokio::test]
async fn a_partition_that_is_not_there_is_refused_at_once() {
    let (_script, connection) = agent(2, |_, _| Ok(())).await;
    let settings = ProducerSettings {
        partition: Some(2),
        ..ProducerSettings::default()
    };
    let error = Producer::open(&connection, "t", settings).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "topic \"t\" has no partition 2: it has 2, counted from 0"
    );
}
