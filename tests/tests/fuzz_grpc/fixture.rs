//! An agent that has something of everything: a topic whose records are kept, and others that requests may change and delete.

use millstream_batch::{BatchBuilder, Compression};
use millstream_proto::v1;
use millstream_tests::{Agent, Grpc, record, values, wat};
use tonic::{Status, transport::Channel};

/// Its records are there at the end: it is written and read, and nothing else.
pub const KEPT: &str = "kept";
/// It has a pipeline, which changes.
pub const TOPIC: &str = "changing";
/// It is altered, truncated and deleted.
pub const SPARE: &str = "spare";
/// A tool commits in its name.
pub const GROUP: &str = "tools";
/// It has members.
pub const MEMBERS: &str = "members";
/// It is deleted.
pub const SPARE_GROUP: &str = "spare-group";
/// Two versions of it are deployed, one of which is tried.
pub const MODULE: &str = "module";
/// It was given an id.
pub const PRODUCER: &str = "producer";

const PARTITIONS: u32 = 3;
const MEMBER_SESSION_MS: u32 = 600_000;

/// The agent, and what there is to name.
pub struct Fixture {
    agent: Agent,
    grpc: Grpc,
    pub producer_id: i64,
    pub member_id: String,
    pub generation: u64,
    made: u32,
}

/// Whether a method takes something away that others need.
pub fn takes_away(method: &str) -> bool {
    ["Delete", "Leave", "Remove", "Pause", "Promote", "Rollback"]
        .iter()
        .any(|word| method.starts_with(word))
}

fn kept_values(partition: u32) -> Vec<String> {
    (0..50).map(|n| format!("{partition}: kept {n}")).collect()
}

/// What is there already need not be made.
fn unless_there<T>(made: Result<T, Status>) {
    if let Err(status) = made {
        assert_eq!(status.code(), tonic::Code::AlreadyExists, "{status}");
    }
}

impl Fixture {
    pub async fn make() -> Fixture {
        let agent = Agent::start();
        let grpc = agent.grpc().await;
        grpc.create_topic(KEPT, PARTITIONS).await.unwrap();
        for partition in 0..PARTITIONS {
            let records = kept_values(partition).into_iter().map(record).collect();
            grpc.produce(KEPT, partition, records).await.unwrap();
        }
        let request = v1::InitProducerRequest {
            producer_name: PRODUCER.to_owned(),
            ..v1::InitProducerRequest::default()
        };
        let producer = grpc.producer().init_producer(request).await.unwrap().into_inner();
        let mut fixture = Fixture {
            agent,
            grpc,
            producer_id: producer.producer_id,
            member_id: String::new(),
            generation: 0,
            made: 0,
        };
        fixture.restore().await;
        fixture
    }

    pub fn channel(&self) -> Channel {
        self.grpc.channel()
    }

    /// A name that no topic has had.
    pub fn new_name(&mut self) -> String {
        self.made += 1;
        format!("made-{}", self.made)
    }

