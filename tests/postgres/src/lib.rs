//! A real PostgreSQL for the tests.
//!
//! Its programs are looked for on the PATH and where packages put them, and installed with `apt-get` where there are
//! none and we are root. A server runs as an unprivileged user, in a temporary directory that it owns, on a port of
//! 127.0.0.1. It ends, and its directory goes, when the process that started it ends in any way, `kill -9` included: a
//! small shell script keeps it, and stops it once its standard input ends.
//!
//! `MILLSTREAM_TEST_POSTGRES_URL` names a server to use instead, by a role that may make databases. Nothing is started
//! then, and tests that need a server of their own are skipped, with a line that says so.

mod binaries;
mod database;
mod keeper;

use std::{
    env,
    hash::{BuildHasher as _, RandomState},
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

pub use database::Database;

use binaries::Binaries;
use database::Access;
use keeper::Keeper;

/// The variable that names a server to use instead of one that is started.
pub const URL_VARIABLE: &str = "MILLSTREAM_TEST_POSTGRES_URL";
/// The superuser of a server that is started.
pub const USER: &str = "millstream";
/// Its password, where it has one.
pub const PASSWORD: &str = "ge@heim";
/// The password as it is written in a URL.
const PASSWORD_IN_URL: &str = "ge%40heim";

/// A server's ports lie below those that a system gives to whoever connects: a client that tries a stopped server again
/// and again would connect to itself one day.
const PORTS: Range<u64> = 20_000..32_000;
/// How many ports are tried, of which others may take some between our look and the server's start.
const PORTS_TRIED_MAX: u32 = 20;

/// What a server is started with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    tls: bool,
    password: bool,
    settings: Vec<String>,
}

impl Options {
    /// It offers TLS, with a certificate for 127.0.0.1, not for `localhost`, of an [authority](Server::authority) of its own.
    pub fn tls(self) -> Options {
        Options { tls: true, ..self }
    }

    /// It asks for the [`PASSWORD`] (SCRAM). Databases' URLs carry it.
    pub fn password(self) -> Options {
        Options { password: true, ..self }
    }

    /// It has a line in its `postgresql.conf`.
    pub fn setting(mut self, line: &str) -> Options {
        self.settings.push(line.to_owned());
        self
    }
}

/// How a server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It ends all sessions, writes everything and ends.
    Fast,
    /// It ends at once, and recovers when it is started again: a crash.
    Immediate,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    access: Access,
    /// `None` for a server that is not ours.
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    keeper: Mutex<Keeper>,
    directory: PathBuf,
    port: u16,
}

