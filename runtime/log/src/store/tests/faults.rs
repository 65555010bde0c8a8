//! A disk that fails at one operation after the other.

use std::sync::atomic::{AtomicI64, Ordering};

use super::super::Folder;
use super::super::local::LocalObjects;
use super::*;
use crate::file::{Disk, DiskFile, LocalDisk};

/// The disk of this machine, of which one operation fails: that which comes when the countdown is at 0.
#[derive(Debug, Clone, Default)]
struct FaultyDisk {
    countdown: Arc<AtomicI64>,
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    file: Arc<dyn DiskFile>,
}

impl FaultyDisk {
    fn step(&self) -> io::Result<()> {
        match self.countdown.fetch_sub(1, Ordering::SeqCst) {
            0 => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &FilePath, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.step()?;
        Ok(Arc::new(FaultyFile {
            disk: self.clone(),
            file: LocalDisk.create(path, bytes)?,
        }))
    }

    fn link(&self, from: &FilePath, to: &FilePath) -> io::Result<()> {
        self.step()?;
        LocalDisk.link(from, to)
    }

    fn remove(&self, path: &FilePath) -> io::Result<()> {
        self.step()?;
        LocalDisk.remove(path)
    }

    fn create_dir(&self, dir: &FilePath) -> io::Result<()> {
        self.step()?;
        LocalDisk.create_dir(dir)
    }

    fn sync_dir(&self, dir: &FilePath) -> io::Result<()> {
        self.step()?;
        LocalDisk.sync_dir(dir)
    }
}

impl DiskFile for FaultyFile {
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.disk.step()?;
        self.file.reserve(bytes)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.disk.step()?;
        self.file.write_at(bytes, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.step()?;
        self.file.sync_data()
    }
}

#[tokio::test]
async fn a_local_put_that_fails_leaves_nothing_and_can_be_tried_again() {
    let mut failures = 0;
    for countdown in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        disk.countdown.store(i64::MAX, Ordering::SeqCst);
        let objects = LocalObjects::over(Arc::new(disk.clone()), dir.path()).unwrap();
        let store = Store {
            objects: Arc::new(objects),
            etags: false,
        };
        disk.countdown.store(countdown, Ordering::SeqCst);
        let parts = vec![Bytes::from_static(b"who"), Bytes::from_static(b"le")];
        match store.put_new("a/b/c", parts.clone()).await {
            Ok(_) if disk.countdown.load(Ordering::SeqCst) >= 0 => break,
            Ok(_) => {}
            Err(error) => {
                failures += 1;
                assert!(error.is_disk_full(), "{error}");
                assert!(store.list("").await.unwrap().is_empty(), "countdown {countdown}");
            }
        }
        store.put_new("a/b/c", parts).await.unwrap();
        assert_eq!(store.get("a/b/c").await.unwrap(), "whole");
    }
    assert!(failures >= 8, "{failures}");
}

#[tokio::test]
async fn what_was_half_written_is_never_an_object_and_is_swept_at_the_next_opening() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::local(dir.path()).unwrap();
    let half_written = dir.path().join("#staged/1#7");
    std::fs::write(&half_written, b"ha").unwrap();
    std::fs::write(dir.path().join("#staged/whole"), b"whole").unwrap();
    assert!(store.list("").await.unwrap().is_empty());
    assert_eq!(store.list_folder("").await.unwrap(), Folder::default());
    assert!(store.get("#staged/1#7").await.is_err());
    Store::local(dir.path()).unwrap();
    assert!(!half_written.exists());
}

#[tokio::test]
async fn local_objects_have_no_etag_and_are_there_when_the_store_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::local(dir.path()).unwrap();
    let etag = store.put_new("a/b", vec![Bytes::from_static(b"kept")]).await.unwrap();
    assert_eq!(etag, None);
    let again = Store::local(dir.path()).unwrap();
    assert_eq!(
        again
            .get_range_of("a/b", Some("of an older version"), 0..4)
            .await
            .unwrap(),
        "kept"
    );
}

#[tokio::test]
async fn a_directory_that_somebody_removed_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::local(dir.path()).unwrap();
    store
        .put_new("topic/0/first", vec![Bytes::from_static(b"1")])
        .await
        .unwrap();
    std::fs::remove_dir_all(dir.path().join("topic")).unwrap();
    store
        .put_new("topic/0/second", vec![Bytes::from_static(b"2")])
        .await
        .unwrap();
    assert_eq!(store.get("topic/0/second").await.unwrap(), "2");
}