    /// An encoded batch of the producer's.
    pub fn batch(&self) -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        for value in ["one", "two"] {
            let headers = [("h", Some(&b"1"[..])), ("", None)];
            builder.push(
                1_700_000_000_000,
                Some(b"key"),
                Some(value.as_bytes()),
                headers.into_iter(),
            );
        }
        let batch = builder.build(Compression::Lz4);
        batch.with_producer(self.producer_id, 0, 0).to_bytes().to_vec()
    }

    /// A module's version that is none of those deployed.
    pub fn component(&self) -> Vec<u8> {
        wat::module("(nop) (nop) (i32.const 1024)").to_vec()
    }

    /// Makes again what is missing.
    pub async fn restore(&mut self) {
        unless_there(self.grpc.create_topic(TOPIC, 2).await);
        unless_there(self.grpc.create_topic(SPARE, 1).await);
        self.restore_pipeline().await;
        self.restore_groups().await;
    }

    /// A stage on each side, which follows the current version, and another version beside it.
    async fn restore_pipeline(&self) {
        let request = v1::ResumePipelineRequest {
            topic: TOPIC.to_owned(),
            ..v1::ResumePipelineRequest::default()
        };
        self.grpc.pipelines().resume_pipeline(request).await.unwrap();
        for side in [v1::PipelineSide::Produce, v1::PipelineSide::Fetch] {
            while self.stage_count(side).await > 0 {
                self.grpc.remove_stage(TOPIC, side).await.unwrap();
            }
        }
        self.grpc.deploy(MODULE, wat::module(wat::KEEPS)).await.unwrap();
        for side in [v1::PipelineSide::Produce, v1::PipelineSide::Fetch] {
            self.grpc.add_stage_untried(TOPIC, side, MODULE).await.unwrap();
        }
        let request = v1::DeployModuleRequest {
            name: MODULE.to_owned(),
            component: wat::module("(nop) (i32.const 1024)"),
            trial: Some(v1::ModuleTrial {
                mode: Some(v1::module_trial::Mode::Shadow(v1::module_trial::Shadow {})),
            }),
            no_trial_call: true,
        };
        self.grpc.modules().deploy_module(request).await.unwrap();
    }

    async fn stage_count(&self, side: v1::PipelineSide) -> usize {
        let request = v1::GetPipelineRequest {
            topic: TOPIC.to_owned(),
        };
        let answer = self.grpc.pipelines().get_pipeline(request).await.unwrap().into_inner();
        let pipeline = answer.pipeline.expect("a pipeline is answered");
        match side {
            v1::PipelineSide::Produce => pipeline.produce.len(),
            _ => pipeline.fetch.len(),
        }
    }

    async fn restore_groups(&mut self) {
        for group in [GROUP, SPARE_GROUP] {
            let request = v1::CommitOffsetsRequest {
                group: group.to_owned(),
                offsets: vec![v1::CommittedOffset {
                    topic: KEPT.to_owned(),
                    offset: 3,
                    ..v1::CommittedOffset::default()
                }],
                ..v1::CommitOffsetsRequest::default()
            };
            self.grpc.groups().commit_offsets(request).await.unwrap();
        }
        let mut request = self.heartbeat();
        let mut answer = self.grpc.groups().heartbeat(request.clone()).await;
        if answer.is_err() {
            // It has left, and joins anew.
            (request.member_id, request.generation) = (String::new(), 0);
            answer = self.grpc.groups().heartbeat(request).await;
        }
        let answer = answer.unwrap().into_inner();
        (self.member_id, self.generation) = (answer.member_id, answer.generation);
    }

    /// What the member says.
    pub fn heartbeat(&self) -> v1::HeartbeatRequest {
        v1::HeartbeatRequest {
            group: MEMBERS.to_owned(),
            member_id: self.member_id.clone(),
            generation: self.generation,
            client_id: "fuzz".to_owned(),
            topics: vec![KEPT.to_owned()],
            session_timeout_ms: MEMBER_SESSION_MS,
            owned: Vec::new(),
        }
    }

    /// Nothing has panicked, and the agent is well.
    pub fn assert_sound(&self, after: &str) {
        assert!(!self.agent.log().contains("panicked"), "after {after}");
        let (status, body) = self.agent.get("/healthz");
        assert_eq!(status, 200, "after {after}: {body}");
    }

    async fn assert_keeps_its_records(grpc: &Grpc) {
        for partition in 0..PARTITIONS {
            let read = values(&grpc.read(KEPT, partition, 0).await.unwrap());
            let kept = kept_values(partition);
            assert_eq!(read[..kept.len()], kept, "what came later is behind it");
        }
    }

    /// What was produced first is there, and a new agent finds it.
    pub async fn assert_keeps_its_records_over_a_restart(self) {
        Fixture::assert_keeps_its_records(&self.grpc).await;
        drop(self.grpc);
        let agent = self.agent.restart();
        let grpc = agent.grpc().await;
        Fixture::assert_keeps_its_records(&grpc).await;
        grpc.assert_serves("new").await;
        let log = agent.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}
