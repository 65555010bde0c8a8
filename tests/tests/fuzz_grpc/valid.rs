//! Requests that are right, of every method: what is damaged of them gets deep.

use millstream_proto::v1::{
    self, PipelineSide, module_trial::Mode, produce_request::Payload, start_position::Position,
    subscribe_request::Message as Asked,
};
use millstream_tests::{place, record};
use prost::Message;

use super::fixture::{Fixture, GROUP, KEPT, MODULE, PRODUCER, SPARE, SPARE_GROUP, TOPIC};

/// Calls of a method that are answered without an error, each the messages of its client.
///
/// # Panics
/// For a method that has none here.
pub fn calls(method: &str, fixture: &mut Fixture) -> Vec<Vec<Vec<u8>>> {
    let (service, method) = method
        .strip_prefix("millstream.v1.")
        .and_then(|name| name.split_once('.'))
        .expect("a method has a service of the contract");
    let requests = match service {
        "ClusterService" => cluster(method),
        "ConsumerService" => consumer(method),
        "GroupService" => group(method, fixture),
        "ModuleService" => module(method, fixture),
        "PipelineService" => pipeline(method),
        "ProducerService" => producer(method, fixture),
        "TopicService" => topic(method, fixture),
        _ => Vec::new(),
    };
    assert!(
        !requests.is_empty(),
        "{service}.{method} has no valid request here: add one"
    );
    requests
}

/// A call of one message.
fn one(request: impl Message) -> Vec<Vec<u8>> {
    vec![request.encode_to_vec()]
}

fn owned(name: &str) -> String {
    name.to_owned()
}

fn cluster(method: &str) -> Vec<Vec<Vec<u8>>> {
    match method {
        "ListAgents" => vec![one(v1::ListAgentsRequest {})],
        _ => vec![],
    }
}

fn stage() -> v1::Stage {
    v1::Stage {
        module: owned(MODULE),
        ..v1::Stage::default()
    }
}

fn consumer(method: &str) -> Vec<Vec<Vec<u8>>> {
    let fetch = |format: v1::FetchFormat, stage| v1::FetchRequest {
        partitions: vec![place(KEPT, 0, 3), place(TOPIC, 1, 0)],
        max_bytes: 1_000,
        format: format.into(),
        stage,
        ..v1::FetchRequest::default()
    };
    match method {
        "Fetch" => vec![
            one(fetch(v1::FetchFormat::Records, Some(stage()))),
            one(fetch(v1::FetchFormat::Batches, None)),
        ],
        "ListOffsets" => vec![one(v1::ListOffsetsRequest {
            topic: owned(KEPT),
            partition: 0,
            timestamp_ms: Some(1_000),
        })],
        "Subscribe" => vec![subscription()],
        _ => vec![],
    }
}

fn subscription() -> Vec<Vec<u8>> {
    let partition = |topic: &str, position| v1::PartitionPosition {
        topic: owned(topic),
        partition: 0,
        start: Some(v1::StartPosition {
            position: Some(position),
        }),
    };
    let start = v1::SubscribeStart {
        partitions: vec![partition(KEPT, Position::Offset(3))],
        credit_bytes: 1_000,
        format: v1::FetchFormat::Records.into(),
        stage: Some(stage()),
        ..v1::SubscribeStart::default()
    };
    let assign = v1::PartitionPositions {
        partitions: vec![partition(TOPIC, Position::Earliest(true))],
    };
    let unassign = v1::PartitionList {
        partitions: vec![v1::TopicPartition {
            topic: owned(TOPIC),
            partition: 0,
        }],
    };
    let messages = [
        Asked::Start(start),
        Asked::CreditBytes(100_000),
        Asked::Assign(assign),
        Asked::Unassign(unassign),
    ];
    let messages = messages.map(|message| v1::SubscribeRequest { message: Some(message) }.encode_to_vec());
    messages.to_vec()
}

fn group(method: &str, fixture: &Fixture) -> Vec<Vec<Vec<u8>>> {
    let partition = v1::TopicPartition {
        topic: owned(KEPT),
        partition: 0,
    };
    let request = match method {
        "Heartbeat" => one(fixture.heartbeat()),
        "LeaveGroup" => one(v1::LeaveGroupRequest {
            group: fixture.heartbeat().group,
            member_id: fixture.member_id.clone(),
        }),
        "CommitOffsets" => one(v1::CommitOffsetsRequest {
            group: owned(GROUP),
            offsets: vec![v1::CommittedOffset {
                topic: owned(KEPT),
                partition: 1,
                offset: 7,
                metadata: owned("note"),
                ..v1::CommittedOffset::default()
            }],
            ..v1::CommitOffsetsRequest::default()
        }),
        "FetchOffsets" => one(v1::FetchOffsetsRequest {
            group: owned(GROUP),
            partitions: vec![partition],
        }),
        "ListGroups" => one(v1::ListGroupsRequest {}),
        "GetGroup" => one(v1::GetGroupRequest { name: owned(GROUP) }),
        "ResetGroup" => one(v1::ResetGroupRequest {
            group: owned(GROUP),
            partitions: vec![partition],
            to: Some(v1::StartPosition {
                position: Some(Position::Offset(5)),
            }),
            ..v1::ResetGroupRequest::default()
        }),
        "DeleteGroup" => one(v1::DeleteGroupRequest {
            name: owned(SPARE_GROUP),
        }),
        _ => return vec![],
    };
    vec![request]
}

