//! What a consumer makes of answers that an agent seldom gives.

use std::time::Duration;

use bytes::Bytes;
use millstream_batch::{BatchBuilder, Compression, Epoch, Offset};
use millstream_proto::v1::{self, start_position};

use super::{Consumer, ConsumerSettings, Start};
use crate::{
    ClientError, Code, GroupConsumer, GroupConsumerSettings,
    fake::{END, Fake, member},
};

fn offset_of(at: &v1::PartitionPosition) -> u64 {
    match at.start.and_then(|start| start.position) {
        Some(start_position::Position::Offset(offset)) => offset,
        _ => 0,
    }
}

/// One record of a partition.
fn one(partition: u32, offset: u64) -> v1::FetchedPartition {
    let mut builder = BatchBuilder::new();
    builder.push(0, None, Some(b"v"), std::iter::empty());
    let mut batch = builder.build(Compression::None);
    batch.stamp(Offset(offset), Epoch(1));
    v1::FetchedPartition {
        topic: "t".to_owned(),
        partition,
        batches: batch.to_bytes(),
        next_offset: offset + 1,
        high_watermark: END,
        ..v1::FetchedPartition::default()
    }
}

/// An answer that cannot be decoded, and one behind it.
fn damaged(at: &v1::PartitionPosition) -> Vec<v1::FetchedPartition> {
    let first = offset_of(at);
    let damaged = v1::FetchedPartition {
        batches: Bytes::from_static(b"no batch"),
        ..one(at.partition, first)
    };
    vec![damaged, one(at.partition, first + 1)]
}

#[tokio::test]
async fn nothing_is_read_behind_an_answer_that_cannot_be_decoded() {
    let agent = Fake {
        read: Box::new(|at| match at.partition {
            0 => damaged(at),
            _ => vec![one(at.partition, offset_of(at))],
        }),
        ..Fake::default()
    };
    let (_, connection) = agent.serve().await;
    let mut consumer = Consumer::new(&connection, ConsumerSettings::default());
    consumer.assign("t", 0, Start::Earliest).await.unwrap();
    consumer.assign("t", 1, Start::Earliest).await.unwrap();
    let bad = consumer.next_chunk().await.unwrap_err();
    assert!(matches!(bad, ClientError::BadAnswer { .. }), "{bad}");
    assert_eq!(consumer.position("t", 0), None);
    assert_eq!(consumer.next_chunk().await.unwrap().partition, 1, "the others go on");
}

#[tokio::test]
async fn a_group_commits_nothing_behind_an_answer_that_cannot_be_decoded() {
    let beat = |request: &v1::HeartbeatRequest| {
        let assigned = vec![v1::TopicPartition {
            topic: "t".to_owned(),
            partition: 0,
        }];
        let generation = request.generation.max(1);
        Some(Ok(v1::HeartbeatResponse {
            assigned,
            ..member("m", generation)
        }))
    };
    let agent = Fake {
        read: Box::new(damaged),
        beat: Box::new(beat),
        ..Fake::default()
    };
    let (agent, connection) = agent.serve().await;
    let settings = GroupConsumerSettings::default();
    let mut consumer = GroupConsumer::join(&connection, "g", &["t"], settings).await.unwrap();
    let bad = consumer.next_chunk().await.unwrap_err();
    assert!(matches!(bad, ClientError::BadAnswer { .. }), "{bad}");
    consumer.commit().await.unwrap();
    assert!(agent.commits().is_empty(), "{:?}", agent.commits());
}

#[tokio::test]
async fn a_pause_holds_where_the_partition_is_read_from_somewhere_else() {
    let agent = Fake {
        read: Box::new(|at| vec![one(at.partition, offset_of(at))]),
        ..Fake::default()
    };
    let (agent, connection) = agent.serve().await;
    let mut consumer = Consumer::new(&connection, ConsumerSettings::default());
    consumer.assign("t", 0, Start::Earliest).await.unwrap();
    consumer.assign("t", 1, Start::Earliest).await.unwrap();
    consumer.pause("t", 0);
    consumer.seek("t", 0, Start::Offset(50)).await.unwrap();
    assert_eq!(consumer.position("t", 0).unwrap().next_offset, 50);
    assert_eq!(consumer.next_chunk().await.unwrap().partition, 1);
    let starts = agent.log.lock().unwrap().starts.pop().unwrap().partitions;
    assert_eq!(starts.iter().map(|at| at.partition).collect::<Vec<_>>(), [1]);
    consumer.pause("t", 1);
    consumer.resume("t", 0);
    let chunk = consumer.next_chunk().await.unwrap();
    assert_eq!((chunk.partition, chunk.records[0].offset), (0, 50));
}

#[tokio::test]
async fn a_partition_that_two_agents_give_each_other_is_an_error_after_a_while() {
    /// Says that another agent leads it.
    fn elsewhere(leader: String) -> impl Fn(&v1::PartitionPosition) -> Vec<v1::FetchedPartition> {
        move |at| {
            let error = v1::Error {
                code: Code::Unavailable.into(),
                reason: "LED_ELSEWHERE".to_owned(),
                leader: leader.clone(),
                ..v1::Error::default()
            };
            vec![v1::FetchedPartition {
                batches: Bytes::new(),
                error: Some(error),
                ..one(at.partition, 0)
            }]
        }
    }
    let back = std::sync::Arc::new(std::sync::OnceLock::new());
    let home = back.clone();
    let other = Fake {
        read: Box::new(move |at| elsewhere(home.get().cloned().unwrap())(at)),
        ..Fake::default()
    };
    let address = |url: &str| url.trim_start_matches("http://").to_owned();
    let (_, at_other) = other.serve().await;
    let home = Fake {
        read: Box::new(elsewhere(address(at_other.url()))),
        ..Fake::default()
    };
    let (_, connection) = home.serve().await;
    back.set(address(connection.url())).unwrap();
    let settings = ConsumerSettings {
        retry_for: Duration::from_millis(300),
        ..ConsumerSettings::default()
    };
    let mut consumer = Consumer::new(&connection, settings);
    consumer.assign("t", 0, Start::Earliest).await.unwrap();
    // Whoever asks again tries again.
    for _ in 0..2 {
        let refused = consumer.next_chunk().await.unwrap_err();
        assert_eq!(refused.reason(), Some("LED_ELSEWHERE"), "{refused}");
        assert_eq!(consumer.assigned().len(), 1);
    }
}
