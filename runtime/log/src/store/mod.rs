//! Access to the object store: create-only puts, whole and ranged gets, deletes and listings.
//!
//! | file | owns |
//! |---|---|
//! | `allowance` | how long a request over HTTP may take |
//! | `local` | objects as local files, durable before a put is answered |
//! | `s3` | Amazon S3 and its compatibles: settings, credentials |
//! | [`check`] | whether a store gives what the log relies on, tried out on the store itself |
//!
//! Each store guarantees:
//! 1. Once [`Store::put_new`] has answered, the object is durable under its key, whole, and was not there before. Of
//!    concurrent puts of one key at most one content wins, and it is never changed again.
//! 2. A put whose answer was lost, and which was tried again, is a success when the object there has the same bytes:
//!    keys carry random ids or the writer's own, so nobody else writes those bytes there.
//! 3. A get sees every put that was answered before it was asked.
//! 4. An etag, where there is one, stays with the content: with it a read is of exactly the object that was put.
//! 5. Every call ends: with an answer, or with an error after a bounded time.

mod allowance;
pub mod check;
mod delete;
mod local;
mod s3;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

pub use s3::S3Settings;

use self::allowance::Allowance;
use crate::error::{LogError, Result, is_disk_full};

/// How often a put is tried when the store says that it met another request for the same key, and there is no object.
const CONFLICT_ATTEMPTS_MAX: usize = 3;

/// An object store. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// Whether the etags follow the content. Those of local files follow the file: a copy has others.
    etags: bool,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Its key.
    pub key: String,
    /// Its length.
    pub bytes: u64,
    /// When it was put, in milliseconds since 1970, by the store's clock.
    pub modified_ms: i64,
}

/// What lies right under a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folder {
    /// The objects.
    pub objects: Vec<StoredObject>,
    /// The prefixes under which there are more, each without the slash at its end.
    pub folders: Vec<String>,
}

impl Store {
    /// Objects as files under `dir`, which is created, durably, when it is not there. One process at a time may write
    /// there.
    ///
    /// Errors: [`LogError::Io`], [`LogError::DiskFull`], [`LogError::Store`].
    pub fn local(dir: impl AsRef<FilePath>) -> Result<Store> {
        Ok(Store {
            objects: Arc::new(local::LocalObjects::open(dir.as_ref())?),
            etags: false,
        })
    }

    /// Objects in memory, gone with the process: for tests and trials.
    pub fn memory() -> Store {
        Store::over(Arc::new(InMemory::new()))
    }

    /// Objects in a bucket of Amazon S3, or of a store that speaks its protocol. Nothing is sent yet: [`check::run`]
    /// tries it out.
    ///
    /// Errors: [`LogError::StoreSettings`].
    pub fn s3(settings: &S3Settings) -> Result<Store> {
        Ok(Store::over(s3::open(settings, Allowance::default())?))
    }

    /// Objects in a store that is there already, whose etags follow the content: for tests, a faulty one.
    pub fn over(objects: Arc<dyn ObjectStore>) -> Store {
        Store { objects, etags: true }
    }

    /// Writes an object that must not exist yet, `parts` one after the other. Gives its etag where the store's etags
    /// follow the content.
    ///
    /// Errors: [`LogError::AlreadyExists`] (the object there has other bytes, and is untouched), [`LogError::DiskFull`],
    /// [`LogError::Store`]. After the last one the object may or may not be there: put the same again, or take a new key.
    pub async fn put_new(&self, key: &str, parts: Vec<Bytes>) -> Result<Option<String>> {
        let path = parse(key)?;
        let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let payload = PutPayload::from_iter(parts);
        let mut conflicts = 0;
        loop {
            let options = PutOptions {
                mode: PutMode::Create,
                ..PutOptions::default()
            };
            let put = match self.objects.put_opts(&path, payload.clone(), options).await {
                Ok(put) => return Ok(put.e_tag.filter(|_| self.etags)),
                Err(error) => store_error(key, "put", bytes, error),
            };
            if !matches!(put, LogError::AlreadyExists { .. }) {
                return Err(put);
            }
            // The client below tries again what broke off, and then meets the object that it had put itself.
            match self.read_back(key, &path, &payload, bytes).await {
                Ok(Some(etag)) => return Ok(etag.filter(|_| self.etags)),
                Ok(None) => return Err(put),
                // S3 also says "conflict" when two puts meet and neither has won yet.
                Err(LogError::NotFound { .. }) if conflicts + 1 < CONFLICT_ATTEMPTS_MAX => conflicts += 1,
                Err(LogError::NotFound { .. }) => return Err(put_conflict(key)),
                Err(error) => return Err(error),
            }
        }
    }

