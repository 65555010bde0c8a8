//! An agent as a process of its own.

use std::{
    ffi::{OsStr, OsString},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Grpc, Ran, SmallDisk, cli};

/// How long a start, a line of the log or an end may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at whether a process has ended.
const LOOK: Duration = Duration::from_millis(5);

/// What Linux counts CPU time in, on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// How an agent runs. Clones share its folder.
#[derive(Clone, Debug)]
pub struct Setup {
    folder: Arc<TempDir>,
    data_dir: PathBuf,
    disk: Option<Arc<SmallDisk>>,
    env: Vec<(String, String)>,
    flags: Vec<OsString>,
}

/// An agent that has ended, and what it had to say.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard error.
    pub log: String,
}

impl Ended {
    /// The one error that a failed start ends with.
    #[track_caller]
    pub fn error(&self) -> &str {
        assert_eq!(self.status.code(), Some(1), "{}", self.log);
        let last = self.log.lines().last().unwrap_or_default();
        last.strip_prefix("error: ").unwrap_or_else(|| panic!("{}", self.log))
    }
}

impl Setup {
    /// A setup with a data folder of its own, and nothing else said.
    pub fn new() -> Setup {
        let folder = TempDir::with_prefix("millstream-").expect("a folder can be made");
        Setup {
            data_dir: folder.path().join("data"),
            folder: Arc::new(folder),
            disk: None,
            env: Vec::new(),
            flags: Vec::new(),
        }
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: impl ToString) -> Setup {
        self.env.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds a flag.
    pub fn flag(mut self, flag: impl Into<OsString>) -> Setup {
        self.flags.push(flag.into());
        self
    }

    /// Puts the data folder onto a disk of its own.
    pub fn on(mut self, disk: &Arc<SmallDisk>) -> Setup {
        self.data_dir = disk.inside().join("data");
        self.disk = Some(disk.clone());
        self
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A folder beside the data, for whatever the test likes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts an agent and waits until it serves.
    ///
    /// # Panics
    /// Where it ends instead.
    #[track_caller]
    pub fn start(&self) -> Agent {
        self.try_start()
            .unwrap_or_else(|ended| panic!("no agent: {}", ended.log))
    }

    /// Starts an agent and waits until it serves or ends.
    ///
    /// # Errors
    /// How it ended.
    pub fn try_start(&self) -> Result<Agent, Ended> {
        self.serving(Process::start(self.command()))
    }

    fn serving(&self, mut process: Process) -> Result<Agent, Ended> {
        match process.line_with(" serving grpc=") {
            Some(line) => Ok(Agent {
                grpc: address(&line, "grpc="),
                http: address(&line, "http="),
                process,
                setup: self.clone(),
            }),
            None => Err(process.end()),
        }
    }

    /// Starts an agent, does `then` once it has logged a line with `text`, and waits until it serves.
    ///
    /// # Panics
    /// Where it serves or ends before.
    #[track_caller]
    pub fn start_after(&self, text: &str, then: impl FnOnce()) -> Agent {
        let mut process = Process::start(self.command());
        let line = process.line_with_any(&[text, " serving grpc="]);
        assert!(
            line.is_some_and(|line| line.contains(text)),
            "no {text:?}: {}",
            process.log()
        );
        then();
        self.serving(process)
            .unwrap_or_else(|ended| panic!("no agent: {}", ended.log))
    }

    /// Starts an agent and kills it as soon as it logs a line with `text`, or serves; true for the former.
    pub fn kill9_at(&self, text: &str) -> bool {
        let mut process = Process::start(self.command());
        let line = process.line_with_any(&[text, " serving grpc="]);
        process.kill();
        line.unwrap_or_else(|| panic!("no agent: {}", process.log()))
            .contains(text)
    }

    /// Starts an agent, and kills it once it logs a line with `text`; what it has logged by then.
    ///
    /// # Panics
    /// Where it ends before.
    pub fn log_until(&self, text: &str) -> String {
        let mut process = Process::start(self.command());
        let line = process.line_with(text);
        process.kill();
        assert!(line.is_some(), "no {text:?}: {}", process.log());
        process.log()
    }

    /// Runs `millstream doctor` with what an agent would run with.
    pub fn doctor<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ran {
        let mut command = self.command_of("doctor");
        cli::finish(command.args(args), b"")
    }

    fn command(&self) -> Command {
        self.command_of("serve")
    }

    fn command_of(&self, verb: &str) -> Command {
        let binary = crate::binary();
        let mut command = match &self.disk {
            None => Command::new(binary),
            Some(disk) => disk.command(&binary),
        };
        cli::clean(&mut command);
        command
            .args([verb, "--data-dir"])
            .arg(&self.data_dir)
            .args(&self.flags)
            .env("MILLSTREAM_LISTEN", "127.0.0.1:0")
            .env("MILLSTREAM_HTTP", "127.0.0.1:0")
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Default for Setup {
    fn default() -> Setup {
        Setup::new()
    }
}

/// An agent that serves.
#[derive(Debug)]
pub struct Agent {
    grpc: String,
    http: String,
    process: Process,
    setup: Setup,
}

impl Agent {
    /// Starts one with nothing said but a data folder of its own.
    #[track_caller]
    pub fn start() -> Agent {
        Setup::new().start()
    }

    /// Its gRPC address as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// Its gRPC address, HOST:PORT.
    pub fn grpc_address(&self) -> &str {
        &self.grpc
    }

    /// Its HTTP address, HOST:PORT.
    pub fn http_address(&self) -> &str {
        &self.http
    }

    /// How it runs.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &Path {
        self.setup.data_dir()
    }

    /// One number of its `/metrics`.
    ///
    /// # Panics
    /// Where there is none of that name.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let metrics = self.metrics();
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no {name} in {metrics}"));
        value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}"))
    }

    /// Everything that its `/metrics` shows.
    pub fn metrics(&self) -> String {
        self.get("/metrics").1
    }

    /// What it answers over HTTP: the status and the body.
    ///
    /// # Panics
    /// Where it answers nothing.
    pub fn get(&self, path: &str) -> (u16, String) {
        http_get(&self.http, path)
    }

    /// Asks it to stop, and does not wait for that.
    pub fn begin_to_stop(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Its resident memory.
    ///
    /// # Panics
    /// Where it has ended.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.child.id());
        let status = std::fs::read_to_string(path).expect("a running process has a status");
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix(" kB"));
        kib.and_then(|kib| kib.trim().parse::<u64>().ok())
            .expect("Linux tells VmRSS in kB")
            << 10
    }

