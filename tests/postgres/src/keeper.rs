//! The process that keeps one server, and ends with this one.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::binaries::{Binaries, without_settings};

const SCRIPT: &str = include_str!("keeper.sh");
/// Who runs the server where we are root, which PostgreSQL refuses to be: the first that exists.
const USERS: [&str; 3] = ["postgres", "nobody", "daemon"];
/// Everybody may make a directory here (`w` and `x` for others).
const OPEN_TO_ALL: u32 = 0o003;

/// A running keeper. Its server and its directory go when this is dropped, and when this process ends in any other way.
#[derive(Debug)]
pub(crate) struct Keeper {
    child: Child,
    // `None` once the keeper was told to end.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Keeper {
    pub(crate) fn start(binaries: &Binaries) -> Result<Keeper, String> {
        let mut command = Command::new("sh");
        without_settings(&mut command);
        command
            .args(["-c", SCRIPT, "keeper"])
            .arg(binaries.folder())
            .arg(folder()?)
            // Another user may not be allowed to look at ours.
            .current_dir("/")
            // Ctrl-C is for the tests; the keeper ends when they have.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if am_root()? {
            let (uid, gid) = unprivileged()?;
            command.uid(uid).gid(gid);
        }
        let mut child = command.spawn().map_err(|error| format!("sh: {error}"))?;
        Ok(Keeper {
            commands: child.stdin.take(),
            answers: BufReader::new(child.stdout.take().expect("it was asked for")),
            child,
        })
    }

    /// Has something done; what it answers.
    pub(crate) fn ask(&mut self, command: &str) -> Result<String, String> {
        let commands = self.commands.as_mut().expect("it is taken only when this is dropped");
        let asked = commands.write_all(format!("{command}\n").as_bytes());
        asked.map_err(|error| format!("{command}: {error}"))?;
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        read.map_err(|error| format!("{command}: {error}"))?;
        let (kind, answer) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
        match kind {
            "ok" => Ok(answer.to_owned()),
            "error" => Err(answer.to_owned()),
            _ => Err(format!("{command}: the keeper of the server has ended")),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.commands = None;
        // It ends now that its input has, whatever it ends with.
        let _ = self.child.wait();
    }
}

/// Where the server's directory can be made by whoever runs it.
fn folder() -> Result<PathBuf, String> {
    let folder = std::env::temp_dir();
    let metadata = std::fs::metadata(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let shared = metadata.mode() & OPEN_TO_ALL == OPEN_TO_ALL;
    Ok(match shared || !am_root()? {
        true => folder,
        false => Path::new("/tmp").to_owned(),
    })
}

pub(crate) fn am_root() -> Result<bool, String> {
    Ok(id(&["-u"])? == 0)
}

fn unprivileged() -> Result<(u32, u32), String> {
    let found = USERS
        .iter()
        .find_map(|user| Some((id(&["-u", user]).ok()?, id(&["-g", user]).ok()?)));
    found.ok_or_else(|| {
        format!(
            "PostgreSQL does not run as root, and there is none of the users {USERS:?}: add one, or run as another user"
        )
    })
}

fn id(args: &[&str]) -> Result<u32, String> {
    let output = Command::new("id").args(args).output();
    let output = output.map_err(|error| format!("id: {error}"))?;
    let number = String::from_utf8_lossy(&output.stdout);
    number
        .trim()
        .parse()
        .map_err(|_| format!("id {args:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
