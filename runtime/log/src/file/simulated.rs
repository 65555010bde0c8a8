//! A disk that keeps only what was synced. Every operation is a numbered step; [`SimulatedDisk::survivors`] writes down
//! what a crash after any of them may leave: of what was not synced each write is there, torn or gone, whatever came
//! before or after it, and each directory entry is there or not.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{Disk, DiskFile, parent_of};

/// What a disk writes as a whole.
const SECTOR_BYTES: usize = 512;

/// The file system under `root`, which is there, empty and durable, at the start.
#[derive(Debug, Clone)]
pub(crate) struct SimulatedDisk {
    root: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    steps: Vec<Step>,
    files: usize,
    /// What a process sees: everything, synced or not.
    seen: HashMap<PathBuf, Node>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Node {
    File(usize),
    Dir,
}

#[derive(Debug)]
enum Step {
    Length { file: usize, bytes: u64 },
    Write { file: usize, position: u64, bytes: Vec<u8> },
    SyncData { file: usize },
    Entry { path: PathBuf, node: Option<Node> },
    SyncDir { dir: PathBuf },
}

/// Numbers that look random and are the same for the same seed.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// One below `bound`.
    // splitmix64
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

impl SimulatedDisk {
    pub(crate) fn new(root: &Path) -> SimulatedDisk {
        let state = State {
            seen: HashMap::from([(root.to_path_buf(), Node::Dir)]),
            ..State::default()
        };
        SimulatedDisk {
            root: root.to_path_buf(),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// How many steps were taken so far.
    pub(crate) fn steps(&self) -> usize {
        self.state.lock().unwrap().steps.len()
    }

    /// Writes into `to`, as if it were the root, what a crash after the first `steps` steps may leave.
    pub(crate) fn survivors(&self, steps: usize, random: &mut Random, to: &Path) {
        let state = self.state.lock().unwrap();
        let mut platter = Platter {
            files: (0..state.files).map(|_| Content::default()).collect(),
            dirs: HashMap::new(),
        };
        for step in &state.steps[..steps] {
            platter.take(step);
        }
        platter.write_dir(&self.root, to, random);
    }

    fn step(&self, step: Step) {
        self.state.lock().unwrap().steps.push(step);
    }

    fn enter(&self, path: &Path, node: Node) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.seen.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.seen.get(parent_of(path)) != Some(&Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.seen.insert(path.to_path_buf(), node);
        state.steps.push(Step::Entry {
            path: path.to_path_buf(),
            node: Some(node),
        });
        Ok(())
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = {
            let mut state = self.state.lock().unwrap();
            state.files += 1;
            state.files - 1
        };
        self.enter(path, Node::File(file))?;
        if bytes > 0 {
            self.step(Step::Length { file, bytes });
        }
        let disk = self.clone();
        Ok(Arc::new(SimulatedFile { disk, file }))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let found = self.state.lock().unwrap().seen.get(from).copied();
        self.enter(to, found.ok_or(io::ErrorKind::NotFound)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.seen.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.steps.push(Step::Entry {
            path: path.to_path_buf(),
            node: None,
        });
        Ok(())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.enter(dir, Node::Dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step(Step::SyncDir { dir: dir.to_path_buf() });
        Ok(())
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    file: usize,
}

impl DiskFile for SimulatedFile {
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.disk.step(Step::Length { file: self.file, bytes });
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.disk.step(Step::Write {
            file: self.file,
            position,
            bytes: bytes.to_vec(),
        });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.step(Step::SyncData { file: self.file });
        Ok(())
    }
}

/// What the disk holds for certain, and what it may hold besides.
struct Platter<'a> {
    files: Vec<Content<'a>>,
    dirs: HashMap<&'a Path, Entries>,
}

#[derive(Default)]
struct Content<'a> {
    synced: Vec<u8>,
    unsynced: Vec<&'a Step>,
}

#[derive(Default)]
struct Entries {
    synced: BTreeMap<OsString, Node>,
    unsynced: Vec<(OsString, Option<Node>)>,
}

impl<'a> Platter<'a> {
    fn take(&mut self, step: &'a Step) {
        match step {
            Step::Length { file, .. } | Step::Write { file, .. } => self.files[*file].unsynced.push(step),
            Step::SyncData { file } => {
                let Content { synced, unsynced } = &mut self.files[*file];
                unsynced.drain(..).for_each(|step| apply(step, synced, &mut |_| true));
            }
            Step::Entry { path, node } => {
                let name = path.file_name().unwrap().to_os_string();
                self.dirs
                    .entry(parent_of(path))
                    .or_default()
                    .unsynced
                    .push((name, *node));
            }
            Step::SyncDir { dir } => {
                let Entries { synced, unsynced } = self.dirs.entry(dir).or_default();
                unsynced.drain(..).for_each(|(name, node)| enter(synced, name, node));
            }
        }
    }

    fn write_dir(&self, dir: &Path, to: &Path, random: &mut Random) {
        let Some(Entries { synced, unsynced }) = self.dirs.get(dir) else {
            return;
        };
        let mut entries = synced.clone();
        for (name, node) in unsynced {
            if random.coin() {
                enter(&mut entries, name.clone(), *node);
            }
        }
        for (name, node) in entries {
            match node {
                Node::File(file) => std::fs::write(to.join(name), self.files[file].survivor(random)).unwrap(),
                Node::Dir => {
                    std::fs::create_dir(to.join(&name)).unwrap();
                    self.write_dir(&dir.join(&name), &to.join(&name), random);
                }
            }
        }
    }
}

impl Content<'_> {
    fn survivor(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for step in &self.unsynced {
            match random.below(4) {
                0 => {}
                1 => apply(step, &mut bytes, &mut |_| true),
                2 => apply(step, &mut bytes, &mut |_| random.coin()),
                _ => {
                    let mut left = random.below(16);
                    apply(step, &mut bytes, &mut |_| {
                        left = left.saturating_sub(1);
                        left > 0
                    });
                }
            }
        }
        bytes
    }
}

/// Does what the step says to the file's bytes; of a write, in those sectors that are `kept`.
fn apply(step: &Step, file: &mut Vec<u8>, kept: &mut dyn FnMut(usize) -> bool) {
    match step {
        Step::Length { bytes, .. } => {
            let length = file.len().max(*bytes as usize);
            file.resize(length, 0);
        }
        Step::Write { position, bytes, .. } => {
            let (mut at, mut bytes) = (*position as usize, bytes.as_slice());
            while !bytes.is_empty() {
                let length = bytes.len().min(SECTOR_BYTES - at % SECTOR_BYTES);
                if kept(at / SECTOR_BYTES) {
                    let end = file.len().max(at + length);
                    file.resize(end, 0);
                    file[at..at + length].copy_from_slice(&bytes[..length]);
                }
                (at, bytes) = (at + length, &bytes[length..]);
            }
        }
        Step::SyncData { .. } | Step::Entry { .. } | Step::SyncDir { .. } => {}
    }
}

fn enter(entries: &mut BTreeMap<OsString, Node>, name: OsString, node: Option<Node>) {
    match node {
        Some(node) => entries.insert(name, node),
        None => entries.remove(&name),
    };
}

#[test]
fn only_what_was_synced_is_always_there() {
    let root = Path::new("/disk");
    let disk = SimulatedDisk::new(root);
    let file = disk.create(&root.join("synced"), 0).unwrap();
    file.write_at(b"durable", 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(root).unwrap();
    file.write_at(b"DURABLE", 0).unwrap();
    disk.create(&root.join("unsynced"), 4).unwrap();
    let mut seen = [[false; 2]; 2];
    for seed in 0..64 {
        let dir = tempfile::tempdir().unwrap();
        disk.survivors(disk.steps(), &mut Random(seed), dir.path());
        let found = std::fs::read(dir.path().join("synced")).unwrap();
        assert!(found == b"durable" || found == b"DURABLE");
        seen[usize::from(found == b"DURABLE")][usize::from(dir.path().join("unsynced").exists())] = true;
    }
    assert_eq!(seen, [[true; 2]; 2], "each happens");
}
