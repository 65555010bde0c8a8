//! Modules on fetch: offsets stay, readers move on over what was left out, and nothing becomes more.

use millstream_client::{Connection, Consumer, ConsumerSettings, Start};
use millstream_proto::v1::PipelineSide::Fetch;
use millstream_tests::{Agent, Grpc, modules, record, wat};
use tonic::Code;

const BATCHES: u64 = 20;
const RECORDS_PER_BATCH: u64 = 50;
const RECORDS: u64 = BATCHES * RECORDS_PER_BATCH;

/// An agent with numbered documents, half of them in segments, and a stage on fetch.
async fn agent_with(module: &str, params: &[(&str, &str)]) -> (Agent, Grpc) {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    for batch in 0..BATCHES {
        let numbers = batch * RECORDS_PER_BATCH..(batch + 1) * RECORDS_PER_BATCH;
        let records = numbers
            .map(|n| record(format!(r#"{{"n":{n},"secret":"s{n}"}}"#)))
            .collect();
        grpc.produce("t", 0, records).await.unwrap();
        if batch == BATCHES / 2 {
            grpc.partitions("t", true).await.unwrap();
        }
    }
    grpc.deploy(module, modules::component(module)).await.unwrap();
    grpc.add_stage("t", Fetch, module, params).await.unwrap();
    (agent, grpc)
}

async fn consume(agent: &Agent, max_bytes: u32) -> Vec<(u64, String)> {
    let settings = ConsumerSettings {
        max_bytes,
        ..ConsumerSettings::default()
    };
    let connection = Connection::open(&agent.url()).await.unwrap();
    let mut consumer = Consumer::open(&connection, "t", 0, Start::Earliest, settings)
        .await
        .unwrap();
    let mut read = Vec::new();
    let mut next = 0;
    while next < RECORDS {
        let chunk = consumer.next_chunk().await.unwrap();
        next = chunk.next_offset;
        for record in chunk.records {
            read.push((
                record.offset,
                String::from_utf8(record.value.unwrap().to_vec()).unwrap(),
            ));
        }
    }
    read
}

#[tokio::test]
async fn a_filter_leaves_offsets_and_hides_the_rest() {
    let (agent, grpc) = agent_with("json-filter", &[("where", "$.n >= 333")]).await;

    let read = grpc.read("t", 0, 0).await.unwrap();
    let offsets: Vec<_> = read.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, (333..RECORDS).collect::<Vec<_>>());
    // Whatever the size of a fetch, a consumer sees all that remain.
    for max_bytes in [1, 5_000, 16 << 20] {
        let consumed = consume(&agent, max_bytes).await;
        let expected: Vec<_> = (333..RECORDS)
            .map(|n| (n, format!(r#"{{"n":{n},"secret":"s{n}"}}"#)))
            .collect();
        assert_eq!(consumed, expected, "fetches of {max_bytes} bytes");
    }
    // Nothing of the stored log has changed.
    grpc.remove_stage("t", Fetch).await.unwrap();
    assert_eq!(grpc.read("t", 0, 0).await.unwrap().len() as u64, RECORDS);
}

#[tokio::test]
async fn next_offset_passes_over_what_was_filtered() {
    let (agent, grpc) = agent_with("json-filter", &[("where", "$.n < 0")]).await;
    for from in [0, 7, RECORDS - 1] {
        let fetched = grpc.fetch("t", 0, from).await.unwrap();
        assert_eq!((fetched.records.len(), fetched.next_offset), (0, RECORDS));
    }
    assert!(agent.cli(["consume", "t"]).ok().is_empty());
}

#[tokio::test]
async fn a_fetch_from_within_a_batch_begins_there() {
    let (_agent, grpc) = agent_with("json-filter", &[("where", "$.n != 76")]).await;
    let fetched = grpc.fetch("t", 0, 75).await.unwrap();
    let offsets: Vec<_> = fetched.records.iter().map(|record| record.offset).take(3).collect();
    assert_eq!(offsets, [75, 77, 78]);
}

#[tokio::test]
async fn a_map_changes_values_and_keeps_offsets() {
    let (agent, grpc) = agent_with("redact", &[("fields", "$.secret")]).await;
    let expected: Vec<_> = (0..RECORDS)
        .map(|n| (n, format!(r#"{{"n":{n},"secret":"***"}}"#)))
        .collect();
    assert_eq!(consume(&agent, 1 << 20).await, expected);
    let read = grpc.read("t", 0, RECORDS - 5).await.unwrap();
    assert_eq!(read.len(), 5);
}

#[tokio::test]
async fn a_module_that_makes_two_of_one_is_refused() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    grpc.deploy("doubles", wat::module(wat::DOUBLES)).await.unwrap();
    grpc.produce("t", 0, vec![record("a")]).await.unwrap();
    grpc.add_stage("t", Fetch, "doubles", &[]).await.unwrap();

    let refused = grpc.fetch("t", 0, 0).await.expect_err("two of one");
    assert_eq!(refused.code(), Code::Aborted);
    let says = "module doubles@1 failed on fetch at offset 0: the module returned a wrong answer: it made 2 records of \
                one; on fetch a record may become one or none";
    assert_eq!(refused.message(), says);
    grpc.remove_stage("t", Fetch).await.unwrap();
    assert_eq!(grpc.read("t", 0, 0).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_module_may_make_two_of_one_on_produce() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    grpc.deploy("doubles", wat::module(wat::DOUBLES)).await.unwrap();
    let side = millstream_proto::v1::PipelineSide::Produce;
    grpc.add_stage("t", side, "doubles", &[]).await.unwrap();
    for n in 0..3 {
        let answer = grpc.produce("t", 0, vec![record(n.to_string())]).await.unwrap();
        assert_eq!((answer.base_offset, answer.record_count), (n * 2, 2));
    }
    let read = millstream_tests::values(&grpc.read("t", 0, 0).await.unwrap());
    assert_eq!(read, ["0", "0", "1", "1", "2", "2"]);
}
