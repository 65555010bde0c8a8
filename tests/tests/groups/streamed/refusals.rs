//! What a stream cannot ask for. Each is told by its reason, and leaves no member behind.

use millstream_proto::v1::{self, start_position::Position, subscribe_request::Message};
use millstream_tests::Agent;
use tonic::Code;

use super::super::{fill, reason};
use super::{BEAT, Reader, SESSION_MS, TOPIC, members, place, start};

fn group(change: impl FnOnce(&mut v1::SubscribeGroup)) -> v1::SubscribeStart {
    let mut asked = start(SESSION_MS);
    change(asked.group.as_mut().unwrap());
    asked
}

fn from(position: Position) -> v1::SubscribeStart {
    v1::SubscribeStart {
        start: Some(v1::StartPosition {
            position: Some(position),
        }),
        ..start(SESSION_MS)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_cannot_be_a_member_are_refused() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 1).await;
    let own = v1::SubscribeStart {
        partitions: vec![v1::PartitionPosition {
            topic: TOPIC.to_owned(),
            ..v1::PartitionPosition::default()
        }],
        ..start(SESSION_MS)
    };
    let topics = |topics: &[&str]| v1::SubscribeStart {
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        ..start(SESSION_MS)
    };
    let invalid = Code::InvalidArgument;
    for (asked, code, why, says) in [
        (own, invalid, "GROUP_ASSIGNS", "no partitions"),
        (group(|group| group.name.clear()), invalid, "NAME_INVALID", "empty"),
        (
            group(|group| group.name = "a b".to_owned()),
            invalid,
            "NAME_INVALID",
            "' '",
        ),
        (topics(&[]), invalid, "GROUP_REQUEST_INVALID", "names the topics"),
        (topics(&[TOPIC, "absent"]), Code::NotFound, "TOPIC_UNKNOWN", "absent"),
        (topics(&[TOPIC; 1_001]), invalid, "TOPICS_TOO_MANY", "1000"),
        (
            group(|group| group.session_timeout_ms = 999),
            invalid,
            "GROUP_REQUEST_INVALID",
            "1000 to 600000",
        ),
        (
            group(|group| group.session_timeout_ms = 600_001),
            invalid,
            "GROUP_REQUEST_INVALID",
            "1000 to 600000",
        ),
        (
            group(|group| group.client_id = "x".repeat(250)),
            invalid,
            "GROUP_REQUEST_INVALID",
            "249",
        ),
        (from(Position::Offset(3)), invalid, "GROUP_START_INVALID", "group reset"),
        (
            from(Position::TimestampMs(3)),
            invalid,
            "GROUP_START_INVALID",
            "group reset",
        ),
    ] {
        let refused = Reader::open(&grpc, asked).await.err().expect(why);
        assert_eq!((refused.code(), reason(&refused).as_str()), (code, why), "{refused}");
        assert!(refused.message().contains(says), "{}", refused.message());
    }
    let list = grpc.groups().list_groups(v1::ListGroupsRequest {}).await.unwrap();
    assert!(list.into_inner().groups.is_empty(), "nobody has joined");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_a_member_cannot_send_end_its_call() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    let list = |numbers: &[u32]| v1::PartitionList {
        partitions: numbers.iter().map(|number| place(*number)).collect(),
    };
    let assign = v1::PartitionPositions {
        partitions: vec![v1::PartitionPosition {
            topic: TOPIC.to_owned(),
            ..v1::PartitionPosition::default()
        }],
    };
    for (message, code, why) in [
        (Message::Assign(assign), Code::InvalidArgument, "GROUP_ASSIGNS"),
        (Message::Unassign(list(&[0])), Code::InvalidArgument, "GROUP_ASSIGNS"),
        (Message::Release(list(&[2])), Code::Aborted, "PARTITION_NOT_OWNED"),
        (Message::Release(list(&[0])), Code::InvalidArgument, "RELEASE_NOT_ASKED"),
        (Message::CreditBytes(0), Code::InvalidArgument, "CREDITS_INVALID"),
    ] {
        let mut reader = Reader::join(&grpc, SESSION_MS).await;
        reader.until(|reader| reader.held.len() == 2).await;
        reader.ask(message);
        let refused = reader.end().await;
        assert_eq!((refused.code(), reason(&refused).as_str()), (code, why), "{refused}");
        assert!(members(&grpc).await.is_empty(), "it has left before it was told");
    }
    let plain = v1::SubscribeStart {
        group: None,
        ..start(SESSION_MS)
    };
    let mut reader = Reader::open(
        &grpc,
        v1::SubscribeStart {
            topics: Vec::new(),
            ..plain
        },
    )
    .await
    .unwrap();
    reader.ask(Message::Release(list(&[0])));
    let refused = reader.end().await;
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::InvalidArgument, "GROUP_MISSING")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_released_once_and_only_with_others_that_were_asked_back() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    for twice in [true, false] {
        let mut reader = Reader::join(&grpc, SESSION_MS).await;
        reader.until(|reader| reader.held.len() == 2).await;
        let other = Reader::join(&grpc, SESSION_MS).await;
        reader.until(|reader| reader.asked_back.len() == 1).await;
        let asked = *reader.asked_back.first().unwrap();
        let (first, second) = match twice {
            true => (vec![place(asked)], Some(vec![place(asked)])),
            false => (vec![place(asked), place(1 - asked)], None),
        };
        for partitions in std::iter::once(first).chain(second) {
            reader.ask(Message::Release(v1::PartitionList { partitions }));
        }
        let refused = reader.end().await;
        let why = if twice {
            "PARTITION_NOT_OWNED"
        } else {
            "RELEASE_NOT_ASKED"
        };
        assert_eq!(reason(&refused), why);
        assert!(members(&grpc).await.iter().all(|(id, _)| *id == other.id));
        drop(other);
        while !members(&grpc).await.is_empty() {
            tokio::time::sleep(BEAT).await;
        }
    }
}
