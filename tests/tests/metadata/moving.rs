//! From one database into another, and from what the object store holds: everything is read back, and producing goes on.

use millstream_postgres::{Database, Server};
use millstream_proto::v1;
use millstream_tests::{Agent, Grpc, Ran, Setup, record, run, values, wat};
use serde_json::Value;

const PARTITIONS: u32 = 3;
const BATCHES: u64 = 5;
/// Partitions of the topic that was altered.
const ALTERED_PARTITIONS: u32 = 4;
/// Longer than any of these tests takes.
const LEASE_MS: u64 = 600_000;

/// Runs `millstream meta VERB` for the data folder of a setup.
fn meta(setup: &Setup, args: &[&str]) -> Ran {
    let data_dir = setup.data_dir().display().to_string();
    let begin = ["meta", args[0], "--data-dir", &data_dir];
    run(begin.iter().chain(&args[1..]))
}

async fn fill(grpc: &Grpc, from: u64) {
    for batch in from..from + BATCHES {
        for partition in 0..PARTITIONS {
            let records = vec![record(format!("{partition}-{batch}"))];
            let answer = grpc.produce("t", partition, records).await.unwrap();
            assert_eq!(answer.base_offset, batch);
        }
    }
}

async fn assert_holds(grpc: &Grpc, batches: u64) {
    for partition in 0..PARTITIONS {
        let expected: Vec<String> = (0..batches).map(|batch| format!("{partition}-{batch}")).collect();
        assert_eq!(values(&grpc.read("t", partition, 0).await.unwrap()), expected);
    }
}

fn epochs(database: &Database) -> Vec<u64> {
    let epochs = database.sql(
        "SELECT p.epoch FROM partitions p JOIN topics t ON t.id = p.topic_id WHERE t.name = 't' ORDER BY p.partition",
    );
    epochs.lines().map(|epoch| epoch.parse().unwrap()).collect()
}

/// Exports, imports into PostgreSQL with these flags more, and goes on there with the same data folder.
async fn moved(setup: Setup, more: &[&str]) {
    let file = setup.folder().join("metadata.ndjson").display().to_string();
    let report = meta(&setup, &["export", "--out", &file, "--output", "json"]).json();
    assert_eq!(report["header"]["exported_from"], "sqlite");
    let database = Server::shared().database();
    let to = ["import", &file, "--metadata", database.url(), "--output", "json"];
    let imported = meta(&setup, &[&to[..], more].concat()).json();
    assert_eq!(imported, report);
    let before = epochs(&database);

    let agent = setup.env("MILLSTREAM_METADATA", database.url()).start();
    let grpc = agent.grpc().await;
    assert_holds(&grpc, BATCHES).await;
    fill(&grpc, BATCHES).await;
    assert_altered(&grpc).await;
    let after = epochs(&database);
    assert!(
        before.iter().zip(&after).all(|(before, after)| after > before),
        "{before:?} {after:?}"
    );
    let agent = agent.kill9().start();
    assert_holds(&agent.grpc().await, 2 * BATCHES).await;
}

/// A topic that was made with the defaults and altered since, with a record in the last of its added partitions.
async fn alter(grpc: &Grpc) {
    grpc.create_topic("altered", 1).await.unwrap();
    let request = v1::AlterTopicRequest {
        name: "altered".to_owned(),
        config: Some(settings()),
        partitions: Some(ALTERED_PARTITIONS),
    };
    grpc.topics().alter_topic(request).await.unwrap();
    let records = vec![at_the_beginning_of_time("before")];
    grpc.produce("altered", ALTERED_PARTITIONS - 1, records).await.unwrap();
}

fn settings() -> v1::TopicConfig {
    v1::TopicConfig {
        retention_ms: Some(3_600_000),
        compression: v1::Compression::Lz4.into(),
        record_bytes_max: Some(10_000),
        retention_bytes: Some(1 << 30),
        segment_bytes: Some(2 << 20),
        segment_age_ms: Some(60_000),
        timestamp_type: v1::TimestampType::Append.into(),
        default_acks: v1::Acks::Memory.into(),
    }
}