fn module(method: &str, fixture: &Fixture) -> Vec<Vec<Vec<u8>>> {
    let name = owned(MODULE);
    let request = match method {
        "DeployModule" => one(v1::DeployModuleRequest {
            name,
            component: fixture.component().into(),
            trial: Some(v1::ModuleTrial {
                mode: Some(Mode::Canary(v1::module_trial::Canary { partitions: vec![1] })),
            }),
            no_trial_call: false,
        }),
        "ListModules" => one(v1::ListModulesRequest {}),
        "DownloadModule" => one(v1::DownloadModuleRequest { name, version: 1 }),
        "PromoteModule" => one(v1::PromoteModuleRequest { name }),
        "RollbackModule" => one(v1::RollbackModuleRequest { name, version: 0 }),
        "ModuleLogs" => one(v1::ModuleLogsRequest {
            name,
            ..v1::ModuleLogsRequest::default()
        }),
        _ => return vec![],
    };
    vec![request]
}

fn pipeline(method: &str) -> Vec<Vec<Vec<u8>>> {
    let (topic, side) = (owned(TOPIC), PipelineSide::Produce.into());
    let request = match method {
        "AddStage" => one(v1::AddStageRequest {
            topic,
            side,
            stage: Some(v1::Stage {
                on_error: v1::OnError::DeadLetter.into(),
                limits: Some(v1::StageLimits {
                    cpu_ms: Some(10),
                    ..v1::StageLimits::default()
                }),
                breaker: Some(v1::Breaker {
                    failures: 3,
                    cooldown_ms: 100,
                }),
                ..stage()
            }),
            position: Some(1),
            ..v1::AddStageRequest::default()
        }),
        "AlterStage" => one(v1::AlterStageRequest {
            topic,
            side,
            change: Some(v1::StageChange {
                on_error: v1::OnError::Skip.into(),
                breaker_failures: Some(3),
                move_to: Some(0),
                ..v1::StageChange::default()
            }),
            ..v1::AlterStageRequest::default()
        }),
        "RemoveStage" => one(v1::RemoveStageRequest {
            topic,
            side,
            ..v1::RemoveStageRequest::default()
        }),
        "GetPipeline" => one(v1::GetPipelineRequest { topic }),
        "PausePipeline" => one(v1::PausePipelineRequest { topic, side }),
        "ResumePipeline" => one(v1::ResumePipelineRequest { topic, side }),
        "GetPipelineHistory" => one(v1::GetPipelineHistoryRequest {
            topic,
            partition: Some(0),
            limit: 5,
            ..v1::GetPipelineHistoryRequest::default()
        }),
        _ => return vec![],
    };
    vec![request]
}

fn producer(method: &str, fixture: &Fixture) -> Vec<Vec<Vec<u8>>> {
    let produce = |topic: &str, payload| v1::ProduceRequest {
        topic: owned(topic),
        partition: 1,
        payload: Some(payload),
        acks: v1::Acks::Durable.into(),
    };
    let batch = || Payload::Batch(fixture.batch().into());
    let records = || {
        let plain = v1::Record {
            key: Some("key".into()),
            headers: vec![v1::Header {
                key: owned("h"),
                value: Some("1".into()),
            }],
            timestamp_ms: Some(1_700_000_000_000),
            ..record("value")
        };
        Payload::Records(v1::RecordList { records: vec![plain] })
    };
    let streamed = |produce| {
        let request = v1::ProduceStreamRequest { produce: Some(produce) };
        request.encode_to_vec()
    };
    match method {
        "Produce" => vec![
            one(produce(KEPT, batch())),
            one(produce(TOPIC, batch())),
            one(produce(KEPT, records())),
        ],
        "ProduceStream" => vec![vec![
            streamed(produce(KEPT, records())),
            streamed(produce(TOPIC, batch())),
            streamed(produce(KEPT, batch())),
        ]],
        "InitProducer" => vec![one(v1::InitProducerRequest {
            producer_name: owned(PRODUCER),
            ..v1::InitProducerRequest::default()
        })],
        _ => vec![],
    }
}

fn topic(method: &str, fixture: &mut Fixture) -> Vec<Vec<Vec<u8>>> {
    let name = owned(SPARE);
    let config = v1::TopicConfig {
        retention_ms: Some(0),
        record_bytes_max: Some(1_000),
        segment_age_ms: Some(100),
        ..v1::TopicConfig::default()
    };
    let request = match method {
        "CreateTopic" => one(v1::CreateTopicRequest {
            name: fixture.new_name(),
            partitions: 2,
            config: Some(config),
        }),
        "ListTopics" => one(v1::ListTopicsRequest {}),
        "GetTopic" => one(v1::GetTopicRequest {
            name: owned(KEPT),
            flush: true,
            without_partitions: false,
        }),
        "AlterTopic" => one(v1::AlterTopicRequest {
            name,
            config: Some(config),
            partitions: Some(2),
        }),
        "TruncateTopic" => one(v1::TruncateTopicRequest {
            name,
            ..v1::TruncateTopicRequest::default()
        }),
        "DeleteTopic" => one(v1::DeleteTopicRequest { name }),
        _ => return vec![],
    };
    vec![request]
}
