//! The watched folder: what is put there is deployed, and nothing that is put there does harm.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use millstream_proto::v1::{self, PipelineSide::Produce};
use millstream_tests::{Agent, Grpc, Setup, record, values, wat};
use sqlx::{Connection as _, Executor as _, SqliteConnection};

/// How long a state is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// An agent that watches a folder, and the folder.
fn watching() -> (Agent, PathBuf) {
    let setup = Setup::new();
    let dir = setup.folder().join("modules");
    fs::create_dir(&dir).unwrap();
    let setup = setup.flag("--modules").flag(&dir);
    (setup.start(), dir)
}

/// Puts a complete file into the folder, as a careful program does.
fn put(dir: &Path, name: &str, bytes: &[u8]) {
    let beside = dir.join(format!("{name}.part"));
    fs::write(&beside, bytes).unwrap();
    fs::rename(beside, dir.join(name)).unwrap();
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "it never came: {what}");
        thread::sleep(PAUSE);
    }
}

/// Versions of a module, and the current one.
async fn versions(grpc: &Grpc, name: &str) -> (usize, u32) {
    let modules = grpc.modules().list_modules(v1::ListModulesRequest {}).await;
    let modules = modules.unwrap().into_inner().modules;
    let versions: Vec<_> = modules.iter().filter(|module| module.name == name).collect();
    let current = versions.iter().find(|module| module.current);
    (versions.len(), current.map_or(0, |module| module.version))
}

async fn until_current(grpc: &Grpc, name: &str, version: u32) {
    until("the version is current", async || {
        versions(grpc, name).await.1 == version
    })
    .await;
}

/// Runs a statement in the agent's database.
async fn sql(setup: &Setup, statement: &'static str) {
    let file = setup.data_dir().join("metadata.db");
    let connection = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await;
    let mut connection = connection.unwrap();
    connection.execute(statement).await.unwrap();
    connection.close().await.unwrap();
}

async fn stamp(grpc: &Grpc) -> String {
    let answer = grpc.produce("t", 0, vec![record("#")]).await.unwrap();
    values(&grpc.read("t", 0, answer.base_offset).await.unwrap()).remove(0)
}

#[tokio::test]
async fn a_file_that_is_put_written_replaced_or_there_at_the_start_is_deployed() {
    let (agent, dir) = watching();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    put(&dir, "m.wasm", &wat::stamps('a'));
    until_current(&grpc, "m", 1).await;
    grpc.add_stage("t", Produce, "m", &[]).await.unwrap();
    assert_eq!(stamp(&grpc).await, "a");
    // Replaced by a rename, and written in place.
    put(&dir, "m.wasm", &wat::stamps('b'));
    until("it has switched", async || stamp(&grpc).await == "b").await;
    fs::write(dir.join("m.wasm"), wat::stamps('c')).unwrap();
    until("it has switched", async || stamp(&grpc).await == "c").await;
    // The same bytes change nothing, and neither does it that they go away.
    fs::write(dir.join("m.wasm"), wat::stamps('c')).unwrap();
    fs::remove_file(dir.join("m.wasm")).unwrap();
    put(&dir, "other.wasm", &wat::stamps('x'));
    until_current(&grpc, "other", 1).await;
    assert_eq!(versions(&grpc, "m").await, (3, 3));
    // What changed while nobody watched is found; what was rolled back is not deployed again by a start.
    put(&dir, "rolled.wasm", &wat::stamps('a'));
    until_current(&grpc, "rolled", 1).await;
    put(&dir, "rolled.wasm", &wat::stamps('b'));
    until_current(&grpc, "rolled", 2).await;
    assert!(
        agent
            .cli(["module", "rollback", "rolled"])
            .text()
            .contains("rolled@1 is current")
    );
    let setup = agent.terminate();
    put(&dir, "m.wasm", &wat::stamps('d'));
    let agent = setup.start();
    let grpc = agent.grpc().await;
    until_current(&grpc, "m", 4).await;
    assert_eq!(stamp(&grpc).await, "d");
    assert_eq!(versions(&grpc, "rolled").await, (2, 1));
}