    /// CPU time that it has used, in seconds, of all its threads.
    ///
    /// # Panics
    /// Where it has ended.
    pub fn cpu_seconds(&self) -> f64 {
        let path = format!("/proc/{}/stat", self.process.child.id());
        let stat = std::fs::read_to_string(path).expect("a running process has figures");
        // Its name stands in brackets, and may be anything. Behind it the 12th and 13th figure are times in user and kernel.
        let (_, figures) = stat.rsplit_once(") ").expect("Linux tells the name in brackets");
        let ticks = figures.split(' ').skip(11).take(2);
        let ticks: f64 = ticks
            .map(|ticks| ticks.parse::<f64>().expect("ticks are a number"))
            .sum();
        ticks / TICKS_PER_SECOND
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until it has logged `text`.
    ///
    /// # Panics
    /// Where it ends before.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str) {
        while !self.log().contains(text) {
            assert!(self.process.line_with(text).is_some(), "it has ended: {}", self.log());
        }
    }

    /// A connection to it.
    pub async fn grpc(&self) -> Grpc {
        Grpc::connect(&self.url()).await
    }

    /// Kills it at once, as a crash of the process would; the setup starts the next one.
    pub fn kill9(mut self) -> Setup {
        self.process.kill();
        self.setup.clone()
    }

    /// Lets it hang: it does nothing, and does not know it, until it goes on.
    pub fn hang(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Ends a [`hang`](Agent::hang).
    pub fn go_on(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Asks it to stop and waits for that.
    ///
    /// # Panics
    /// Where it does not end, or ends with a failure.
    #[track_caller]
    pub fn terminate(mut self) -> Setup {
        self.process.signal(Signal::TERM);
        let ended = self.process.end();
        assert!(ended.status.success(), "{}: {}", ended.status, ended.log);
        self.setup.clone()
    }

    /// Stops it and starts it again.
    #[track_caller]
    pub fn restart(self) -> Agent {
        self.terminate().start()
    }

    /// Waits until it has ended by itself.
    pub fn ended(mut self) -> Ended {
        self.process.end()
    }
}

/// A process, its standard error, and the certainty that it ends.
#[derive(Debug)]
struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    lines: Receiver<String>,
}

impl Process {
    fn start(mut command: Command) -> Process {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("the binary can be started");
        let stderr = child.stderr.take().expect("it was asked for");
        let log = Arc::<Mutex<String>>::default();
        let lines = follow(stderr, log.clone());
        Process { child, log, lines }
    }

    fn line_with(&mut self, text: &str) -> Option<String> {
        self.line_with_any(&[text])
    }

    /// The next line that contains one of the texts; none where the process ends before.
    fn line_with_any(&mut self, texts: &[&str]) -> Option<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if texts.iter().any(|text| line.contains(text)) => return Some(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("no line with {texts:?} in {PATIENCE:?}: {}", self.log()),
            }
        }
    }

    fn log(&self) -> String {
        self.log
            .lock()
            .expect("nothing panics while it holds this lock")
            .clone()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child that was not waited for can be signalled");
    }

    fn kill(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end.
    fn end(&mut self) -> Ended {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None if Instant::now() < until => std::thread::sleep(LOOK),
                None => panic!("it has not ended in {PATIENCE:?}: {}", self.log()),
            }
        };
        // The log is whole once its reader has let go.
        while self.lines.recv().is_ok() {}
        Ended {
            status,
            log: self.log(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            println!("--- the agent's log ---\n{}", self.log());
        }
    }
}

fn follow(stderr: ChildStderr, log: Arc<Mutex<String>>) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines() {
            let Ok(line) = line else { return };
            let mut log = log.lock().expect("nothing panics while it holds this lock");
            log.push_str(&line);
            log.push('\n');
            drop(log);
            // Whoever waited for a line may be gone; the log goes on.
            let _ = sender.send(line);
        }
    });
    lines
}

/// Status and body of a plain GET.
fn http_get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("a serving agent takes connections");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("an answer begins with its status"), body.to_owned())
}

fn address(line: &str, name: &str) -> String {
    let after = line.split(name).nth(1).unwrap_or_else(|| panic!("{line}"));
    after.split_whitespace().next().unwrap_or_default().to_owned()
}
