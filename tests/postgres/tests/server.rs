//! The server for the tests does what the tests build on.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use millstream_postgres::{Options, PASSWORD, Server, Stop};

/// How long a keeper may take to clean up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Names the process that is killed while it has a server.
const HOLDER: &str = "MILLSTREAM_TEST_POSTGRES_HOLDER";

#[track_caller]
fn wait_until_gone(directory: &Path) {
    let until = Instant::now() + PATIENCE;
    while directory.exists() {
        assert!(Instant::now() < until, "{} is still there", directory.display());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn databases_of_the_shared_server_know_nothing_of_each_other_and_go_when_they_are_dropped() {
    let (first, second) = (Server::shared().database(), Server::shared().database());
    first.sql("CREATE TABLE t (n INT); INSERT INTO t VALUES (1), (2)");
    assert_eq!(first.sql("SELECT n, n + 1 FROM t ORDER BY n"), "1|2\n2|3");
    assert!(
        second
            .try_sql("SELECT * FROM t")
            .unwrap_err()
            .contains("does not exist")
    );
    let name = first.name().to_owned();
    drop(first);
    let left = Server::shared().sql(&format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'"));
    assert_eq!(left, "0");
}

#[test]
fn a_stopped_server_comes_back_at_the_same_place_with_what_it_held() {
    let Some(server) = Server::start() else { return };
    let database = server.database();
    database.sql("CREATE TABLE t (n INT)");
    for (n, how) in [(1, Stop::Fast), (2, Stop::Immediate)] {
        database.sql(&format!("INSERT INTO t VALUES ({n})"));
        server.stop(how);
        assert!(database.try_sql("SELECT 1").is_err());
        server.start_again();
        assert_eq!(database.sql("SELECT count(*) FROM t"), n.to_string());
    }
}

#[test]
fn connections_end_when_they_are_told_to() {
    let database = Server::shared().database();
    assert_eq!(database.terminate_connections(), 0);
    assert!(!database.terminate_one());
}

#[test]
fn a_server_with_tls_and_a_password_has_both() {
    let Some(server) = Server::start_with(&Options::default().tls().password()) else {
        return;
    };
    assert_eq!(server.sql("SHOW ssl"), "on");
    assert!(server.authority().is_file());
    assert!(
        !server.database().url().contains(PASSWORD),
        "it is written as URLs write it"
    );
    let hosts = server.sql("SELECT auth_method FROM pg_hba_file_rules WHERE type = 'host'");
    assert_eq!(hosts, "scram-sha-256");
}

#[test]
fn a_dropped_server_leaves_nothing() {
    let Some(server) = Server::start() else { return };
    let directory = server.directory().to_owned();
    assert!(directory.is_dir());
    drop(server);
    assert!(!directory.exists());
}

#[test]
fn a_server_ends_with_a_process_that_is_killed_and_leaves_nothing() {
    if env::var_os(HOLDER).is_some() {
        hold_a_server();
    }
    if env::var_os(millstream_postgres::URL_VARIABLE).is_some() {
        assert!(Server::start().is_none());
        return;
    }
    let mut holder = Command::new(env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("a_server_ends_with_a_process_that_is_killed_and_leaves_nothing")
        .env(HOLDER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let line = lines.find_map(|line| Some(line.unwrap().split_once("holding ")?.1.to_owned()));
    let (directory, process) = line.as_deref().unwrap().split_once(' ').unwrap();
    assert!(runs(process));
    assert!(Path::new(directory).is_dir());
    holder.kill().unwrap();
    holder.wait().unwrap();
    wait_until_gone(Path::new(directory));
    assert!(!runs(process));
}

/// Starts a server, tells where it is, and waits to be killed.
fn hold_a_server() -> ! {
    let server = Server::start().unwrap();
    let lock = fs::read_to_string(server.directory().join("data/postmaster.pid")).unwrap();
    println!(
        "holding {} {}",
        server.directory().display(),
        lock.lines().next().unwrap()
    );
    std::io::stdout().flush().unwrap();
    loop {
        thread::park();
    }
}

fn runs(process: &str) -> bool {
    let asked = Command::new("ps").args(["-p", process]).output().unwrap();
    asked.status.success()
}
