//! What outlives an agent: records, topics, modules and pipelines; and pipelines that change while records flow.
//!
//! Stopping an agent blocks a thread, and its clients have to hear of it meanwhile: these tests have several.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use millstream_proto::v1::{self, PipelineSide::Fetch, PipelineSide::Produce};
use millstream_tests::{Agent, Grpc, Setup, modules, record, values, wat};
use tokio::{sync::watch, task::JoinSet};

/// Folders of write-ahead logs in a data folder.
fn wals(data_dir: &Path) -> usize {
    fs::read_dir(data_dir.join("wal")).map_or(0, Iterator::count)
}

async fn fill(grpc: &Grpc, topic: &str, partitions: u32, batches: u32) {
    for batch in 0..batches {
        for partition in 0..partitions {
            let records = (0..10).map(|i| record(format!("{partition}-{batch}-{i}"))).collect();
            grpc.produce(topic, partition, records).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_puts_everything_into_segments_and_leaves_no_wal() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 3).await.unwrap();
    fill(&grpc, "t", 3, 7).await;
    let before: Vec<_> = read_all(&grpc, "t", 3).await;
    assert_eq!(wals(agent.data_dir()), 1);

    let setup = agent.terminate();
    assert_eq!(wals(setup.data_dir()), 0);

    let agent = setup.start();
    let grpc = agent.grpc().await;
    for status in grpc.partitions("t", false).await.unwrap() {
        assert_eq!((status.log_start_offset, status.high_watermark), (0, 70));
        assert_eq!((status.committed_end, status.segment_count), (70, 1));
    }
    assert_eq!(read_all(&grpc, "t", 3).await, before);
    let answer = grpc.produce("t", 1, vec![record("next")]).await.unwrap();
    assert_eq!(answer.base_offset, 70);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_what_is_under_way() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    let acked = Arc::new(watch::Sender::new(0u64));
    let producer = tokio::spawn({
        let (grpc, acked) = (grpc.clone(), acked.clone());
        async move {
            while grpc.produce("t", 0, vec![record("v")]).await.is_ok() {
                acked.send_modify(|acked| *acked += 1);
            }
        }
    });
    acked.subscribe().wait_for(|acked| *acked >= 50).await.unwrap();
    let setup = agent.terminate();
    producer.await.unwrap();

    let agent = setup.start();
    let (_, end) = agent.grpc().await.offsets("t", 0).await.unwrap();
    let acked = *acked.borrow();
    assert!(end == acked || end == acked + 1, "{acked} acknowledged, {end} stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_modules_and_pipelines_survive_a_stop_and_a_kill() {
    let mut agent = Agent::start();
    let grpc = agent.grpc().await;
    let json_filter = modules::component("json-filter");
    let deployed = grpc.deploy("json-filter", json_filter.clone()).await.unwrap();
    grpc.create_topic("t", 2).await.unwrap();
    let params = [("where", "$.n != 1")];
    grpc.add_stage("t", Produce, "json-filter", &params).await.unwrap();
    let pipeline = grpc
        .add_stage("t", Fetch, "json-filter", &[("where", "$.n != 2")])
        .await
        .unwrap();
    assert_eq!(pipeline.version, 2);

    for round in 0..4u64 {
        let grpc = agent.grpc().await;
        let records = (0..4).map(|n| record(format!(r#"{{"n":{n}}}"#))).collect();
        let answer = grpc.produce("t", 0, records).await.unwrap();
        assert_eq!(
            (
                answer.base_offset,
                answer.record_count,
                answer.dropped_count,
                answer.pipeline_version
            ),
            (round * 3, 3, 1, 2)
        );
        assert_eq!(grpc.read("t", 0, round * 3).await.unwrap().len(), 2);
        let request = v1::GetPipelineRequest { topic: "t".to_owned() };
        let found = grpc.pipelines().get_pipeline(request).await.unwrap().into_inner();
        assert_eq!(found.pipeline.as_ref(), Some(&pipeline));
        let again = grpc.deploy("json-filter", json_filter.clone()).await.unwrap();
        assert_eq!(again, deployed);
        agent = if round % 2 == 0 {
            agent.restart()
        } else {
            agent.kill9().start()
        };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_stays_deleted_and_its_name_is_free() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 2).await.unwrap();
    fill(&grpc, "t", 2, 3).await;
    let name = "t".to_owned();
    grpc.topics()
        .delete_topic(v1::DeleteTopicRequest { name })
        .await
        .unwrap();
    let agent = agent.kill9().start();
    let grpc = agent.grpc().await;
    grpc.assert_serves("t").await;
    let agent = agent.restart();
    assert_eq!(values(&agent.grpc().await.read("t", 0, 0).await.unwrap()), ["works"]);
}

async fn read_all(grpc: &Grpc, topic: &str, partitions: u32) -> Vec<Vec<v1::Record>> {
    let mut all = Vec::new();
    for partition in 0..partitions {
        all.push(grpc.read(topic, partition, 0).await.unwrap());
    }
    all
}

/// What a producer was told of its records.
struct Told {
    base_offset: u64,
    first: u64,
    count: u64,
    pipeline_version: u64,
}

/// Produces `partition number` until enough pipelines were seen.
async fn produce_through(
    grpc: Grpc,
    partition: u32,
    newest: Arc<AtomicU64>,
    progress: Arc<watch::Sender<u64>>,
) -> Vec<Told> {
    const VERSIONS: u64 = 12;
    let (mut told, mut next) = (Vec::<Told>::new(), 0);
    while told.last().is_none_or(|last| last.pipeline_version < VERSIONS) {
        let count = 1 + next % 7;
        let records = (next..next + count)
            .map(|n| record(format!("{partition} {n}")))
            .collect();
        // Whoever begins after a change was answered goes through that change or a later one.
        let newest = newest.load(Ordering::Acquire);
        let answer = grpc.produce("t", partition, records).await.unwrap();
        assert!(
            answer.pipeline_version >= newest,
            "an old pipeline after its successor was active"
        );
        assert!(
            told.last()
                .is_none_or(|last| last.pipeline_version <= answer.pipeline_version),
            "pipeline versions go back"
        );
        told.push(Told {
            base_offset: answer.base_offset,
            first: next,
            count,
            pipeline_version: answer.pipeline_version,
        });
        next += count;
        progress.send_modify(|acked| *acked += 1);
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_changes_between_two_batches_of_a_running_producer() {
    const PARTITIONS: u32 = 3;
    let agent = Setup::new().env("MILLSTREAM_SEGMENT_BYTES", 16 << 10).start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", PARTITIONS).await.unwrap();
    // Each record becomes itself, over one stage or two: what is stored is always what was sent.
    grpc.deploy("keeps", wat::module(wat::KEEPS)).await.unwrap();
    let (newest, progress) = (Arc::<AtomicU64>::default(), Arc::new(watch::Sender::new(0u64)));
    let mut producers = JoinSet::new();
    for partition in 0..PARTITIONS {
        let produce = produce_through(grpc.clone(), partition, newest.clone(), progress.clone());
        producers.spawn(async move { (partition, produce.await) });
    }

    for change in 0..12 {
        let seen = *progress.borrow();
        progress.subscribe().wait_for(|acked| *acked > seen + 10).await.unwrap();
        let pipeline = if change % 3 == 2 {
            grpc.remove_stage("t", Produce).await.unwrap()
        } else {
            grpc.add_stage("t", Produce, "keeps", &[]).await.unwrap()
        };
        assert_eq!(pipeline.version, change + 1);
        newest.store(pipeline.version, Ordering::Release);
    }

    for (partition, told) in producers.join_all().await {
        let read = values(&grpc.read("t", partition, 0).await.unwrap());
        let sent: u64 = told.iter().map(|told| told.count).sum();
        let expected: Vec<_> = (0..sent).map(|n| format!("{partition} {n}")).collect();
        assert_eq!(read, expected, "lost, doubled or out of order");
        for told in told {
            assert_eq!(told.base_offset, told.first);
        }
    }
}
