//! Objects as local files: small reads, listings and deletes are those of `object_store`; puts, and reads of large pieces, are
//! our own. Large ones go past what the system keeps of files in memory, both ways: the block cache keeps what is read.
//!
//! A put writes a staged file, syncs it, links it to its place (which fails where something is there), and syncs the
//! directory; the directories on the way were made and synced before. A crash
//!
//! 1. before the link leaves a staged file, which the next opening of the store takes away;
//! 2. between the link and the sync of the directory leaves the object whole, or not there;
//! 3. after that sync leaves it there, whole.
//!
//! Staged files stand in a directory of their own, so that opening need not look at every object. Their names end with
//! `#` and digits, which no key may.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use futures::future::ready;
use futures::stream::{self, BoxStream, StreamExt, once};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::store_error;
use crate::error::{LogError, Result};
use crate::file::{
    BLOCK_BYTES, DIRECT_BYTES_MIN, DirectReader, Disk, DiskFile, LocalDisk, create_dir_durably, parent_of,
};

/// Where files stand until they are whole.
const STAGED_DIR: &str = "#staged";
/// How many directories are remembered as durable; beyond that they are all looked at again.
const DIRS_KNOWN_MAX: usize = 10_000;
/// How many names are tried for a staged file; another process' may stand there.
const STAGED_NAMES_MAX: usize = 1_000;
const STORE: &str = "local files";
/// How much of a large object is written, and read, at once. A block is read whole where it can be: it is kept as one.
const PIECE_BYTES: usize = 1 << 20;
const READ_BYTES: u64 = 4 << 20;

type StoreResult<T> = object_store::Result<T>;

/// A directory of objects.
#[derive(Debug)]
pub(super) struct LocalObjects {
    files: LocalFileSystem,
    writer: Arc<Writer>,
    reader: DirectReader,
}

/// What puts and deletes do to the disk.
#[derive(Debug)]
struct Writer {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    staged_count: AtomicU64,
    /// Directories below the root whose entries, and those on the way to them, are durable.
    durable_dirs: Mutex<HashSet<PathBuf>>,
}

impl LocalObjects {
    /// Opens the directory, which is made when it is not there, and takes away what a crash left half written.
    pub(super) fn open(dir: &FilePath) -> Result<LocalObjects> {
        LocalObjects::over(Arc::new(LocalDisk), dir)
    }

    pub(super) fn over(disk: Arc<dyn Disk>, dir: &FilePath) -> Result<LocalObjects> {
        create_dir_durably(disk.as_ref(), dir)?;
        let root = dir
            .canonicalize()
            .map_err(|e| LogError::io(dir, "open the directory", 0, e))?;
        let files =
            LocalFileSystem::new_with_prefix(&root).map_err(|e| store_error(&root.to_string_lossy(), "open", 0, e))?;
        let writer = Writer {
            disk,
            root,
            staged_count: AtomicU64::new(0),
            durable_dirs: Mutex::default(),
        };
        writer.sweep()?;
        Ok(LocalObjects {
            files,
            writer: Arc::new(writer),
            reader: DirectReader::default(),
        })
    }

    /// A large piece of an object, which a reader wants many of: opened and read in one go.
    async fn get_block(&self, location: &Path, range: GetRange) -> StoreResult<GetResult> {
        let (reader, path) = (self.reader.clone(), self.files.path_to_filesystem(location)?);
        let read = blocking(move || {
            let file = File::open(&path)?;
            let metadata = file.metadata()?;
            let range = range.as_range(metadata.len()).map_err(io::Error::other)?;
            let bytes = reader.read(&file, range.clone())?;
            Ok((bytes, range, metadata.len(), metadata.modified()?))
        });
        let (bytes, range, size, modified) = read.await.map_err(|error| read_error(location, error))?;
        Ok(GetResult {
            payload: GetResultPayload::Stream(once(ready(Ok(bytes))).boxed()),
            meta: ObjectMeta {
                location: location.clone(),
                last_modified: modified.into(),
                size,
                // The etag of a file follows the file, not its content.
                e_tag: None,
                version: None,
            },
            range,
            attributes: Attributes::default(),
            extensions: Default::default(),
        })
    }
}

/// The range, where nothing else is asked for and it is one that is read past the cache at once.
fn block_of(options: &GetOptions) -> Option<GetRange> {
    let conditions = [&options.if_match, &options.if_none_match, &options.version];
    let times = [options.if_modified_since, options.if_unmodified_since];
    let is_bare = !options.head && conditions.iter().all(|asked| asked.is_none()) && times.iter().all(Option::is_none);
    let block = |range: &Range<u64>| {
        let bytes = range.end.saturating_sub(range.start);
        (DIRECT_BYTES_MIN as u64..=READ_BYTES).contains(&bytes)
    };
    match &options.range {
        Some(GetRange::Bounded(range)) if is_bare && block(range) => Some(GetRange::Bounded(range.clone())),
        _ => None,
    }
}

impl Writer {
    fn staged_dir(&self) -> PathBuf {
        self.root.join(STAGED_DIR)
    }

