//! Modules on a running agent: what misbehaves harms nobody else, what fails goes by its stage's policy, and a reader may
//! ask for a stage of its own.

mod altering;
mod answers;
mod deploying;
mod failing;
mod fetch_bounds;
mod fetch_stage;
mod limits;

use std::fmt::Debug;

use bytes::Bytes;
use millstream_proto::v1;
use millstream_tests::{Agent, Grpc, Setup, record, values};
use tonic::{Code, Status};

/// The code of a refusal, and words that its message must have.
#[track_caller]
fn assert_refused<T: Debug>(result: Result<T, Status>, code: Code, words: &[&str]) {
    let status = result.expect_err("it was accepted");
    assert_eq!(status.code(), code, "{}", status.message());
    assert_says(status.message(), words);
}

#[track_caller]
fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}

/// An agent with a calm topic, which nothing that happens to others may disturb.
struct Mill {
    agent: Agent,
    grpc: Grpc,
    calm: u64,
}

impl Mill {
    async fn start() -> Mill {
        Mill::with(Setup::new()).await
    }

    async fn with(setup: Setup) -> Mill {
        let agent = setup.start();
        let grpc = agent.grpc().await;
        grpc.create_topic("calm", 1).await.unwrap();
        Mill { agent, grpc, calm: 0 }
    }

    /// A topic of two partitions, each with a record.
    async fn topic(&self, topic: &str) {
        self.grpc.create_topic(topic, 2).await.unwrap();
        for partition in 0..2 {
            self.grpc
                .produce(topic, partition, vec![record("before")])
                .await
                .unwrap();
        }
    }

    /// A topic of two partitions, each with a record, and a module of the same name on one side of it.
    async fn topic_through(
        &self,
        topic: &str,
        module: impl Into<Bytes>,
        side: v1::PipelineSide,
        on_error: v1::OnError,
    ) {
        self.topic(topic).await;
        self.grpc.deploy(topic, module).await.unwrap();
        self.add(topic, side, stage(topic, on_error)).await.unwrap();
    }

    /// Appends a stage, without a trial call: that would meet what the test is about.
    async fn add(&self, topic: &str, side: v1::PipelineSide, stage: v1::Stage) -> Result<v1::Pipeline, Status> {
        let request = v1::AddStageRequest {
            topic: topic.to_owned(),
            side: side.into(),
            stage: Some(stage),
            no_trial_call: true,
            ..v1::AddStageRequest::default()
        };
        let answer = self.grpc.pipelines().add_stage(request).await?.into_inner();
        Ok(answer.pipeline.expect("a changed pipeline is answered"))
    }

    /// Every value of a partition.
    async fn values(&self, topic: &str, partition: u32) -> Vec<String> {
        values(&self.grpc.read(topic, partition, 0).await.unwrap())
    }

    /// The agent serves, and nothing that it acknowledged on the calm topic is lost.
    async fn assert_calm(&mut self) {
        let answer = self.grpc.produce("calm", 0, vec![record(self.calm.to_string())]).await;
        assert_eq!(answer.unwrap().base_offset, self.calm);
        self.calm += 1;
        let expected: Vec<_> = (0..self.calm).map(|n| n.to_string()).collect();
        assert_eq!(self.values("calm", 0).await, expected);
    }
}

/// A stage of a module's current version.
fn stage(module: &str, on_error: v1::OnError) -> v1::Stage {
    v1::Stage {
        module: module.to_owned(),
        on_error: on_error.into(),
        ..v1::Stage::default()
    }
}
