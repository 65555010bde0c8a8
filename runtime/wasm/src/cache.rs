//! Compiled modules on the local disk, so that an agent compiles a version once and not at every start.
//!
//! ```text
//! file     {sha256 of the component}-{compatibility of the engine}.code
//! content  magic             8 B     "MSTCODE1"
//!          component         32 B    sha256 of the component it was compiled from
//!          compatibility     8 B     hash of the engine's version and settings, little endian
//!          length            8 B     of the code, little endian
//!          code sha256       32 B
//!          code
//! ```
//!
//! It holds what this engine compiled itself, and nothing else gets in: no upload, no file beside the folder. A file
//! that is not exactly what was written is deleted and the module compiled anew. A failure to read or write costs time
//! only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use rustix::fs::{OFlags, Timespec, Timestamps, UTIME_NOW, futimens};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::ModuleError;

const MAGIC: &[u8; 8] = b"MSTCODE1";
const HEADER_BYTES: usize = 8 + 32 + 8 + 8 + 32;
/// All files together, in bytes.
const CACHE_BYTES_MAX: u64 = 1 << 30;
/// All files together, in number.
const CACHE_FILES_MAX: usize = 512;
const TEMPORARY: &str = "tmp";
const EXTENSION: &str = "code";
/// Nobody else may even look into the folder.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Permission bits of which none may be set on what is read.
const WRITABLE_BY_OTHERS: u32 = 0o022;

pub struct Cache {
    dir: PathBuf,
    compatibility: u64,
    /// One writer at a time, so that the bounds hold and a temporary name is nobody else's.
    writing: Mutex<()>,
}

impl Cache {
    /// Opens the folder, or makes it, and clears away what a crash left half written.
    ///
    /// # Errors
    /// [`ModuleError::Engine`] where the folder cannot be made, or is not this user's own.
    pub fn open(dir: PathBuf, engine: &Engine) -> Result<Cache, ModuleError> {
        let unusable = |what: String| ModuleError::Engine {
            message: format!("{} cannot hold compiled modules: {what}", dir.display()),
        };
        make_own(&dir).map_err(|error| unusable(error.to_string()))?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        for path in paths(&dir).map_err(|error| unusable(error.to_string()))? {
            if path.extension().is_some_and(|extension| extension == TEMPORARY) {
                remove(&path);
            }
        }
        Ok(Cache {
            dir,
            compatibility: hasher.finish(),
            writing: Mutex::new(()),
        })
    }

    /// The compiled component of that content, if it is here and undamaged.
    pub fn load(&self, engine: &Engine, component: &[u8; 32]) -> Option<Component> {
        let path = self.path(component);
        match self.read(engine, &path, component) {
            Ok(component) => Some(component),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a compiled module is not used and compiled anew");
                remove(&path);
                None
            }
        }
    }

    /// Keeps a compiled component; where that fails it is compiled again the next time.
    pub fn keep(&self, component: &[u8; 32], compiled: &Component) {
        let path = self.path(component);
        let written = compiled
            .serialize()
            .map_err(|error| io::Error::other(error.to_string()))
            .and_then(|code| self.write(&path, component, &code));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "a compiled module cannot be kept");
        }
    }

    fn path(&self, component: &[u8; 32]) -> PathBuf {
        let name = format!(
            "{}-{:016x}.{EXTENSION}",
            crate::module::hex(component),
            self.compatibility
        );
        self.dir.join(name)
    }

    fn read(&self, engine: &Engine, path: &Path, component: &[u8; 32]) -> io::Result<Component> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)?;
        let metadata = file.metadata()?;
        let ours = metadata.uid() == rustix::process::geteuid().as_raw();
        if !metadata.is_file() || !ours || metadata.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(damaged("it is no plain file that this user alone may write"));
        }
        if metadata.len() > CACHE_BYTES_MAX {
            return Err(damaged("it is larger than anything kept here"));
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        Read::by_ref(&mut file).take(CACHE_BYTES_MAX).read_to_end(&mut bytes)?;
        let code = self.code(&bytes, component)?;
        let compiled = deserialize(engine, code).map_err(|error| damaged(&format!("{error:#}")))?;
        // What is used stays; where this fails the file only seems older than it is.
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        futimens(
            &file,
            &Timestamps {
                last_access: now,
                last_modification: now,
            },
        )
        .ok();
        Ok(compiled)
    }

    /// The code in a file, all of whose header is as it was written for this component and engine.
    fn code<'a>(&self, file: &'a [u8], component: &[u8; 32]) -> io::Result<&'a [u8]> {
        let (header, code) = file
            .split_at_checked(HEADER_BYTES)
            .ok_or_else(|| damaged("it is cut short"))?;
        if header != self.header(component, code) {
            return Err(damaged("it is not what was written"));
        }
        Ok(code)
    }

    fn header(&self, component: &[u8; 32], code: &[u8]) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(component);
        header.extend_from_slice(&self.compatibility.to_le_bytes());
        header.extend_from_slice(&(code.len() as u64).to_le_bytes());
        header.extend_from_slice(&Sha256::digest(code));
        header
    }

    /// Written under another name first: no reader ever sees half a file. What a power cut leaves of it its hash tells.
    fn write(&self, path: &Path, component: &[u8; 32], code: &[u8]) -> io::Result<()> {
        let bytes = (HEADER_BYTES + code.len()) as u64;
        if bytes > CACHE_BYTES_MAX {
            return Err(io::Error::other("it is larger than all that may be kept"));
        }
        let _writing = self.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.make_room(bytes)?;
        let temporary = path.with_extension(TEMPORARY);
        remove(&temporary);
        let written = (|| {
            let mut file: File = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(FILE_MODE)
                .open(&temporary)?;
            file.write_all(&self.header(component, code))?;
            file.write_all(code)?;
            fs::rename(&temporary, path)
        })();
        written.inspect_err(|_| remove(&temporary))
    }

    /// Deletes what was not used for longest until one more file of so many bytes fits.
    fn make_room(&self, more: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for path in paths(&self.dir)? {
            if let Ok(metadata) = fs::symlink_metadata(&path) {
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push((used, metadata.len(), path));
            }
        }
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        let mut count = files.len();
        for (_, file_bytes, path) in files {
            if bytes + more <= CACHE_BYTES_MAX && count < CACHE_FILES_MAX {
                break;
            }
            remove(&path);
            bytes -= file_bytes;
            count -= 1;
        }
        Ok(())
    }
}

/// Runs code that was compiled before.
#[allow(unsafe_code)]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` asks that the bytes are what `Component::serialize` gave. Only `Cache::write` makes files
    // under this name, from just that, in a folder that this user owns and nobody else may enter; `Cache::read` follows
    // no link, takes a file of this user that nobody else may write, and `Cache::code` has compared the hash of all its
    // bytes with the one written with them, so a damaged file does not get here. Whoever can write as this user could
    // as well replace the program itself.
    unsafe { Component::deserialize(engine, code) }
}

/// Makes the folder this user's alone, and refuses one of somebody else's.
fn make_own(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)?;
    let metadata = fs::symlink_metadata(dir)?;
    if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it is no folder of this user's own; name another"));
    }
    fs::set_permissions(dir, PermissionsExt::from_mode(DIR_MODE))
}

/// The files of this cache; whatever else lies in the folder is left alone.
fn paths(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == EXTENSION || extension == TEMPORARY)
        {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Deletes a file; one that stays is overwritten or passed over.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a compiled module cannot be deleted");
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