fn at_the_beginning_of_time(value: &'static str) -> v1::Record {
    v1::Record {
        timestamp_ms: Some(1),
        ..record(value)
    }
}

/// It is as it was: its settings are in force, and its added partitions take records.
async fn assert_altered(grpc: &Grpc) {
    let request = v1::GetTopicRequest {
        name: "altered".to_owned(),
        ..v1::GetTopicRequest::default()
    };
    let topic = grpc.topics().get_topic(request).await.unwrap().into_inner().topic;
    let topic = topic.unwrap();
    assert_eq!((topic.config, topic.partitions), (Some(settings()), ALTERED_PARTITIONS));
    let last = ALTERED_PARTITIONS - 1;
    let records = vec![at_the_beginning_of_time("after")];
    grpc.produce("altered", last, records).await.unwrap();
    let read = grpc.read("altered", last, 0).await.unwrap();
    assert_eq!(values(&read), ["before", "after"]);
    let times: Vec<i64> = read.iter().filter_map(|record| record.timestamp_ms).collect();
    assert!(
        times[0] > 1 && times[0] <= times[1],
        "the time of the append: {times:?}"
    );
}

async fn agent_on_sqlite() -> Agent {
    let agent = Setup::new().env("MILLSTREAM_LEASE_DURATION_MS", LEASE_MS).start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", PARTITIONS).await.unwrap();
    fill(&grpc, 0).await;
    alter(&grpc).await;
    agent
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_that_was_stopped_goes_on_in_postgres() {
    let setup = agent_on_sqlite().await.terminate();
    moved(setup, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_that_was_killed_goes_on_in_postgres_with_its_log() {
    let setup = agent_on_sqlite().await.kill9();
    let file = setup.folder().join("refused.ndjson").display().to_string();
    meta(&setup, &["export", "--out", &file]).ok();
    let database = Server::shared().database();
    let refused = meta(&setup, &["import", &file, "--metadata", database.url()]).error();
    assert!(refused.contains("line 1") && refused.contains("--running"), "{refused}");
    moved(setup, &["--running"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_moves_to_postgres_and_back_to_sqlite() {
    let mut setup = agent_on_sqlite().await.terminate();
    let database = Server::shared().database();
    let sqlite = format!("sqlite:{}", setup.folder().join("again.db").display());
    let first = format!("sqlite:{}", setup.data_dir().join("metadata.db").display());
    let moves = [(first.as_str(), database.url()), (database.url(), sqlite.as_str())];
    for (times, (from, to)) in (1..).zip(moves) {
        let file = setup.folder().join("moved.ndjson").display().to_string();
        meta(&setup, &["export", "--metadata", from, "--out", &file]).ok();
        meta(&setup, &["import", &file, "--metadata", to]).ok();
        let agent = setup.env("MILLSTREAM_METADATA", to).start();
        let grpc = agent.grpc().await;
        assert_holds(&grpc, times * BATCHES).await;
        fill(&grpc, times * BATCHES).await;
        setup = agent.terminate();
    }
    let marks = std::fs::read_dir(setup.data_dir().join("objects/_owner")).unwrap();
    assert_eq!(marks.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_sqlite_database_is_rebuilt_in_postgres() {
    let setup = agent_on_sqlite().await.kill9();
    for file in ["metadata.db", "metadata.db-wal", "metadata.db-shm"] {
        let _ = std::fs::remove_file(setup.data_dir().join(file));
    }
    let database = Server::shared().database();
    let rebuilt = ["rebuild", "--metadata", database.url(), "--output", "json"];
    assert_eq!(meta(&setup, &rebuilt).json()["written"], true);
    let agent = setup.env("MILLSTREAM_METADATA", database.url()).start();
    let grpc = agent.grpc().await;
    assert_holds(&grpc, BATCHES).await;
    fill(&grpc, BATCHES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_agent_can_be_exported_and_nothing_imported_over_it() {
    let agent = agent_on_sqlite().await;
    let exported = meta(agent.setup(), &["export"]);
    assert!(
        exported.stderr.contains("warning: agents are running"),
        "{}",
        exported.stderr
    );
    let snapshot = exported.text();
    let header: Value = serde_json::from_str(snapshot.lines().next().unwrap()).unwrap();
    assert_eq!(header["live_agents"].as_array().map(Vec::len), Some(1));

    let file = agent.setup().folder().join("running.ndjson").display().to_string();
    std::fs::write(&file, &snapshot).unwrap();
    for verb in [&["import", &file][..], &["rebuild"]] {
        let error = meta(agent.setup(), verb).error();
        assert!(error.contains("in use by another agent"), "{error}");
    }
    assert_holds(&agent.grpc().await, BATCHES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_is_rebuilt_from_the_store_and_the_log() {
    for killed in [false, true] {
        let agent = agent_on_sqlite().await;
        let setup = if killed { agent.kill9() } else { agent.terminate() };
        for file in ["metadata.db", "metadata.db-wal", "metadata.db-shm"] {
            let _ = std::fs::remove_file(setup.data_dir().join(file));
        }
        let plan = meta(&setup, &["rebuild", "--dry-run", "--output", "json"]).json();
        assert_eq!(plan["written"], false);
        assert!(!setup.data_dir().join("metadata.db").exists());
        let report = meta(&setup, &["rebuild", "--output", "json"]).json();
        assert_eq!(
            (&report["written"], &report["topics"]),
            (&Value::Bool(true), &plan["topics"])
        );
        let again = meta(&setup, &["rebuild"]).error();
        assert!(again.contains("not empty"), "{again}");

        let agent = setup.start();
        let grpc = agent.grpc().await;
        assert_holds(&grpc, BATCHES).await;
        fill(&grpc, BATCHES).await;
    }
}

#[test]
fn a_database_that_is_not_there_is_not_exported_as_an_empty_one() {
    let setup = Setup::new();
    let error = meta(&setup, &["export"]).error();
    assert!(
        error.contains("there is no database") && error.contains("--metadata"),
        "{error}"
    );
    assert!(!setup.data_dir().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_was_lost_with_the_database_can_be_added_again() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    // It keeps every second record.
    let add = async |grpc: &Grpc| {
        grpc.deploy("halves", wat::module(wat::HALVES)).await.unwrap();
        let added = grpc.add_stage("t", v1::PipelineSide::Produce, "halves", &[]).await;
        added.unwrap().version
    };
    assert_eq!(add(&grpc).await, 1);
    let records = || vec![record("a"), record("b")];
    grpc.produce("t", 0, records()).await.unwrap();
    let setup = agent.terminate();
    std::fs::remove_file(setup.data_dir().join("metadata.db")).unwrap();

    let report = meta(&setup, &["rebuild", "--output", "json"]).json();
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("had a pipeline (version 1"), "{warnings}");
    let agent = setup.start();
    let grpc = agent.grpc().await;
    let stored = |answer: v1::ProduceResponse| (answer.record_count, answer.pipeline_version);
    assert_eq!(stored(grpc.produce("t", 0, records()).await.unwrap()), (2, 1));
    assert_eq!(add(&grpc).await, 2);
    assert_eq!(stored(grpc.produce("t", 0, records()).await.unwrap()), (1, 2));
}

#[test]
fn a_database_on_which_no_agent_ran_is_not_exported_as_a_backup() {
    let database = Server::shared().database();
    let setup = Setup::new();
    let file = setup.folder().join("snapshot").display().to_string();
    let error = meta(&setup, &["export", "--metadata", database.url(), "--out", &file]).error();
    assert!(
        error.contains("holds nothing") && error.contains("--metadata"),
        "{error}"
    );
    assert!(!std::fs::exists(file).unwrap());
}
