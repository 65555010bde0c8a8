//! Access to the object store: create-only puts, whole and ranged gets, deletes and listings.
//!
//! Invariant: once [`Store::put_new`] has answered, the object is durable under its key, whole, and was not there
//! before. For local files this means that the content, the directory entry and every directory on the way were
//! fsynced before the answer, and that the file appeared in one step (written beside its place, then hard-linked).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::error::{LogError, Result, is_disk_full};

/// An object store. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// Where the objects are files, the directory they are under.
    local_root: Option<Arc<FilePath>>,
}

impl Store {
    /// Objects as files under `dir`, which is created, durably, when it is not there.
    pub fn local(dir: impl AsRef<FilePath>) -> Result<Store> {
        let dir = dir.as_ref();
        create_dir_durably(dir)?;
        let root = dir
            .canonicalize()
            .map_err(|e| LogError::io(dir, "open the directory", 0, e))?;
        let files =
            LocalFileSystem::new_with_prefix(&root).map_err(|e| store_error(&root.to_string_lossy(), "open", 0, e))?;
        Ok(Store {
            objects: Arc::new(files.with_fsync(true)),
            local_root: Some(root.into()),
        })
    }

    /// Objects in memory, gone with the process: for tests and trials.
    pub fn memory() -> Store {
        Store::over(Arc::new(InMemory::new()))
    }

    pub(crate) fn over(objects: Arc<dyn ObjectStore>) -> Store {
        Store {
            objects,
            local_root: None,
        }
    }

    /// Writes an object that must not exist yet, `parts` one after the other, and gives its etag when the store has one.
    ///
    /// Errors: [`LogError::AlreadyExists`] (the object there is untouched), [`LogError::DiskFull`], [`LogError::Store`].
    /// After the last one the object may or may not be there: read it back or take a new key.
    pub async fn put_new(&self, key: &str, parts: Vec<Bytes>) -> Result<Option<String>> {
        let path = parse(key)?;
        let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let options = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        let put = self
            .objects
            .put_opts(&path, PutPayload::from_iter(parts), options)
            .await;
        let put = put.map_err(|e| store_error(key, "put", bytes, e))?;
        if let Some(root) = &self.local_root {
            sync_directories(root.clone(), root.join(path.as_ref())).await?;
        }
        Ok(put.e_tag)
    }

    /// The whole object. Errors: [`LogError::NotFound`], [`LogError::Store`].
    pub async fn get(&self, key: &str) -> Result<Bytes> {
        let found = self
            .objects
            .get(&parse(key)?)
            .await
            .map_err(|e| store_error(key, "get", 0, e))?;
        found.bytes().await.map_err(|e| store_error(key, "get", 0, e))
    }

    /// Exactly the bytes of `range`. Errors: as [`Store::get`], and [`LogError::RangeMismatch`] when the object ends
    /// before the range does.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let expected = range.end.saturating_sub(range.start);
        let found = self.objects.get_range(&parse(key)?, range).await;
        let found = found.map_err(|e| store_error(key, "get a range", 0, e))?;
        if found.len() as u64 != expected {
            return Err(LogError::RangeMismatch {
                key: key.to_string(),
                found: found.len() as u64,
                expected,
            });
        }
        Ok(found)
    }

    /// Deletes the object; one that is not there is fine.
    pub async fn delete(&self, key: &str) -> Result<()> {
        match self.objects.delete(&parse(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(store_error(key, "delete", 0, e)),
        }
    }

    /// The keys under `prefix`, sorted. A prefix ends at a slash: `a/b` has `a/b/c` under it, but not `a/bc`.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let path = (!prefix.is_empty()).then(|| parse(prefix)).transpose()?;
        let listed = self
            .objects
            .list(path.as_ref())
            .map_ok(|object| object.location.to_string());
        let mut keys: Vec<String> = listed
            .try_collect()
            .await
            .map_err(|e| store_error(prefix, "list", 0, e))?;
        keys.sort_unstable();
        Ok(keys)
    }
}

/// Creates `dir` and whatever is missing above it, and syncs every directory that got an entry.
pub(crate) fn create_dir_durably(dir: &FilePath) -> Result<()> {
    let mut missing = Vec::new();
    let mut above = Some(dir);
    while let Some(candidate) = above
        && !candidate.as_os_str().is_empty()
        && !candidate.exists()
    {
        missing.push(candidate);
        above = candidate.parent();
    }
    std::fs::create_dir_all(dir).map_err(|e| LogError::io(dir, "create the directory", 0, e))?;
    for created in missing {
        sync_dir(created)?;
        sync_dir(parent_of(created))?;
    }
    Ok(())
}

/// Makes the entries of `dir` durable.
pub(crate) fn sync_dir(dir: &FilePath) -> Result<()> {
    let synced = File::open(dir).and_then(|opened| opened.sync_all());
    synced.map_err(|e| LogError::io(dir, "sync the directory", 0, e))
}

