//! A disk that is soon full: a small file system in memory, in a mount namespace of its own.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use tempfile::TempDir;

/// What one write of the filler has at most.
const FILLER_BYTES: usize = 64 << 10;

/// The file system lives as long as this value, held by a process that does nothing else.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Child,
    mount_point: TempDir,
    in_user_namespace: bool,
}

impl SmallDisk {
    /// Mounts a file system of so many bytes.
    ///
    /// # Errors
    /// Why this machine does not permit it.
    pub fn mount(bytes: u64) -> Result<Arc<SmallDisk>, String> {
        SmallDisk::mount_with(bytes, false)
            .or_else(|first| SmallDisk::mount_with(bytes, true).map_err(|second| format!("{first}; {second}")))
            .map(Arc::new)
    }

    fn mount_with(bytes: u64, in_user_namespace: bool) -> Result<SmallDisk, String> {
        let mount_point = TempDir::with_prefix("millstream-disk-").map_err(|error| error.to_string())?;
        let options = if in_user_namespace { "-rm" } else { "-m" };
        // `cat` holds the namespace until its standard input closes.
        let script = r#"mount -t tmpfs -o size="$1" tmpfs "$0" && echo mounted && exec cat"#;
        let mut holder = Command::new("unshare")
            .args([options, "sh", "-c", script])
            .arg(mount_point.path())
            .arg(bytes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare {options}: {error}"))?;
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("it was asked for");
        let read = BufReader::new(stdout).read_line(&mut line);
        if read.is_ok() && line == "mounted\n" {
            return Ok(SmallDisk {
                holder,
                mount_point,
                in_user_namespace,
            });
        }
        let output = holder.wait_with_output().map_err(|error| error.to_string())?;
        let reason = String::from_utf8_lossy(&output.stderr);
        Err(format!("unshare {options}: {}", reason.trim()))
    }

    /// Where it is mounted, for a process started by [`SmallDisk::command`].
    pub fn inside(&self) -> &Path {
        self.mount_point.path()
    }

    /// A command that runs where the disk is mounted. It keeps its process id.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--mount"]);
        if self.in_user_namespace {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--").arg(program);
        command
    }

    /// The disk as this process sees it.
    fn outside(&self) -> PathBuf {
        let root = format!("/proc/{}/root", self.holder.id());
        Path::new(&root).join(self.inside().strip_prefix("/").expect("temporary folders are absolute"))
    }

    /// Fills it to the last byte.
    ///
    /// # Panics
    /// Where it cannot be written for another reason.
    pub fn fill(&self) {
        let filler = fs::File::options().create(true).append(true).open(self.filler());
        let mut filler = filler.expect("a file can be made without room for it");
        let mut bytes = FILLER_BYTES;
        while bytes > 0 {
            match filler.write(&vec![1; bytes]) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => bytes /= 2,
                Err(error) => panic!("filling the disk: {error}"),
            }
        }
    }

    /// Frees what [`SmallDisk::fill`] took.
    ///
    /// # Panics
    /// Where that is not possible.
    pub fn free(&self) {
        fs::remove_file(self.filler()).expect("the filler is there");
    }

    fn filler(&self) -> PathBuf {
        self.outside().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
