//! `Subscribe` and `Fetch` of several partitions: credits, positions, and what is wrong with one of them.

use std::{collections::HashSet, task::Poll};

use millstream_proto::v1::{self, start_position::Position, subscribe_request::Message};
use millstream_tests::{Agent, Grpc, place, record, values};
use tonic::Code;

use crate::{Call, batch, start_at};

const FORMAT: v1::FetchFormat = v1::FetchFormat::Records;

async fn topic_of_two(agent: &Agent) -> Grpc {
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 2).await.unwrap();
    for (partition, word) in [(0, "a"), (1, "b")] {
        for n in 0..3 {
            grpc.produce("t", partition, vec![record(format!("{word}{n}"))])
                .await
                .unwrap();
        }
    }
    grpc
}

fn start(partitions: Vec<v1::PartitionPosition>, credit_bytes: u32) -> v1::SubscribeStart {
    v1::SubscribeStart {
        partitions,
        credit_bytes,
        format: FORMAT.into(),
        ..v1::SubscribeStart::default()
    }
}

#[tokio::test]
async fn one_fetch_reads_several_partitions_and_says_what_is_wrong_with_one() {
    let agent = Agent::start();
    let grpc = topic_of_two(&agent).await;
    let request = v1::FetchRequest {
        partitions: vec![
            place("t", 1, 1),
            place("t", 0, 9),
            place("absent", 0, 0),
            place("t", 0, 3),
        ],
        format: FORMAT.into(),
        ..v1::FetchRequest::default()
    };
    // The last one is named twice.
    let refused = grpc.consumer().fetch(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{}", refused.message());
    let request = v1::FetchRequest {
        partitions: request.partitions[..3].to_vec(),
        ..request
    };
    let parts = grpc.consumer().fetch(request).await.unwrap().into_inner().partitions;
    assert_eq!(values(&parts[0].records), ["b1", "b2"]);
    assert_eq!((parts[0].next_offset, parts[0].high_watermark, parts[0].lag), (3, 3, 0));
    let errors: Vec<_> = parts[1..].iter().map(|part| part.error.clone().unwrap()).collect();
    assert_eq!(
        (errors[0].code, errors[0].reason.as_str()),
        (Code::OutOfRange.into(), "OFFSET_OUT_OF_RANGE")
    );
    assert_eq!(
        (errors[1].code, errors[1].reason.as_str()),
        (Code::NotFound.into(), "TOPIC_UNKNOWN")
    );
    assert_eq!(parts[1].topic, "t");

    let none = grpc.consumer().fetch(v1::FetchRequest::default()).await.unwrap_err();
    assert_eq!(none.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_fetch_of_several_waits_for_a_record_in_any_of_them() {
    let agent = Agent::start();
    let grpc = topic_of_two(&agent).await;
    let request = v1::FetchRequest {
        partitions: vec![place("t", 0, 3), place("t", 1, 3)],
        max_wait_ms: 30_000,
        format: FORMAT.into(),
        ..v1::FetchRequest::default()
    };
    let mut consumer = grpc.consumer();
    let mut waiting = Box::pin(consumer.fetch(request));
    assert!(futures::poll!(&mut waiting).is_pending());
    grpc.produce("t", 1, vec![record("new")]).await.unwrap();
    let parts = waiting.await.unwrap().into_inner().partitions;
    assert!(parts[0].records.is_empty());
    assert_eq!(values(&parts[1].records), ["new"]);
}

#[tokio::test]
async fn no_more_is_sent_than_there_are_credits_for() {
    let agent = Agent::start();
    let grpc = topic_of_two(&agent).await;
    let mut call = Call::open(&grpc, start(vec![start_at("t", 0, 0)], 1)).await.unwrap();
    // One answer may pass them.
    let first = call.next().await.unwrap();
    assert!(first.credit_bytes > 1);
    assert_eq!(values(&first.fetched.unwrap().records), ["a0", "a1", "a2"]);
    grpc.produce("t", 0, vec![record("a3")]).await.unwrap();
    call.ask(Message::CreditBytes(first.credit_bytes - 2));
    // It is in debt by one byte still. A call behind it on the same connection shows that it had its turn.
    let mut next = Box::pin(call.answers.message());
    for _ in 0..3 {
        grpc.offsets("t", 0).await.unwrap();
        assert!(matches!(futures::poll!(&mut next), Poll::Pending));
    }
    drop(next);
    call.ask(Message::CreditBytes(10));
    assert_eq!(values(&call.fetched().await.records), ["a3"]);

    for wrong in [0, (64 << 20) + 1] {
        let mut call = Call::open(&grpc, start(Vec::new(), 1)).await.unwrap();
        call.ask(Message::CreditBytes(wrong));
        assert_eq!(call.next().await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn records_come_as_they_are_written_with_high_watermark_and_lag() {
    let agent = Agent::start();
    let grpc = topic_of_two(&agent).await;
    let mut call = Call::open(&grpc, start(vec![start_at("t", 0, 3)], 1 << 20))
        .await
        .unwrap();
    let at_the_end = call.fetched().await;
    assert!(at_the_end.records.is_empty());
    assert_eq!(
        (at_the_end.next_offset, at_the_end.high_watermark, at_the_end.lag),
        (3, 3, 0)
    );
    for n in 3..20 {
        grpc.produce("t", 0, vec![record(format!("a{n}"))]).await.unwrap();
        let fetched = call.fetched().await;
        assert_eq!(values(&fetched.records), [format!("a{n}")]);
        assert_eq!(
            (fetched.next_offset, fetched.high_watermark, fetched.lag),
            (n + 1, n + 1, 0)
        );
    }
    let small = v1::SubscribeStart {
        max_bytes: 1,
        ..start(vec![start_at("t", 0, 0)], 1 << 20)
    };
    let mut call = Call::open(&grpc, small).await.unwrap();
    let fetched = call.fetched().await;
    assert_eq!((fetched.next_offset, fetched.high_watermark, fetched.lag), (1, 20, 19));
}

#[tokio::test]
async fn partitions_are_assigned_and_unassigned_while_it_runs() {
    let agent = Agent::start();
    let grpc = topic_of_two(&agent).await;
    let mut call = Call::open(&grpc, start(vec![start_at("t", 0, 2)], 1 << 20))
        .await
        .unwrap();
    assert_eq!(values(&call.fetched().await.records), ["a2"]);
    let partitions = vec![start_at("t", 1, 1)];
    call.ask(Message::Assign(v1::PartitionPositions { partitions }));
    let fetched = call.fetched().await;
    assert_eq!(
        (fetched.partition, values(&fetched.records)),
        (1, vec!["b1".to_owned(), "b2".to_owned()])
    );

    let partitions = vec![v1::TopicPartition {
        topic: "t".to_owned(),
        partition: 0,
    }];
    call.ask(Message::Unassign(v1::PartitionList { partitions }));
    // The same partition from another position: its answer shows that the change before was seen.
    let partitions = vec![start_at("t", 1, 0)];
    call.ask(Message::Assign(v1::PartitionPositions { partitions }));
    assert_eq!(values(&call.fetched().await.records), ["b0", "b1", "b2"]);
    grpc.produce("t", 0, vec![record("unread")]).await.unwrap();
    grpc.produce("t", 1, vec![record("read")]).await.unwrap();
    assert_eq!(values(&call.fetched().await.records), ["read"]);
}

#[tokio::test]
async fn an_offset_out_of_range_ends_its_partition_alone() {
    let agent = Agent::start();
    let grpc = topic_of_two(&agent).await;
    let partitions = vec![start_at("t", 0, 99), start_at("t", 1, 2)];
    let mut call = Call::open(&grpc, start(partitions, 1 << 20)).await.unwrap();
    let mut seen = [call.fetched().await, call.fetched().await];
    seen.sort_by_key(|fetched| fetched.partition);
    assert_eq!(seen[0].error.as_ref().unwrap().reason, "OFFSET_OUT_OF_RANGE");
    assert_eq!(values(&seen[1].records), ["b2"]);
    // It can be assigned again.
    let partitions = vec![start_at("t", 0, 1)];
    call.ask(Message::Assign(v1::PartitionPositions { partitions }));
    assert_eq!(values(&call.fetched().await.records), ["a1", "a2"]);
}

#[tokio::test]
async fn whole_topics_are_read_from_where_they_are_to_begin() {
    let agent = Agent::start();
    let grpc = topic_of_two(&agent).await;
    grpc.create_topic("u", 3).await.unwrap();
    for (position, expected) in [
        (
            Position::Earliest(true),
            ["a0", "a1", "a2", "b0", "b1", "b2", "new"].as_slice(),
        ),
        (Position::Latest(true), ["new"].as_slice()),
        (Position::TimestampMs(i64::MAX), ["new"].as_slice()),
        (
            Position::TimestampMs(0),
            ["a0", "a1", "a2", "b0", "b1", "b2", "new"].as_slice(),
        ),
    ] {
        let both = v1::SubscribeStart {
            topics: vec!["t".to_owned(), "u".to_owned()],
            start: Some(v1::StartPosition {
                position: Some(position),
            }),
            ..start(Vec::new(), 1 << 20)
        };
        let mut call = Call::open(&grpc, both).await.unwrap();
        // Each partition is told of once it is read.
        let (mut partitions, mut read) = (HashSet::new(), Vec::new());
        while partitions.len() < 5 {
            let fetched = call.fetched().await;
            read.extend(values(&fetched.records));
            partitions.insert((fetched.topic, fetched.partition));
        }
        grpc.produce("u", 2, vec![record("new")]).await.unwrap();
        while read.len() < expected.len() {
            read.extend(values(&call.fetched().await.records));
        }
        // What an earlier round has left in the second topic.
        read.retain(|value| value != "new");
        read.push("new".to_owned());
        read.sort();
        assert_eq!(read, expected);
        grpc.topics()
            .delete_topic(v1::DeleteTopicRequest { name: "u".to_owned() })
            .await
            .unwrap();
        grpc.create_topic("u", 3).await.unwrap();
    }
    let absent = v1::SubscribeStart {
        topics: vec!["absent".to_owned()],
        ..start(Vec::new(), 1)
    };
    let refused = Call::open(&grpc, absent).await.err().unwrap();
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test]
async fn partitions_with_much_to_read_take_turns() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 2).await.unwrap();
    let value = "x".repeat(1_000);
    let large = batch(&vec![value.as_str(); 100]);
    for partition in 0..2 {
        for _ in 0..20 {
            grpc.produce_batch("t", partition, large.clone()).await.unwrap();
        }
    }
    let both = v1::SubscribeStart {
        max_bytes: 200_000,
        ..start(vec![start_at("t", 0, 0), start_at("t", 1, 0)], 64 << 20)
    };
    let mut call = Call::open(&grpc, both).await.unwrap();
    let mut order = Vec::new();
    let mut next = [0, 0];
    while next != [2_000, 2_000] {
        let fetched = call.fetched().await;
        order.push(fetched.partition);
        next[fetched.partition as usize] = fetched.next_offset;
    }
    assert!(order[..4].contains(&0) && order[..4].contains(&1), "{order:?}");
}

#[tokio::test]
async fn a_call_that_does_not_begin_as_it_should_is_refused() {
    let agent = Agent::start();
    let grpc = topic_of_two(&agent).await;
    let first = Call::say(Message::CreditBytes(1));
    let requests = futures::stream::iter([first]);
    let refused = grpc.consumer().subscribe(requests).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let mut call = Call::open(&grpc, start(Vec::new(), 1)).await.unwrap();
    call.ask(Message::Start(v1::SubscribeStart::default()));
    assert_eq!(call.next().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_stop_ends_the_call() {
    let agent = Agent::start();
    let grpc = topic_of_two(&agent).await;
    let mut call = Call::open(&grpc, start(vec![start_at("t", 0, 3)], 1 << 20))
        .await
        .unwrap();
    call.fetched().await;
    let ended = tokio::task::spawn_blocking(move || agent.terminate());
    assert_eq!(call.next().await.unwrap_err().code(), Code::Unavailable);
    ended.await.unwrap();
}

#[tokio::test]
async fn partitions_that_are_added_to_a_topic_are_read_from_their_beginning() {
    let agent = Agent::start();
    let grpc = topic_of_two(&agent).await;
    let whole = v1::SubscribeStart {
        topics: vec!["t".to_owned()],
        start: Some(v1::StartPosition {
            position: Some(Position::Latest(true)),
        }),
        ..start(Vec::new(), 1 << 20)
    };
    let mut call = Call::open(&grpc, whole).await.unwrap();
    let more = v1::AlterTopicRequest {
        name: "t".to_owned(),
        partitions: Some(3),
        ..v1::AlterTopicRequest::default()
    };
    grpc.topics().alter_topic(more).await.unwrap();
    grpc.produce("t", 2, vec![record("c0")]).await.unwrap();
    let read = loop {
        let fetched = call.fetched().await;
        if !fetched.records.is_empty() {
            break fetched;
        }
    };
    assert_eq!((read.partition, values(&read.records)), (2, vec!["c0".to_owned()]));
}