    /// The etag of the object, if it has exactly these bytes.
    async fn read_back(
        &self,
        key: &str,
        path: &Path,
        payload: &PutPayload,
        bytes: u64,
    ) -> Result<Option<Option<String>>> {
        let failed = |error| store_error(key, "read back", 0, error);
        let found = self.objects.get(path).await.map_err(failed)?;
        if found.meta.size != bytes {
            return Ok(None);
        }
        let etag = found.meta.e_tag.clone();
        let mut expected = payload.clone().into_iter();
        let mut part = Bytes::new();
        let mut stream = found.into_stream();
        while let Some(mut chunk) = stream.try_next().await.map_err(failed)? {
            while !chunk.is_empty() {
                while part.is_empty() {
                    let Some(next) = expected.next() else { return Ok(None) };
                    part = next;
                }
                let length = part.len().min(chunk.len());
                if part.split_to(length) != chunk.split_to(length) {
                    return Ok(None);
                }
            }
        }
        // The lengths were equal before; here the store may have told one and sent another.
        let rest = part.len() + expected.map(|part| part.len()).sum::<usize>();
        Ok((rest == 0).then_some(etag))
    }

    /// The whole object. Errors: [`LogError::NotFound`], [`LogError::Store`].
    pub async fn get(&self, key: &str) -> Result<Bytes> {
        let found = self.fetch(key, None, None).await?;
        found.bytes().await.map_err(|e| store_error(key, "get", 0, e))
    }