fn parent_of(path: &FilePath) -> &FilePath {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => FilePath::new("."),
    }
}

/// Syncs the directories between `root` and `file`.
// object_store syncs the file, its directory, and the directories it made itself. Where two puts need the same new
// directory, one of them makes it and the other finds it there, maybe before it is durable; so each syncs the way up.
async fn sync_directories(root: Arc<FilePath>, file: PathBuf) -> Result<()> {
    let path = root.to_path_buf();
    let walk = move || {
        let above = file.parent().into_iter().flat_map(|dir| dir.ancestors().skip(1));
        for dir in above.take_while(|dir| dir.starts_with(&root)) {
            sync_dir(dir)?;
        }
        Ok(())
    };
    tokio::task::spawn_blocking(walk).await.unwrap_or_else(|e| {
        Err(LogError::Io {
            path,
            action: "sync the directories",
            source: Arc::new(io::Error::other(e)),
        })
    })
}

fn parse(key: &str) -> Result<Path> {
    Path::parse(key).map_err(|e| LogError::KeyRefused {
        key: key.to_string(),
        reason: e.to_string(),
    })
}

fn store_error(key: &str, action: &'static str, needed_bytes: u64, source: object_store::Error) -> LogError {
    match source {
        object_store::Error::AlreadyExists { .. } => LogError::AlreadyExists { key: key.to_string() },
        object_store::Error::NotFound { .. } => LogError::NotFound { key: key.to_string() },
        source if says_disk_full(&source) => LogError::DiskFull {
            path: PathBuf::from(key),
            needed_bytes,
        },
        source => LogError::Store {
            key: key.to_string(),
            action,
            source: Arc::new(source),
        },
    }
}

/// Whether a full disk stands anywhere in the chain of causes.
fn says_disk_full(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(is_disk_full) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every store must do.
    async fn conforms(store: Store) {
        let put = |key: &'static str, parts: &[&'static [u8]]| {
            let parts = parts.iter().map(|part| Bytes::from_static(part)).collect();
            let store = store.clone();
            async move { store.put_new(key, parts).await }
        };
        put("a/b/2", &[b"one", b"", b"two"]).await.unwrap();
        assert_eq!(store.get("a/b/2").await.unwrap(), "onetwo");
        assert_eq!(store.get_range("a/b/2", 2..5).await.unwrap(), "etw");
        assert!(store.get_range("a/b/2", 2..50).await.is_err());

        assert!(matches!(
            put("a/b/2", &[b"new"]).await,
            Err(LogError::AlreadyExists { .. })
        ));
        assert_eq!(store.get("a/b/2").await.unwrap(), "onetwo");
        assert!(matches!(store.get("a/b/9").await, Err(LogError::NotFound { .. })));
        assert!(matches!(store.get("a//b").await, Err(LogError::KeyRefused { .. })));

        let both = futures::future::join(put("a/b/1", &[b"x"]), put("a/b/1", &[b"y"])).await;
        assert!(both.0.is_ok() != both.1.is_ok(), "of two puts one wins");
        put("a/bc/3", &[b"z"]).await.unwrap();
        assert_eq!(store.list("a/b").await.unwrap(), ["a/b/1", "a/b/2"]);
        assert_eq!(store.list("").await.unwrap(), ["a/b/1", "a/b/2", "a/bc/3"]);

        store.delete("a/b/1").await.unwrap();
        store.delete("a/b/1").await.unwrap();
        assert_eq!(store.list("a/b").await.unwrap(), ["a/b/2"]);
    }

    #[tokio::test]
    async fn the_store_in_memory_conforms() {
        conforms(Store::memory()).await;
    }

    #[tokio::test]
    async fn the_store_of_local_files_conforms() {
        let dir = tempfile::tempdir().unwrap();
        conforms(Store::local(dir.path().join("made/on/the/way")).unwrap()).await;
    }

    #[tokio::test]
    async fn local_objects_are_there_when_the_store_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let etag = Store::local(dir.path())
            .unwrap()
            .put_new("a/b", vec![Bytes::from_static(b"kept")])
            .await
            .unwrap();
        assert!(etag.is_some());
        assert_eq!(Store::local(dir.path()).unwrap().get("a/b").await.unwrap(), "kept");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("wrapped")]
    struct Wrapped(#[source] io::Error);

    #[test]
    fn a_full_disk_is_told_apart_however_deep_it_is_wrapped() {
        let put_failed = |kind: io::ErrorKind| {
            let source = Box::new(Wrapped(kind.into()));
            store_error(
                "key",
                "put",
                10,
                object_store::Error::Generic { store: "local", source },
            )
        };
        assert!(put_failed(io::ErrorKind::StorageFull).is_disk_full());
        assert!(put_failed(io::ErrorKind::QuotaExceeded).is_disk_full());
        assert!(!put_failed(io::ErrorKind::PermissionDenied).is_disk_full());
    }
}
