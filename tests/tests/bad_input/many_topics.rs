//! Ten thousand topics: as many as anybody makes by mistake.

use futures::{StreamExt as _, stream};
use millstream_proto::v1;
use millstream_tests::{Agent, Grpc, record, values};

use crate::assert_says;

const TOPICS: usize = 10_000;
/// Calls under way at once.
const AT_ONCE: usize = 32;
/// Every so many topics one is written.
const WRITTEN: usize = 500;

fn name(n: usize) -> String {
    format!("topic-{n:05}")
}

async fn names(grpc: &Grpc) -> Vec<String> {
    let listed = grpc.topics().list_topics(v1::ListTopicsRequest {}).await.unwrap();
    let listed = listed.into_inner().topics;
    listed.into_iter().map(|topic| topic.name).collect()
}

fn written() -> impl Iterator<Item = String> {
    (0..TOPICS).step_by(WRITTEN).map(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_topics_are_made_listed_written_and_found_by_the_next_agent() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    let made = stream::iter(0..TOPICS).map(|n| {
        let grpc = grpc.clone();
        async move { grpc.create_topic(&name(n), 1).await.unwrap() }
    });
    made.buffer_unordered(AT_ONCE).for_each(|_| async {}).await;
    let expected: Vec<_> = (0..TOPICS).map(name).collect();
    assert_eq!(names(&grpc).await, expected);
    for topic in written() {
        grpc.produce(&topic, 0, vec![record(topic.clone())]).await.unwrap();
    }

    let agent = agent.restart();
    let grpc = agent.grpc().await;
    assert_eq!(names(&grpc).await, expected);
    for topic in written() {
        assert_eq!(values(&grpc.read(&topic, 0, 0).await.unwrap()), [topic.as_str()]);
        let answer = grpc.produce(&topic, 0, vec![record("more")]).await.unwrap();
        assert_eq!(answer.base_offset, 1);
    }
    let listed = agent.cli(["topic", "list", "--output", "json"]).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(TOPICS));
    let request = v1::GetPipelineRequest {
        topic: "topic-0000O".to_owned(),
    };
    let refused = grpc.pipelines().get_pipeline(request).await.unwrap_err();
    assert_says(refused.message(), &["Did you mean topic-"]);
    grpc.assert_serves("one-more").await;
}