#[tokio::test]
async fn a_version_that_did_not_come_into_force_is_tried_again_at_once_and_by_the_next_start() {
    const HOLD: &str =
        "CREATE TRIGGER hold BEFORE UPDATE OF current_version ON modules BEGIN SELECT RAISE(IGNORE); END";
    const RELEASE: &str = "DROP TRIGGER hold";
    let setup = Setup::new();
    let dir = setup.folder().join("modules");
    fs::create_dir(&dir).unwrap();
    let setup = setup.flag("--modules").flag(&dir);
    let mut agent = setup.start();
    let grpc = agent.grpc().await;
    sql(&setup, HOLD).await;
    put(&dir, "m.wasm", &wat::stamps('a'));
    agent.wait_for_log("m.wasm: ");
    assert_eq!(versions(&grpc, "m").await, (1, 0), "it exists only");
    sql(&setup, RELEASE).await;
    until_current(&grpc, "m", 1).await;
    sql(&setup, HOLD).await;
    put(&dir, "m.wasm", &wat::stamps('b'));
    agent.wait_for_log("is 1, not 1");
    assert_eq!(versions(&grpc, "m").await, (2, 1));
    agent.kill9();
    sql(&setup, RELEASE).await;
    let agent = setup.start();
    until_current(&agent.grpc().await, "m", 2).await;
}

#[tokio::test]
async fn a_file_counts_once_it_is_complete() {
    let (agent, dir) = watching();
    let grpc = agent.grpc().await;
    let component = wat::stamps('a');
    // From then on the folder is listened to: what is there before counts by how it looks.
    put(&dir, "first.wasm", &component);
    until_current(&grpc, "first", 1).await;
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(dir.join("slow.wasm"))
        .unwrap();
    for piece in component.chunks(component.len() / 4 + 1) {
        file.write_all(piece).unwrap();
        file.sync_all().unwrap();
        // Another one goes through meanwhile: the folder is being looked at.
        let name = format!("beside-{}", piece.as_ptr() as usize % 1_000);
        put(&dir, &format!("{name}.wasm"), &component);
        until_current(&grpc, &name, 1).await;
        assert_eq!(versions(&grpc, "slow").await, (0, 0));
    }
    drop(file);
    until_current(&grpc, "slow", 1).await;
    assert!(!agent.log().contains("cannot be deployed"), "{}", agent.log());
}

#[tokio::test]
async fn whatever_else_is_put_there_leaves_a_clear_error_and_changes_nothing() {
    let (mut agent, dir) = watching();
    let grpc = agent.grpc().await;
    let component = wat::stamps('a');
    put(&dir, "m.wasm", &component);
    until_current(&grpc, "m", 1).await;

    put(&dir, "m.wasm", &component[..component.len() / 2]);
    agent.wait_for_log("m.wasm: ");
    // Whoever writes it again is told again.
    put(&dir, "m.wasm", &component[..component.len() / 2]);
    fs::create_dir(dir.join("x.wasm")).unwrap();
    agent.wait_for_log("x.wasm: it is a folder");
    assert_eq!(agent.log().matches("/m.wasm: ").count(), 2, "{}", agent.log());
    std::os::unix::fs::symlink(dir.join("m.wasm"), dir.join("link.wasm")).unwrap();
    agent.wait_for_log("link.wasm: it is a symbolic link");
    put(&dir, "Bad Name.wasm", &component);
    agent.wait_for_log("Bad Name.wasm: ");
    let large = fs::File::create(dir.join("large.part")).unwrap();
    large.set_len(60_000_000).unwrap();
    fs::rename(dir.join("large.part"), dir.join("large.wasm")).unwrap();
    agent.wait_for_log("large.wasm: ");
    large.set_len(70_000_000).unwrap();
    fs::rename(dir.join("large.wasm"), dir.join("huge.wasm")).unwrap();
    agent.wait_for_log("huge.wasm: 70000000 bytes are above the limit");
    put(&dir, "notes.txt", b"no module");

    let modules = grpc.modules().list_modules(v1::ListModulesRequest {}).await;
    assert_eq!(modules.unwrap().into_inner().modules.len(), 1);
    let logs = agent.cli(["module", "logs", "x"]).text();
    assert!(logs.contains("it is a folder"), "{logs}");
    put(&dir, "m.wasm", &wat::stamps('b'));
    until_current(&grpc, "m", 2).await;
}

#[tokio::test]
async fn the_folder_may_go_away_and_come_back() {
    let (mut agent, dir) = watching();
    let grpc = agent.grpc().await;
    put(&dir, "m.wasm", &wat::stamps('a'));
    until_current(&grpc, "m", 1).await;
    fs::remove_dir_all(&dir).unwrap();
    agent.wait_for_log("it is waited for");
    assert_eq!(versions(&grpc, "m").await, (1, 1));
    fs::create_dir(&dir).unwrap();
    put(&dir, "m.wasm", &wat::stamps('b'));
    until_current(&grpc, "m", 2).await;
    put(&dir, "m.wasm", &wat::stamps('c'));
    until_current(&grpc, "m", 3).await;
}
