//! One complete file: its name, its bytes, and its deployment.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use millstream_broker::{Broker, BrokerError, DeployOptions, Deployed, Kind};
use millstream_wasm::{COMPONENT_BYTES_MAX, Module};
use thiserror::Error;
use tokio::io::AsyncReadExt as _;

/// What a module's file ends in.
const SUFFIX: &str = ".wasm";
/// Names whose content is remembered; beyond it files are deployed again, which changes nothing.
const SEEN_MAX: usize = 10_000;
/// One agent that does not switch must not hold up the next file; nobody reads the answer.
const UNAWAITED: DeployOptions = DeployOptions {
    trial: None,
    no_trial_call: false,
    no_wait: true,
};

#[derive(Debug, Error)]
enum Refused {
    #[error("it is a folder; only files are deployed")]
    Folder,
    #[error("it is a symbolic link; put the file itself here")]
    Link,
    #[error("it is no ordinary file")]
    Other,
    #[error("{bytes} bytes are above the limit of {COMPONENT_BYTES_MAX} bytes for a module")]
    TooLarge { bytes: u64 },
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// Deploys files.
pub struct Deployer {
    broker: Arc<Broker>,
    /// What was found under a module's name last, by sha256.
    seen: HashMap<String, String>,
    /// What was refused about a name last, so that it is said once.
    said: HashMap<String, String>,
}

/// What came of a file.
enum Outcome {
    Deployed(Deployed),
    /// It is what it was, or what a start finds that was in force before.
    Known,
    /// It is not there any more.
    Gone,
}

/// The module that a file is named for; `None` for a file that is none.
pub fn module_of(name: &OsStr) -> Option<String> {
    let name = name.to_string_lossy();
    name.strip_suffix(SUFFIX).map(str::to_owned)
}

impl Deployer {
    pub fn new(broker: Arc<Broker>) -> Deployer {
        Deployer {
            broker,
            seen: HashMap::new(),
            said: HashMap::new(),
        }
    }

    /// Whoever writes a file that was refused, the same bytes included, wants it to be tried again, and to hear of it.
    pub fn forget_refusal(&mut self, name: &OsStr) {
        let Some(module) = module_of(name) else { return };
        if self.said.remove(&module).is_some() {
            self.seen.remove(&module);
        }
    }

    /// Deploys a complete file; false where that has to be tried again. `is_found` for one that was there before it was
    /// listened to: what was in force once stays as it is.
    pub async fn take(&mut self, path: &Path, is_found: bool) -> bool {
        let Some(module) = path.file_name().and_then(module_of) else {
            return true;
        };
        match self.deploy(path, &module, is_found).await {
            Ok(Outcome::Deployed(deployed)) => {
                self.said.remove(&module);
                let topics: Vec<_> = deployed.switches.iter().map(|switch| &*switch.topic).collect();
                let (version, topics) = (deployed.module.version, topics.join(", "));
                tracing::info!(module, version, topics, "a module was deployed from the watched folder");
                true
            }
            Ok(Outcome::Known | Outcome::Gone) => true,
            Err(refused) => {
                let again = matches!(&refused, Refused::Broker(error) if can_be_tried_again(error));
                self.say(&module, path, &refused);
                !again
            }
        }
    }

    async fn deploy(&mut self, path: &Path, module: &str, is_found: bool) -> Result<Outcome, Refused> {
        let Some(component) = read(path).await? else {
            return Ok(Outcome::Gone);
        };
        let bytes = component.clone();
        // Long enough to keep others waiting.
        let hash = tokio::task::spawn_blocking(move || Module::sha256_of(&bytes)).await;
        let sha256 = hash.map_err(io::Error::other)?;
        let before = self.seen.get(module);
        if before == Some(&sha256) {
            return Ok(Outcome::Known);
        }
        if before.is_none() && is_found && self.broker.knows_module(module, &sha256).await? {
            self.remember(module, sha256);
            return Ok(Outcome::Known);
        }
        let deployed = self.broker.deploy_module(module, component, UNAWAITED).await;
        if !deployed.as_ref().is_err_and(can_be_tried_again) {
            self.remember(module, sha256);
        }
        Ok(Outcome::Deployed(deployed?))
    }

    fn remember(&mut self, module: &str, sha256: String) {
        if self.seen.len() >= SEEN_MAX && !self.seen.contains_key(module) {
            self.seen.clear();
            self.said.clear();
        }
        self.seen.insert(module.to_owned(), sha256);
    }

    fn say(&mut self, module: &str, path: &Path, refused: &Refused) {
        let text = format!("{}: {refused}", path.display());
        if self.said.get(module) == Some(&text) {
            return;
        }
        tracing::error!(module, "a module cannot be deployed from the watched folder: {text}");
        self.broker.tell_module_log(
            module,
            &format!("it cannot be deployed from the watched folder: {text}"),
        );
        if self.said.len() < SEEN_MAX {
            self.said.insert(module.to_owned(), text);
        }
    }
}

fn can_be_tried_again(error: &BrokerError) -> bool {
    matches!(error.kind(), Kind::Unavailable | Kind::Exhausted | Kind::Conflict)
}

/// The bytes of a file; `None` where it is not there any more.
async fn read(path: &Path) -> Result<Option<Bytes>, Refused> {
    let here = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || open(here)).await;
    let file = match opened.map_err(io::Error::other)? {
        Ok(file) => file,
        Err(Refused::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(refused) => return Err(refused),
    };
    let bytes = file.metadata()?.len();
    if bytes > COMPONENT_BYTES_MAX as u64 {
        return Err(Refused::TooLarge { bytes });
    }
    let mut component = Vec::new();
    // It may grow meanwhile.
    let mut bounded = tokio::fs::File::from_std(file).take(COMPONENT_BYTES_MAX as u64 + 1);
    bounded.read_to_end(&mut component).await?;
    match component.len() {
        len if len > COMPONENT_BYTES_MAX => Err(Refused::TooLarge { bytes: len as u64 }),
        _ => Ok(Some(component.into())),
    }
}

fn open(path: PathBuf) -> Result<fs::File, Refused> {
    check(&fs::symlink_metadata(&path)?)?;
    // The name may belong to something else by now.
    let file = open_whatever_it_is(&path)?;
    check(&file.metadata()?)?;
    Ok(file)
}

fn check(metadata: &fs::Metadata) -> Result<(), Refused> {
    let kind = metadata.file_type();
    match () {
        () if kind.is_symlink() => Err(Refused::Link),
        () if kind.is_dir() => Err(Refused::Folder),
        () if !kind.is_file() => Err(Refused::Other),
        () => Ok(()),
    }
}

/// Never waits for the other end of a pipe, and follows no link.
fn open_whatever_it_is(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(flags.bits().cast_signed());
    }
    options.open(path)
}

#[cfg(all(test, unix))]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn what_takes_the_place_of_a_file_is_neither_waited_for_nor_followed() {
        let dir = tempfile::tempdir().unwrap();
        let [file, pipe, link] = ["file", "pipe", "link"].map(|name| dir.path().join(name));
        fs::write(&file, b"bytes").unwrap();
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(open(file).is_ok());
        assert!(matches!(open(pipe.clone()), Err(Refused::Other)));
        assert!(matches!(open(link.clone()), Err(Refused::Link)));
        let opened = open_whatever_it_is(&pipe).unwrap();
        assert!(matches!(check(&opened.metadata().unwrap()), Err(Refused::Other)));
        assert!(open_whatever_it_is(&link).is_err());
    }
}