    /// Takes away what a crash left in the directory of staged files, or makes it.
    fn sweep(&self) -> Result<()> {
        let dir = self.staged_dir();
        let failed = |e| LogError::io(&dir, "take away what was half written", 0, e);
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return create_dir_durably(self.disk.as_ref(), &dir);
            }
            found => found.map_err(failed)?,
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            self.disk.remove(&path).map_err(failed)?;
        }
        Ok(())
    }

    /// Writes a whole object to `path`, where nothing may be.
    fn put(&self, path: &FilePath, payload: &PutPayload) -> io::Result<()> {
        let dir = parent_of(path);
        self.make_durable(dir)?;
        let staged = self.stage(payload)?;
        let linked = match self.link(&staged, path) {
            // Somebody has removed a directory that was known: it is made again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.durable_dirs().clear();
                self.make_durable(dir).and_then(|()| self.link(&staged, path))
            }
            linked => linked,
        };
        // The link holds the content now. A staged file that stays is taken away at the next opening.
        let _ = self.disk.remove(&staged);
        linked
    }

    /// A synced file with this content.
    fn stage(&self, payload: &PutPayload) -> io::Result<PathBuf> {
        let (path, file) = self.create_staged(payload.content_length())?;
        match write_whole(file.as_ref(), payload).and_then(|()| file.sync_data()) {
            Ok(()) => Ok(path),
            Err(error) => {
                let _ = self.disk.remove(&path);
                Err(error)
            }
        }
    }

    fn create_staged(&self, bytes: usize) -> io::Result<(PathBuf, Arc<dyn DiskFile>)> {
        let mut refused = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..STAGED_NAMES_MAX {
            let number = self.staged_count.fetch_add(1, Ordering::Relaxed);
            let path = self.staged_dir().join(format!("{}#{number}", std::process::id()));
            let created = match bytes < DIRECT_BYTES_MIN {
                true => self.disk.create(&path, 0),
                false => self.disk.create_uncached(&path, bytes as u64),
            };
            match created {
                Ok(file) => return Ok((path, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refused = error,
                Err(error) => return Err(error),
            }
        }
        // Told apart from an object that exists.
        Err(io::Error::other(format!("no free name for a staged file: {refused}")))
    }

    /// Puts a staged file in its place, durably.
    fn link(&self, staged: &FilePath, path: &FilePath) -> io::Result<()> {
        let dir = parent_of(path);
        match self.disk.link(staged, path) {
            Ok(()) => self.disk.sync_dir(dir).inspect_err(|_| {
                // Whether the name is durable is not known, and asking again does not tell: the object goes.
                let _ = self.disk.remove(path);
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Who finds its own bytes there takes them for durable; whoever put them may not have come to that yet.
                self.disk.sync_dir(dir)?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes `dir` and what is missing on the way to it, and makes all their entries durable: whoever made one of them may
    /// not have come to that yet.
    fn make_durable(&self, dir: &FilePath) -> io::Result<()> {
        let known = |dir: &FilePath| dir == self.root || self.durable_dirs().contains(dir);
        let mut unknown: Vec<&FilePath> = dir.ancestors().take_while(|dir| !known(dir)).collect();
        while let Some(next) = unknown.pop() {
            match self.disk.create_dir(next) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => self.disk.sync_dir(parent_of(next))?,
            }
            let mut durable = self.durable_dirs();
            if durable.len() >= DIRS_KNOWN_MAX {
                durable.clear();
            }
            durable.insert(next.to_path_buf());
        }
        Ok(())
    }

    fn durable_dirs(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        // Nothing panics while it holds this lock, and a set is whole between any two statements.
        self.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes deletions in these directories durable.
    fn sync_dirs(&self, dirs: BTreeSet<PathBuf>) -> io::Result<()> {
        dirs.iter().try_for_each(|dir| match self.disk.sync_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            synced => synced,
        })
    }
}

/// Writes the parts from the beginning of a file: small ones as they are, others in whole blocks of file and memory.
fn write_whole(file: &dyn DiskFile, payload: &PutPayload) -> io::Result<()> {
    let mut position = 0;
    let mut write = |bytes: &[u8]| {
        file.write_at(bytes, position)?;
        position += bytes.len() as u64;
        io::Result::Ok(())
    };
    if payload.content_length() < DIRECT_BYTES_MIN {
        return payload.iter().try_for_each(|part| write(part));
    }
    let mut memory: Vec<u8> = Vec::with_capacity(PIECE_BYTES + BLOCK_BYTES);
    let gap = memory.as_ptr().align_offset(BLOCK_BYTES);
    memory.resize(gap, 0);
    for part in payload.iter() {
        let mut rest = part.as_ref();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(gap + PIECE_BYTES - memory.len()));
            memory.extend_from_slice(now);
            if memory.len() == gap + PIECE_BYTES {
                write(&memory[gap..])?;
                memory.truncate(gap);
            }
            rest = later;
        }
    }
    write(&memory[gap..])
}

/// Answers with what lies in the range in pieces that are read past what the system keeps of files, where they are large: who
/// asks for much keeps it, and what the system keeps besides costs a copy and a page for each 4 KiB.
fn read_past_cache(reader: &DirectReader, found: GetResult) -> GetResult {
    let range = found.range.clone();
    match found.payload {
        GetResultPayload::File(file, _) if range.end - range.start >= DIRECT_BYTES_MIN as u64 => {
            let (reader, location, file) = (reader.clone(), found.meta.location.clone(), Arc::new(file));
            let starts = range.clone().step_by(READ_BYTES as usize);
            let pieces = stream::iter(starts).then(move |start| {
                let (reader, file, location) = (reader.clone(), file.clone(), location.clone());
                let piece = start..range.end.min(start + READ_BYTES);
                async move {
                    let read = blocking(move || reader.read(&file, piece)).await;
                    read.map_err(|error| read_error(&location, error))
                }
            });
            GetResult {
                payload: GetResultPayload::Stream(pieces.boxed()),
                ..found
            }
        }
        payload => GetResult { payload, ..found },
    }
}

/// Whether it is, or lies in, the directory of staged files. A key cannot hold its name as it is.
fn is_staged(location: &Path) -> bool {
    let staged = Path::from(STAGED_DIR);
    location.as_ref().starts_with(STAGED_DIR) || location.prefix_matches(&staged)
}

fn io_error(path: &Path, error: io::Error) -> object_store::Error {
    let source = Box::new(error);
    match source.kind() {
        io::ErrorKind::AlreadyExists => object_store::Error::AlreadyExists {
            path: path.to_string(),
            source,
        },
        _ => object_store::Error::Generic { store: STORE, source },
    }
}

fn read_error(location: &Path, error: io::Error) -> object_store::Error {
    let source = Box::new(error);
    match source.kind() {
        io::ErrorKind::NotFound => object_store::Error::NotFound {
            path: location.to_string(),
            source,
        },
        _ => object_store::Error::Generic { store: STORE, source },
    }
}

/// Does `work` where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}

impl fmt::Display for LocalObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

impl ObjectStore for LocalObjects {
    fn put_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> BoxFuture<'c, StoreResult<PutResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        Box::pin(async move {
            if !matches!(options.mode, PutMode::Create) {
                return Err(object_store::Error::NotImplemented {
                    operation: "a put that is not create-only".into(),
                    implementer: STORE.into(),
                });
            }
            let path = self.files.path_to_filesystem(location)?;
            let writer = self.writer.clone();
            let put = blocking(move || writer.put(&path, &payload)).await;
            put.map_err(|error| io_error(location, error))?;
            // The etag of a file follows the file, not its content.
            Ok(PutResult {
                e_tag: None,
                version: None,
                extensions: Default::default(),
            })
        })
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        options: PutMultipartOptions,
    ) -> BoxFuture<'c, StoreResult<Box<dyn MultipartUpload>>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.files.put_multipart_opts(location, options)
    }

    fn get_opts<'a, 'b, 'c>(&'a self, location: &'b Path, options: GetOptions) -> BoxFuture<'c, StoreResult<GetResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        Box::pin(async move {
            match block_of(&options) {
                Some(range) => self.get_block(location, range).await,
                None => Ok(read_past_cache(
                    &self.reader,
                    self.files.get_opts(location, options).await?,
                )),
            }
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        let (writer, root) = (self.writer.clone(), self.writer.root.clone());
        let dirs: Arc<Mutex<BTreeSet<PathBuf>>> = Arc::default();
        let touched = dirs.clone();
        let deleted = self.files.delete_stream(locations).inspect(move |deleted| {
            if let Ok(location) = deleted {
                let dir = parent_of(&root.join(location.as_ref())).to_path_buf();
                touched.lock().unwrap_or_else(PoisonError::into_inner).insert(dir);
            }
        });
        // One sync for all deletions in a directory, when the last one is done.
        let sync = once(async move {
            let dirs = std::mem::take(&mut *dirs.lock().unwrap_or_else(PoisonError::into_inner));
            blocking(move || writer.sync_dirs(dirs)).await
        });
        let failed = sync.filter_map(|synced| async { synced.err().map(|e| Err(io_error(&Path::default(), e))) });
        deleted.chain(failed).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        // Half written ones are none of the objects.
        let whole =
            |found: &StoreResult<ObjectMeta>| found.as_ref().map_or(true, |object| !is_staged(&object.location));
        let listed = self.files.list(prefix);
        listed.filter(move |found| ready(whole(found))).boxed()
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, prefix: Option<&'b Path>) -> BoxFuture<'c, StoreResult<ListResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        Box::pin(async move {
            let mut listed = self.files.list_with_delimiter(prefix).await?;
            listed.common_prefixes.retain(|folder| !is_staged(folder));
            listed.objects.retain(|object| !is_staged(&object.location));
            Ok(listed)
        })
    }

    fn copy_opts<'a, 'b, 'd, 'c>(
        &'a self,
        from: &'b Path,
        to: &'d Path,
        options: CopyOptions,
    ) -> BoxFuture<'c, StoreResult<()>>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
    {
        self.files.copy_opts(from, to, options)
    }
}
