//! Running the command line.

use std::{
    env,
    ffi::OsStr,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{Agent, binary};

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained about.
    pub stderr: String,
}

impl Ran {
    /// What it printed, once it is sure that it succeeded.
    #[track_caller]
    pub fn ok(self) -> Vec<u8> {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    /// The same as text.
    #[track_caller]
    pub fn text(self) -> String {
        String::from_utf8(self.ok()).expect("it printed text")
    }

    /// The JSON document that it printed.
    #[track_caller]
    pub fn json(self) -> Value {
        let out = self.ok();
        serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)))
    }

    /// The one line that says why it failed.
    #[track_caller]
    pub fn error(self) -> String {
        assert_ne!(
            self.code,
            Some(0),
            "it succeeded: {}",
            String::from_utf8_lossy(&self.stdout)
        );
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "an error is one line: {}", self.stderr);
        let error = lines[0].strip_prefix("error: ");
        error.unwrap_or_else(|| panic!("{}", self.stderr)).to_owned()
    }
}

/// The binary, with nothing of the project in its environment.
pub(crate) fn command() -> Command {
    let mut command = Command::new(binary());
    clean(&mut command);
    command
}

/// Takes the project's variables away from a command.
pub(crate) fn clean(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("MILLSTREAM_")) {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1");
}

/// Runs the binary on its own, without an agent.
pub fn run<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Ran {
    finish(command().args(args), b"")
}

impl Agent {
    /// A client command of this agent, not run yet.
    pub fn client<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = command();
        command.args(args).env("MILLSTREAM_SERVER", self.url());
        command
    }

    /// Runs a client command.
    pub fn cli<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ran {
        finish(&mut self.client(args), b"")
    }

    /// Runs a client command with something to read.
    pub fn cli_reading<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>, stdin: &[u8]) -> Ran {
        finish(&mut self.client(args), stdin)
    }
}

pub(crate) fn finish(command: &mut Command, stdin: &[u8]) -> Ran {
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("the binary can be started");
    let mut input = child.stdin.take().expect("it was asked for");
    std::thread::scope(|scope| {
        // A command that ends early does not read everything.
        scope.spawn(move || input.write_all(stdin));
        let output = child.wait_with_output().expect("a child can be waited for");
        Ran {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    })
}
