//! The live parts that settings describe: the store, the places of write-ahead logs, the clock, and the locks that keep a
//! second agent off.

use std::{
    fs::{File, TryLockError},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use millstream_broker::{Clock, WalKind, Wals};
use millstream_log::{
    DiskWals, DiskWalsSettings, LogError, ObjectWalSettings, ObjectWals, S3Settings, Store, SyncPolicy,
};

use crate::config::{MetadataUrl, Secret, Settings, StoreUrl, WalPlace, WalSync};

/// Bytes of one group of a disk log; also how much a group commit takes at once.
const WAL_GROUP_BYTES_MAX: usize = 32 << 20;

/// The object store. Nothing is sent to it yet.
pub fn store(settings: &Settings) -> anyhow::Result<Store> {
    match settings.store_url() {
        StoreUrl::File(path) => {
            Store::local(&path).with_context(|| format!("cannot open the store in {}", path.display()))
        }
        StoreUrl::S3 { bucket, prefix } => {
            let key = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.reveal().to_owned());
            let opened = Store::s3(&S3Settings {
                bucket,
                prefix,
                endpoint: settings.s3_endpoint.clone(),
                region: settings.s3_region.clone(),
                access_key_id: key(&settings.s3_access_key_id),
                secret_access_key: key(&settings.s3_secret_access_key),
                session_token: key(&settings.s3_session_token),
                credentials_file: settings.s3_credentials_file.clone(),
                profile: settings.s3_profile.clone(),
                path_style: settings.s3_path_style,
            });
            opened.map_err(in_our_words)
        }
    }
}

/// The store calls its settings by shorter names than the agent does.
fn in_our_words(error: LogError) -> anyhow::Error {
    let LogError::StoreSettings { name, reason } = error else {
        return error.into();
    };
    let key = match name {
        "s3" | "bucket" => "store".to_owned(),
        name => format!("s3_{name}"),
    };
    let reason = reason.replace("use path style", "set s3_path_style = true");
    anyhow::anyhow!("configuration key {key}: {reason}")
}

/// Where write-ahead logs are kept: those of former starts may be of the other kind.
pub fn wals(settings: &Settings, store: &Store) -> Wals {
    let disk = DiskWals::new(DiskWalsSettings {
        dir: settings.wal_dir(),
        file_bytes: settings.wal_file_bytes,
        group_bytes_max: WAL_GROUP_BYTES_MAX,
        sync: match settings.wal_sync {
            WalSync::Always => SyncPolicy::Always,
            WalSync::Interval { ms } => SyncPolicy::Interval(Duration::from_millis(ms)),
            WalSync::Never => SyncPolicy::Never,
        },
    });
    let object = ObjectWals::new(
        store.clone(),
        ObjectWalSettings {
            flush_interval: Duration::from_millis(settings.wal_flush_interval_ms),
            flush_bytes: settings.wal_flush_bytes as usize,
            puts_max: settings.wal_puts_max,
            ..ObjectWalSettings::default()
        },
    );
    Wals {
        disk: Arc::new(disk),
        object: Arc::new(object),
        kind: match settings.wal {
            WalPlace::Disk => WalKind::Disk,
            WalPlace::Object => WalKind::Object,
        },
    }
}

/// Holds the data folder, and the metadata where it is a file, against a second agent.
pub fn lock(settings: &Settings) -> anyhow::Result<Vec<File>> {
    let dir = &settings.data_dir;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the data folder {}", dir.display()))?;
    let mut locks = vec![lock_file(
        &dir.join("lock"),
        &format!("the data folder {}", dir.display()),
        "--data-dir",
    )?];
    // Wherever it lies: another agent may have been told to use this file from another data folder.
    if let MetadataUrl::Sqlite(path) = settings.metadata_url() {
        let mut lock = path.clone().into_os_string();
        lock.push(".lock");
        locks.push(lock_file(
            Path::new(&lock),
            &format!("the metadata file {}", path.display()),
            "--metadata",
        )?);
    }
    Ok(locks)
}

/// Another agent holds a lock.
#[derive(Debug, thiserror::Error)]
#[error("{what} is in use by another agent; stop that one or choose another {flag}")]
pub struct InUse {
    what: String,
    flag: &'static str,
}

fn lock_file(path: &Path, what: &str, flag: &'static str) -> anyhow::Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write in {what}"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(InUse {
            what: what.to_owned(),
            flag
        }),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {what}")),
    }
}

/// The time and randomness of this machine.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as i64)
    }

    fn random_id(&self) -> u128 {
        uuid::Uuid::new_v4().as_u128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_cannot_be_opened_names_the_settings_of_the_agent() {
        let secret = || Some(serde_json::from_str("\"key\"").unwrap());
        let good = Settings {
            store: Some("s3://logs".parse().unwrap()),
            s3_endpoint: Some("http://127.0.0.1:9000".to_owned()),
            s3_path_style: true,
            s3_access_key_id: secret(),
            s3_secret_access_key: secret(),
            ..Settings::default()
        };
        store(&good).unwrap();
        let error = |settings: Settings| store(&settings).unwrap_err().to_string();
        let host_style = error(Settings {
            s3_path_style: false,
            ..good.clone()
        });
        assert!(
            host_style.starts_with("configuration key s3_endpoint: ") && host_style.contains("s3_path_style = true"),
            "{host_style}"
        );
        let half = error(Settings {
            s3_secret_access_key: None,
            ..good
        });
        assert!(half.starts_with("configuration key s3_secret_access_key: "), "{half}");
    }
}
