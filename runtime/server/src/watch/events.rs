//! What the system tells about a folder, and which file it is about.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};
use tokio::sync::mpsc;

/// Events that wait to be looked at; of more the folder is looked at as a whole.
const EVENTS_MAX: usize = 1_024;

/// What there is to know about a file of the folder.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// It is complete.
    Complete(OsString),
    /// Something happened to it.
    Touched(OsString),
    /// Events were lost.
    Lost,
}

/// The events of one folder.
pub struct Events {
    dir: PathBuf,
    sender: mpsc::Sender<Told>,
    receiver: mpsc::Receiver<Told>,
    lost: Arc<AtomicBool>,
    attached: Option<Attached>,
    /// Why there are no events, where that was said.
    said: Option<String>,
}

struct Attached {
    /// Which folder it is: one that was made anew under the same name is another one.
    identity: Identity,
    _watcher: RecommendedWatcher,
}

type Identity = (u64, u64);

impl Events {
    pub fn new(dir: PathBuf) -> Events {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        Events {
            dir,
            sender,
            receiver,
            lost: Arc::default(),
            attached: None,
            said: None,
        }
    }

    /// The next one.
    pub async fn next(&mut self) -> Told {
        if self.lost.swap(false, Ordering::AcqRel) {
            return Told::Lost;
        }
        let told = self.receiver.recv().await;
        told.expect("this struct has a sender too")
    }

    /// Begins to listen where the folder is there and is not listened to; whether it does so anew.
    pub fn attach(&mut self) -> bool {
        let identity = match identity(&self.dir) {
            Ok(identity) => identity,
            Err(error) => {
                self.attached = None;
                self.say(&format!("{error}; it is waited for"));
                return false;
            }
        };
        if self
            .attached
            .as_ref()
            .is_some_and(|attached| attached.identity == identity)
        {
            return false;
        }
        self.attached = None;
        match self.watcher() {
            Ok(watcher) => {
                self.said = None;
                self.attached = Some(Attached {
                    identity,
                    _watcher: watcher,
                });
                true
            }
            Err(error) => {
                self.say(&error.to_string());
                false
            }
        }
    }

    fn watcher(&self) -> notify::Result<RecommendedWatcher> {
        let (sender, lost) = (self.sender.clone(), self.lost.clone());
        let hear = move |event: notify::Result<Event>| {
            let told = match event {
                Ok(event) => told(event),
                Err(_) => vec![Told::Lost],
            };
            for told in told {
                if told == Told::Lost || sender.try_send(told).is_err() {
                    lost.store(true, Ordering::Release);
                    // Whoever waits hears of it now, or finds it before the events that there are too many of.
                    let _ = sender.try_send(Told::Lost);
                }
            }
        };
        let mut watcher = notify::recommended_watcher(hear)?;
        watcher.watch(&self.dir, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }

    /// Once, until something else is wrong.
    fn say(&mut self, reason: &str) {
        if self.said.as_deref() != Some(reason) {
            tracing::error!(folder = %self.dir.display(), "modules cannot be deployed from the folder: {reason}");
            self.said = Some(reason.to_owned());
        }
    }
}

#[cfg(unix)]
fn identity(dir: &Path) -> std::io::Result<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(dir)?;
    match metadata.is_dir() {
        true => Ok((metadata.dev(), metadata.ino())),
        false => Err(std::io::ErrorKind::NotADirectory.into()),
    }
}

#[cfg(not(unix))]
fn identity(dir: &Path) -> std::io::Result<Identity> {
    let metadata = fs::metadata(dir)?;
    match metadata.is_dir() {
        true => Ok((0, 0)),
        false => Err(std::io::ErrorKind::NotADirectory.into()),
    }
}

fn told(event: Event) -> Vec<Told> {
    if event.need_rescan() {
        return vec![Told::Lost];
    }
    let complete = matches!(
        event.kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Modify(ModifyKind::Name(RenameMode::To))
    );
    let tells_of_closing = cfg!(target_os = "linux");
    let paths = match event.kind {
        // `Both` says again what `From` and `To` have said.
        EventKind::Modify(ModifyKind::Name(RenameMode::From | RenameMode::Both)) | EventKind::Remove(_) => &[],
        _ => &event.paths[..],
    };
    let names = paths
        .iter()
        .filter_map(|path| Some((path, path.file_name()?.to_owned())));
    let told = names.filter_map(|(path, name)| match event.kind {
        _ if complete => Some(Told::Complete(name)),
        // A folder, a symbolic link or a further name of a file is never written and closed.
        EventKind::Create(_) if !is_being_written(path) => Some(Told::Complete(name)),
        _ if tells_of_closing => None,
        _ => Some(Told::Touched(name)),
    });
    told.collect()
}

/// Whether a new entry may be a file whose writer has not closed it yet: such a file has one name only.
fn is_being_written(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && names(&metadata) == 1)
}

#[cfg(unix)]
fn names(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(metadata)
}

#[cfg(not(unix))]
fn names(_: &fs::Metadata) -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn complete(name: &str) -> Told {
        Told::Complete(name.into())
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn a_file_is_complete_when_its_writer_closes_it_or_when_it_is_moved_here() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = Events::new(dir.path().to_owned());
        assert!(events.attach() && !events.attach());
        let mut slow = fs::File::create(dir.path().join("slow")).unwrap();
        slow.write_all(b"half").unwrap();
        fs::write(dir.path().join("whole"), b"whole").unwrap();
        assert_eq!(events.next().await, complete("whole"), "and nothing of the other one");
        drop(slow);
        assert_eq!(events.next().await, complete("slow"));
        fs::rename(dir.path().join("slow"), dir.path().join("moved")).unwrap();
        assert_eq!(events.next().await, complete("moved"));
        fs::create_dir(dir.path().join("folder")).unwrap();
        assert_eq!(events.next().await, complete("folder"));
        fs::hard_link(dir.path().join("moved"), dir.path().join("linked")).unwrap();
        assert_eq!(events.next().await, complete("linked"));
    }

    #[tokio::test]
    async fn a_folder_that_was_made_anew_is_listened_to_again() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("modules");
        let mut events = Events::new(dir.clone());
        assert!(!events.attach());
        fs::create_dir(&dir).unwrap();
        assert!(events.attach());
        fs::rename(&dir, parent.path().join("former")).unwrap();
        assert!(!events.attach());
        fs::create_dir(&dir).unwrap();
        assert!(events.attach());
        fs::write(dir.join("file"), b"").unwrap();
        loop {
            match events.next().await {
                Told::Complete(name) | Told::Touched(name) if name == "file" => break,
                _ => {}
            }
        }
    }

    #[tokio::test]
    async fn more_events_than_wait_are_told_as_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = Events::new(dir.path().to_owned());
        events.attach();
        for n in 0..2 * EVENTS_MAX {
            fs::write(dir.path().join(n.to_string()), b"").unwrap();
        }
        while events.next().await != Told::Lost {}
    }
}
