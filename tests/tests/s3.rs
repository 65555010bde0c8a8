//! The built agent over a real S3 server: what it acknowledged is there after a crash, and comes back from the store.

use std::fs;

use millstream_log::Store;
use millstream_tests::{Gate, Grpc, S3Server, Setup, on_s3, record, skip, values};
use tonic::Code;

const BATCHES: usize = 40;
const PARTITIONS: u32 = 2;
/// More than the seal of a log takes, and less than any group.
const SEAL_BYTES_MAX: u64 = 80;

/// A server, or why this test cannot run.
fn server(test: &str) -> Option<S3Server> {
    S3Server::start().map_err(|reason| skip(test, &reason)).ok()
}

async fn produce(grpc: &Grpc, numbers: std::ops::Range<usize>) {
    for number in numbers {
        for partition in 0..PARTITIONS {
            let records = vec![record(format!("{number} a")), record(format!("{number} b"))];
            grpc.produce("t", partition, records).await.unwrap();
        }
    }
}

/// Every record once and in order.
async fn assert_holds(grpc: &Grpc, batches: usize) {
    let expected: Vec<String> = (0..batches)
        .flat_map(|number| [format!("{number} a"), format!("{number} b")])
        .collect();
    for partition in 0..PARTITIONS {
        assert_eq!(values(&grpc.read("t", partition, 0).await.unwrap()), expected);
    }
}

/// Produces, kills, starts and reads, with segments made in between; gives the setup of the stopped agent.
async fn crash_and_go_on(setup: Setup) -> Setup {
    let agent = setup.start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", PARTITIONS).await.unwrap();
    produce(&grpc, 0..BATCHES).await;

    let agent = agent.kill9().start();
    let grpc = agent.grpc().await;
    assert_holds(&grpc, BATCHES).await;
    grpc.partitions("t", true).await.unwrap();
    produce(&grpc, BATCHES..2 * BATCHES).await;

    let agent = agent.kill9().start();
    assert_holds(&agent.grpc().await, 2 * BATCHES).await;
    agent.terminate()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_a_write_ahead_log_on_disk() {
    let Some(server) = server("an agent on S3 with a disk log") else {
        return;
    };
    let bucket = server.bucket("disk-wal");
    let setup = crash_and_go_on(on_s3(Setup::new(), &bucket)).await;
    let agent = setup.start();
    assert_holds(&agent.grpc().await, 2 * BATCHES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_the_write_ahead_log_in_the_store_and_no_local_files() {
    let Some(server) = server("an agent on S3 with an object log") else {
        return;
    };
    let bucket = server.bucket("object-wal");
    let setup = on_s3(Setup::new(), &bucket).env("MILLSTREAM_WAL", "object");
    // By its name a new start takes over at once; under another it would have to wait until the lease is over.
    let setup = setup.env("MILLSTREAM_AGENT_NAME", "stateless");
    let metadata = setup.folder().join("metadata.db");
    let setup = setup.flag("--metadata").flag(format!("sqlite:{}", metadata.display()));

    let agent = setup.start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", PARTITIONS).await.unwrap();
    produce(&grpc, 0..BATCHES).await;
    // The machine is lost: all that is left of it is what the store and the database hold.
    let setup = agent.kill9();
    fs::remove_dir_all(setup.data_dir()).unwrap();

    let agent = setup.start();
    let grpc = agent.grpc().await;
    assert_holds(&grpc, BATCHES).await;
    produce(&grpc, BATCHES..2 * BATCHES).await;
    let setup = agent.terminate();
    fs::remove_dir_all(setup.data_dir()).unwrap();
    let agent = setup.start();
    assert_holds(&agent.grpc().await, 2 * BATCHES).await;

    let store = Store::s3(&bucket).unwrap();
    assert!(!store.list("t/").await.unwrap().is_empty());
    agent.terminate();
    // A stop leaves no log behind; of the one that was taken over its seals stay.
    let logs = store.list_objects("_wal/").await.unwrap();
    assert!(logs.iter().all(|object| object.bytes <= SEAL_BYTES_MAX), "{logs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_lose_nothing_with_the_write_ahead_log_in_the_store() {
    let Some(server) = server("crashes with an object log") else {
        return;
    };
    let bucket = server.bucket("object-crash");
    let setup = on_s3(Setup::new(), &bucket).env("MILLSTREAM_WAL", "object");
    let setup = crash_and_go_on(setup).await;
    // Changing to the other kind of log takes nothing away either.
    let setup = setup.env("MILLSTREAM_WAL", "disk");
    assert_holds(&setup.start().grpc().await, 2 * BATCHES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_a_good_store_good_and_a_missing_bucket_missing() {
    let Some(server) = server("doctor on S3") else { return };
    let bucket = server.bucket("doctor");
    let agent = on_s3(Setup::new(), &bucket).start();
    let findings = agent.setup().doctor(["--output", "json"]).json();
    let findings = findings.as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["ok"] == true), "{findings:?}");
    for check in ["create-only race", "ranged get", "etags", "listing", "delete"] {
        let name = format!("store: {check}");
        assert!(
            findings.iter().any(|finding| finding["check"] == name.as_str()),
            "{check}"
        );
    }
    let store = Store::s3(&bucket).unwrap();
    assert!(store.list("_doctor/").await.unwrap().is_empty(), "it cleans up");

    let missing = Setup::new();
    let missing = on_s3(
        missing,
        &millstream_log::S3Settings {
            bucket: "not-there".to_owned(),
            ..bucket
        },
    );
    let ran = missing.doctor(["--output", "table"]);
    assert_eq!(ran.code, Some(1));
    let table = String::from_utf8(ran.stdout).unwrap();
    assert!(table.contains("FAILED") && table.contains("no such bucket"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_waited_out_and_told() {
    let Some(server) = server("an outage of S3") else {
        return;
    };
    let mut bucket = server.bucket("outage");
    let gate = Gate::before(server.address()).await;
    bucket.endpoint = Some(gate.url());
    let agent = on_s3(Setup::new(), &bucket).start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", PARTITIONS).await.unwrap();
    gate.close();
    // A disk log acknowledges without the store.
    produce(&grpc, 0..BATCHES).await;
    assert_holds(&grpc, BATCHES).await;
    assert!(agent.metric("millstream_acknowledged_not_stored_bytes") > 0.0);
    gate.open();
    grpc.partitions("t", true).await.unwrap();
    assert_eq!(agent.metric("millstream_acknowledged_not_stored_bytes"), 0.0);
    assert_holds(&grpc, BATCHES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topics_objects_go_from_the_store() {
    let Some(server) = server("deleting a topic on S3") else {
        return;
    };
    let bucket = server.bucket("deleted");
    let setup = on_s3(Setup::new(), &bucket).env("MILLSTREAM_DELETION_GRACE_MS", 0);
    let agent = setup.env("MILLSTREAM_SWEEP_INTERVAL_MS", 50).start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", PARTITIONS).await.unwrap();
    produce(&grpc, 0..3).await;
    grpc.partitions("t", true).await.unwrap();
    let store = Store::s3(&bucket).unwrap();
    assert!(!store.list("t/").await.unwrap().is_empty());

    let deleted = millstream_proto::v1::DeleteTopicRequest { name: "t".to_owned() };
    grpc.topics().delete_topic(deleted).await.unwrap();
    assert_eq!(grpc.fetch("t", 0, 0).await.unwrap_err().code(), Code::NotFound);
    let gone = async {
        while !store.list("t/").await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, gone).await.expect("its objects go");
}