    /// Exactly the bytes of `range`. Errors: as [`Store::get`], and [`LogError::RangeMismatch`] when the object ends
    /// before the range does.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.get_range_of(key, None, range).await
    }

    /// Exactly the bytes of `range` of the object that was put with this etag. Errors: as [`Store::get_range`], and
    /// [`LogError::Changed`] when the object there is another one.
    pub async fn get_range_of(&self, key: &str, etag: Option<&str>, range: Range<u64>) -> Result<Bytes> {
        let expected = range.end.saturating_sub(range.start);
        let found = self.fetch(key, etag, Some(GetRange::Bounded(range))).await?;
        let found = found.bytes().await;
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

    /// Exactly the bytes of `range`, with the object's etag where the store's etags follow the content. Errors: as
    /// [`Store::get_range`].
    pub async fn get_range_with_etag(&self, key: &str, range: Range<u64>) -> Result<(Bytes, Option<String>)> {
        let expected = range.end.saturating_sub(range.start);
        let found = self.fetch(key, None, Some(GetRange::Bounded(range))).await?;
        let etag = found.meta.e_tag.clone().filter(|_| self.etags);
        let found = found.bytes().await;
        let found = found.map_err(|e| store_error(key, "get a range", 0, e))?;
        match found.len() as u64 {
            length if length == expected => Ok((found, etag)),
            found => Err(LogError::RangeMismatch {
                key: key.to_string(),
                found,
                expected,
            }),
        }
    }

    async fn fetch(&self, key: &str, etag: Option<&str>, range: Option<GetRange>) -> Result<GetResult> {
        let etag = etag.filter(|_| self.etags);
        let options = GetOptions {
            if_match: etag.map(str::to_string),
            range,
            ..GetOptions::default()
        };
        let found = self.objects.get_opts(&parse(key)?, options).await;
        let found = found.map_err(|e| store_error(key, "get", 0, e))?;
        // Checked here too: a store that does not know the condition would answer as if there were none.
        if etag.is_some() && found.meta.e_tag.as_deref() != etag {
            return Err(LogError::Changed { key: key.to_string() });
        }
        Ok(found)
    }

    /// Deletes the object; one that is not there is fine. Errors: [`LogError::Store`].
    pub async fn delete(&self, key: &str) -> Result<()> {
        self.delete_all(vec![key.to_string()]).await
    }

    /// Deletes these objects, with as few requests as the store allows; one that is not there is fine. All are tried,
    /// the first failure is told.
    ///
    /// Errors: [`LogError::Store`].
    pub async fn delete_all(&self, keys: Vec<String>) -> Result<()> {
        delete::delete_all(self.objects.as_ref(), keys).await
    }

    /// The keys under `prefix`, sorted. A prefix ends at a slash: `a/b` has `a/b/c` under it, but not `a/bc`.
    ///
    /// Errors: [`LogError::Store`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let objects = self.list_objects(prefix).await?;
        Ok(objects.into_iter().map(|object| object.key).collect())
    }

    /// What lies right under `prefix`, which is empty for the whole store: objects and folders, both sorted.
    ///
    /// Errors: [`LogError::Store`].
    pub async fn list_folder(&self, prefix: &str) -> Result<Folder> {
        let path = (!prefix.is_empty()).then(|| parse(prefix)).transpose()?;
        let listed = self.objects.list_with_delimiter(path.as_ref()).await;
        let listed = listed.map_err(|e| store_error(prefix, "list", 0, e))?;
        let mut objects: Vec<StoredObject> = listed.objects.into_iter().map(StoredObject::from).collect();
        objects.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        let mut folders: Vec<String> = listed.common_prefixes.into_iter().map(String::from).collect();
        folders.sort_unstable();
        Ok(Folder { objects, folders })
    }

    /// The objects under `prefix`, sorted by key. A prefix ends at a slash, as in [`Store::list`].
    ///
    /// Errors: [`LogError::Store`].
    pub async fn list_objects(&self, prefix: &str) -> Result<Vec<StoredObject>> {
        let path = (!prefix.is_empty()).then(|| parse(prefix)).transpose()?;
        let listed = self.objects.list(path.as_ref()).map_ok(StoredObject::from);
        let mut objects: Vec<StoredObject> = listed
            .try_collect()
            .await
            .map_err(|e| store_error(prefix, "list", 0, e))?;
        objects.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(objects)
    }
}

impl From<ObjectMeta> for StoredObject {
    fn from(meta: ObjectMeta) -> StoredObject {
        StoredObject {
            key: meta.location.into(),
            bytes: meta.size,
            modified_ms: meta.last_modified.timestamp_millis(),
        }
    }
}

fn parse(key: &str) -> Result<Path> {
    let refused = |reason: String| LogError::KeyRefused {
        key: key.to_string(),
        reason,
    };
    let path = Path::parse(key).map_err(|e| refused(e.to_string()))?;
    match path.as_ref().is_empty() {
        true => Err(refused("it is empty".into())),
        false => Ok(path),
    }
}

fn put_conflict(key: &str) -> LogError {
    let source = "the store reports a conflict, but there is no object".into();
    LogError::Store {
        key: key.to_string(),
        action: "put",
        source: Arc::new(object_store::Error::Generic { store: "S3", source }),
    }
}

fn store_error(key: &str, action: &'static str, needed_bytes: u64, source: object_store::Error) -> LogError {
    match source {
        object_store::Error::AlreadyExists { .. } => LogError::AlreadyExists { key: key.to_string() },
        object_store::Error::NotFound { .. } => LogError::NotFound { key: key.to_string() },
        object_store::Error::Precondition { .. } => LogError::Changed { key: key.to_string() },
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
