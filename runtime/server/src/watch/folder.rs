//! Which files are in the folder, and which of them are complete as far as two looks can tell.

use std::{collections::BTreeMap, ffi::OsString, fs, path::PathBuf, time::SystemTime};

use super::file::module_of;

/// Files that are looked at once.
const FILES_MAX: usize = 10_000;

/// The folder.
pub struct Folder {
    dir: PathBuf,
    /// Files of which it is not known that they are complete.
    settling: BTreeMap<OsString, Settling>,
}

struct Settling {
    /// How it looked last.
    last: Option<Look>,
    is_found: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Folder {
    pub fn new(dir: PathBuf) -> Folder {
        let settling = BTreeMap::new();
        Folder { dir, settling }
    }

    pub fn path(&self, name: &OsString) -> PathBuf {
        self.dir.join(name)
    }

    /// Looks at a file until it is complete. `is_found` for one that may have been there before it was listened to.
    pub fn settle(&mut self, name: OsString, is_found: bool) {
        if self.settling.len() < FILES_MAX && module_of(&name).is_some() {
            let new = Settling { last: None, is_found };
            self.settling.entry(name).or_insert(new).is_found &= is_found;
        }
    }

    /// Looks at every file until it is complete.
    pub fn look_at_all(&mut self) {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            // It went away again; the next look finds out.
            Err(_) => return,
        };
        for entry in entries.filter_map(Result::ok).take(FILES_MAX) {
            self.settle(entry.file_name(), true);
        }
    }

    /// The files that look as they did the last time, and whether they were found; they are looked at no more.
    pub fn settled(&mut self) -> Vec<(OsString, bool)> {
        let mut settled = Vec::new();
        let dir = &self.dir;
        self.settling.retain(|name, settling| {
            let Ok(metadata) = fs::symlink_metadata(dir.join(name)) else {
                return false;
            };
            let look = Look {
                bytes: metadata.len(),
                modified: metadata.modified().ok(),
            };
            let is_same = settling.last == Some(look);
            settling.last = Some(look);
            if is_same {
                settled.push((name.clone(), settling.is_found));
            }
            !is_same
        });
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_complete_once_two_looks_find_it_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path().to_owned());
        let file = dir.path().join("m.wasm");
        fs::write(&file, b"1").unwrap();
        fs::write(dir.path().join("notes.txt"), b"1").unwrap();
        folder.look_at_all();
        assert!(folder.settled().is_empty());
        fs::write(&file, b"12").unwrap();
        assert!(folder.settled().is_empty());
        assert_eq!(folder.settled(), [("m.wasm".into(), true)]);
        assert!(folder.settled().is_empty(), "it is looked at no more");
        folder.settle("m.wasm".into(), false);
        folder.look_at_all();
        assert!(folder.settled().is_empty());
        assert_eq!(folder.settled(), [("m.wasm".into(), false)], "it was not found only");
        folder.settle("m.wasm".into(), false);
        fs::remove_file(&file).unwrap();
        assert!(folder.settled().is_empty());
    }
}