impl Server {
    /// The server of this test process, started by the first call.
    ///
    /// # Panics
    /// Where there is none to be had; the message says what to do.
    pub fn shared() -> &'static Server {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| {
            let server = match env::var(URL_VARIABLE) {
                Ok(url) => Server::foreign(&url),
                Err(_) => Server::own(&Options::default()),
            };
            server.unwrap_or_else(|reason| panic!("no PostgreSQL for the tests: {reason}"))
        })
    }

    /// A server for the caller alone, who may stop it; `None`, and a line that tells of a skipped test, where the tests
    /// use a server that is not ours.
    ///
    /// # Panics
    /// Where there is none to be had; the message says what to do.
    pub fn start() -> Option<Server> {
        Server::start_with(&Options::default())
    }

    /// As [`Server::start`].
    ///
    /// # Panics
    /// As [`Server::start`].
    pub fn start_with(options: &Options) -> Option<Server> {
        if env::var_os(URL_VARIABLE).is_some() {
            skip("the PostgreSQL of MILLSTREAM_TEST_POSTGRES_URL is not ours to start and stop");
            return None;
        }
        let server = Server::own(options);
        Some(server.unwrap_or_else(|reason| panic!("no PostgreSQL for the tests: {reason}")))
    }

    fn foreign(url: &str) -> Result<Server, String> {
        let (start, rest) = url
            .split_once("://")
            .filter(|(scheme, _)| matches!(*scheme, "postgres" | "postgresql"))
            .ok_or_else(|| {
                format!("{URL_VARIABLE} is no URL of PostgreSQL: write postgres://USER:PASSWORD@HOST:PORT")
            })?;
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
        let after = match parameters {
            "" => String::new(),
            parameters => format!("?{parameters}"),
        };
        let psql = match Binaries::find() {
            Ok(binaries) => psql(&binaries),
            Err(_) => PathBuf::from("psql"),
        };
        let access = Access {
            psql,
            url: (format!("{start}://{authority}"), after),
            socket: None,
        };
        access.sql("postgres", "SELECT 1")?;
        Ok(Server { access, own: None })
    }

    fn own(options: &Options) -> Result<Server, String> {
        let binaries = Binaries::find()?;
        let mut keeper = Keeper::start(&binaries)?;
        let directory = PathBuf::from(keeper.ask("directory")?);
        keeper.ask("initialise")?;
        configure(&mut keeper, &directory, options)?;
        let port = start_somewhere(&mut keeper)?;
        let url = |password: &str| (format!("postgres://{USER}{password}@127.0.0.1:{port}"), String::new());
        let mut access = Access {
            psql: psql(&binaries),
            url: url(""),
            socket: Some((directory.clone(), port)),
        };
        if options.password {
            access.sql("postgres", &format!("ALTER USER {USER} PASSWORD '{PASSWORD}'"))?;
            access.url = url(&format!(":{PASSWORD_IN_URL}"));
        }
        let own = Own {
            keeper: Mutex::new(keeper),
            directory,
            port,
        };
        Ok(Server { access, own: Some(own) })
    }

    /// A new database with a name of its own.
    ///
    /// # Panics
    /// Where the server makes none.
    #[track_caller]
    pub fn database(&self) -> Database {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Other processes may use the same server.
        let name = format!(
            "millstream_{}_{}_{:x}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed),
            random() & 0xffff
        );
        Database::create(&self.access, name).unwrap_or_else(|error| panic!("no database: {error}"))
    }

    /// The URL of a database of this server by its name, one that does not exist included.
    pub fn url(&self, database: &str) -> String {
        self.access.url(database)
    }

    /// Runs statements in the database `postgres`.
    ///
    /// # Panics
    /// Where one of them fails.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> String {
        let answer = self.access.sql("postgres", statements);
        answer.unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    /// Stops it, and waits until it has ended.
    ///
    /// # Panics
    /// Where it is not ours.
    #[track_caller]
    pub fn stop(&self, how: Stop) {
        self.ask(match how {
            Stop::Fast => "stop INT",
            Stop::Immediate => "stop QUIT",
        });
    }

    /// Starts it again at the same port, and waits until it takes connections.
    ///
    /// # Panics
    /// Where it is not ours or does not start.
    #[track_caller]
    pub fn start_again(&self) {
        self.ask(&format!("start {}", self.expect_own().port));
    }

    /// Where it keeps everything.
    pub fn directory(&self) -> &Path {
        &self.expect_own().directory
    }

    /// The port of 127.0.0.1 that it listens on.
    pub fn port(&self) -> u16 {
        self.expect_own().port
    }

    /// The certificate of the authority that signed its own, where it offers TLS.
    pub fn authority(&self) -> PathBuf {
        self.directory().join("ca.crt")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.directory().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    #[track_caller]
    fn ask(&self, command: &str) {
        let keeper = self.expect_own().keeper.lock();
        let answer = keeper.expect("nothing panics while it holds this lock").ask(command);
        answer.unwrap_or_else(|error| panic!("{command}: {error}"));
    }

    #[track_caller]
    fn expect_own(&self) -> &Own {
        self.own
            .as_ref()
            .expect("only Server::start gives a server of one's own")
    }
}

fn configure(keeper: &mut Keeper, directory: &Path, options: &Options) -> Result<(), String> {
    let mut settings = vec![
        "listen_addresses = '127.0.0.1'".to_owned(),
        format!("unix_socket_directories = '{}'", directory.display()),
        // Each test has pools of its own.
        "max_connections = 500".to_owned(),
        // It does not outlive the machine; a crash of the server loses nothing all the same.
        "fsync = off".to_owned(),
        "full_page_writes = off".to_owned(),
    ];
    if options.tls {
        binaries::require("openssl")?;
        keeper.ask("certify")?;
        settings.push("ssl = on".to_owned());
    }
    if options.password {
        settings.push(format!("hba_file = '{}/pg_hba.conf'", directory.display()));
    }
    settings.extend_from_slice(&options.settings);
    for setting in settings {
        keeper.ask(&format!("setting {setting}"))?;
    }
    if options.password {
        keeper.ask("access local all all trust")?;
        keeper.ask("access host all all 127.0.0.1/32 scram-sha-256")?;
    }
    Ok(())
}

/// Starts the server at a port that is free.
fn start_somewhere(keeper: &mut Keeper) -> Result<u16, String> {
    let mut last = String::new();
    for _ in 0..PORTS_TRIED_MAX {
        let port = PORTS.start + random() % (PORTS.end - PORTS.start);
        let port = u16::try_from(port).expect("the range lies within that of ports");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
            continue;
        }
        match keeper.ask(&format!("start {port}")) {
            Ok(_) => return Ok(port),
            Err(error) if error.contains("in use") => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(format!("no port of {PORTS:?} is free: {last}"))
}

/// The one that came with the server, else any: both are of the same time.
fn psql(binaries: &Binaries) -> PathBuf {
    let beside = binaries.folder().join("psql");
    match beside.is_file() {
        true => beside,
        false => PathBuf::from("psql"),
    }
}

fn random() -> u64 {
    // The standard library asks the operating system for this.
    RandomState::new().hash_one(())
}

/// Tells that the test of this thread is skipped, past the capture of the test runner.
fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // In one piece: others write there too. Nobody is left to tell where standard error is closed.
    let line = format!("skipped {test}: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
