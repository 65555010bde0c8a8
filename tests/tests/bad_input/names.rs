//! Names of every byte: what is allowed is taken, all else is refused, and no name leads anywhere that it should not.

use std::time::Duration;

use futures::stream;
use millstream_proto::v1;
use millstream_tests::{
    Agent, Grpc, place,
    raw::{self, Body},
    record,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::assert_says;

const PATIENCE: Duration = Duration::from_secs(60);

/// Methods that make what their first field names, and the fields that they need beside it.
const MAKERS: [(&str, &str, &[u8]); 3] = [
    ("/millstream.v1.TopicService/CreateTopic", "topic", &[0x10, 1]),
    ("/millstream.v1.ProducerService/InitProducer", "producer", &[]),
    // It reads the topic "t".
    ("/millstream.v1.GroupService/Heartbeat", "group", &[0x2a, 1, b't']),
];

/// Makes something of a name that need not be text.
async fn make(grpc: &Grpc, path: &str, name: &[u8], rest: &[u8]) -> Status {
    let mut message = vec![0x0a, name.len() as u8];
    message.extend(name);
    message.extend(rest);
    raw::call(grpc.channel(), path, &Body::of([message]), PATIENCE)
        .await
        .status()
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.unwrap_or_else(|| panic!("{status:?}")).reason
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

#[tokio::test]
async fn of_every_byte_a_name_takes_those_that_are_allowed_and_no_other() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    for (path, what, rest) in MAKERS {
        for byte in 0..=u8::MAX {
            let made = make(&grpc, path, &[b'a', byte, b'z'], rest).await;
            let place = format!("{what} name with {byte:#04x}: {made:?}");
            if is_allowed(byte) {
                assert_eq!(made.code(), Code::Ok, "{place}");
                continue;
            }
            assert_eq!(made.code(), Code::InvalidArgument, "{place}");
            if byte.is_ascii() {
                assert_eq!(reason(&made), "NAME_INVALID", "{place}");
                let found = format!("contains {:?}", char::from(byte));
                assert_says(made.message(), &[what, &found, "allowed are 1 to 249 characters"]);
            } else {
                // Not even text.
                assert_eq!(reason(&made), "MESSAGE_MALFORMED", "{place}");
                assert_says(made.message(), &["UTF-8"]);
            }
        }
    }
    let listed = grpc.topics().list_topics(v1::ListTopicsRequest {}).await.unwrap();
    let listed = listed.into_inner().topics;
    assert_eq!(listed.len(), (0..=u8::MAX).filter(|byte| is_allowed(*byte)).count());
    grpc.assert_serves("t").await;
}

#[tokio::test]
async fn a_name_with_a_character_of_several_bytes_is_refused_with_that_character() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    // The first and last of two, three and four bytes; a look-alike of 'a', a letter with a mark of its own, an emoji, and
    // marks that are not seen.
    let characters = [
        '\u{80}',
        '\u{7ff}',
        '\u{800}',
        '\u{ffff}',
        '\u{10000}',
        '\u{10ffff}',
        'а',
        '\u{301}',
        '🦀',
        '\u{200b}',
        '\u{202e}',
    ];
    for (path, what, rest) in MAKERS {
        for character in characters {
            let name = format!("a{character}z");
            let made = make(&grpc, path, name.as_bytes(), rest).await;
            assert_eq!(made.code(), Code::InvalidArgument, "{what} {name:?}: {made:?}");
            assert_eq!(reason(&made), "NAME_INVALID", "{what} {name:?}: {made:?}");
            let found = format!("contains {character:?}");
            assert_says(made.message(), &[what, &found, "allowed are 1 to 249 characters"]);
        }
        // Cut off in the midst of a character, a surrogate, a '/' that takes two bytes too many, and beyond the last character.
        for bytes in [
            &b"a\xc3"[..],
            b"a\xed\xa0\x80z",
            b"a\xe0\x80\xafz",
            b"a\xf4\x90\x80\x80z",
        ] {
            let made = make(&grpc, path, bytes, rest).await;
            assert_eq!(made.code(), Code::InvalidArgument, "{what} {bytes:?}: {made:?}");
            assert_eq!(reason(&made), "MESSAGE_MALFORMED", "{what} {bytes:?}: {made:?}");
        }
    }
    let listed = grpc.topics().list_topics(v1::ListTopicsRequest {}).await.unwrap();
    assert_eq!(listed.into_inner().topics, []);
    grpc.assert_serves("t").await;
}

#[tokio::test]
async fn a_name_as_long_as_a_message_is_answered_at_once() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    let long = "t".repeat(3 << 20);
    let refused = grpc.fetch(&long, 0, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
    // Here the nearest name is looked for.
    let request = v1::GetPipelineRequest { topic: long.clone() };
    let refused = grpc.pipelines().get_pipeline(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
    assert!(!refused.message().contains("Did you mean"), "{refused:?}");
    let refused = grpc.create_topic(&long, 1).await.unwrap_err();
    assert_says(refused.message(), &["3145728 characters", "allowed are"]);
    assert!(refused.message().len() < 1_000, "{refused:?}");
    grpc.assert_serves("u").await;
}

#[tokio::test]
async fn whoever_names_a_topic_that_is_not_there_is_told_the_nearest_one() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("orders", 1).await.unwrap();
    let whole = v1::FetchRequest {
        partitions: vec![place("order", 0, 0)],
        ..v1::FetchRequest::default()
    };
    let request = v1::ProduceStreamRequest {
        produce: Some(v1::ProduceRequest {
            topic: "order".to_owned(),
            payload: Some(v1::produce_request::Payload::Records(v1::RecordList {
                records: vec![record("a")],
            })),
            ..v1::ProduceRequest::default()
        }),
    };
    let answers = grpc.producer().produce_stream(stream::iter([request])).await.unwrap();
    let streamed = answers.into_inner().message().await.unwrap().unwrap().result;
    let Some(v1::produce_stream_response::Result::Error(streamed)) = streamed else {
        panic!("{streamed:?}");
    };
    let start = v1::SubscribeStart {
        topics: vec!["order".to_owned()],
        ..v1::SubscribeStart::default()
    };
    let request = v1::SubscribeRequest {
        message: Some(v1::subscribe_request::Message::Start(start)),
    };
    let subscribed = grpc.consumer().subscribe(stream::iter([request])).await.unwrap_err();
    for (what, told) in [
        (
            "produce",
            grpc.produce("order", 0, vec![record("a")]).await.unwrap_err().message(),
        ),
        ("a stream", &streamed.message),
        ("fetch", grpc.fetch("order", 0, 0).await.unwrap_err().message()),
        ("whole batches", grpc.fetch_one(whole).await.unwrap_err().message()),
        ("offsets", grpc.offsets("order", 0).await.unwrap_err().message()),
        ("subscribe", subscribed.message()),
        ("a topic", grpc.partitions("order", false).await.unwrap_err().message()),
    ] {
        assert!(told.contains("Did you mean orders?"), "{what}: {told}");
    }
    grpc.assert_serves("t").await;
}
