//! How the objects of logs are named: `{prefix}/{wal id}/{number:020}.wal`.

use uuid::Uuid;

use super::seal::SEAL_BYTES;
use crate::store::StoredObject;

/// The folder of one log.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    folder: String,
}

/// One object of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) bytes: u64,
}

impl Numbered {
    /// Whether it has a seal's length; no group has.
    pub(super) fn may_be_seal(&self) -> bool {
        self.bytes == SEAL_BYTES as u64
    }
}

impl Keys {
    pub(super) fn new(prefix: &str, wal_id: Uuid) -> Keys {
        Keys {
            folder: format!("{prefix}/{wal_id}"),
        }
    }

    pub(super) fn folder(&self) -> &str {
        &self.folder
    }

    pub(super) fn of(&self, number: u64) -> String {
        format!("{}/{number:020}.wal", self.folder)
    }

    /// The objects of the log in a listing of its folder, in order; whatever else is there is none of it.
    pub(super) fn numbered(&self, listed: &[StoredObject]) -> Vec<Numbered> {
        let mut found: Vec<Numbered> = listed
            .iter()
            .filter_map(|object| {
                let name = object.key.strip_prefix(&self.folder)?.strip_prefix('/')?;
                let number = number_of(name)?;
                Some(Numbered {
                    number,
                    bytes: object.bytes,
                })
            })
            .collect();
        found.sort_unstable_by_key(|object| object.number);
        found
    }
}

/// Which log an object under `prefix` belongs to.
pub(super) fn log_of(prefix: &str, key: &str) -> Option<Uuid> {
    let (folder, name) = key.strip_prefix(prefix)?.strip_prefix('/')?.split_once('/')?;
    number_of(name)?;
    let id = Uuid::try_parse(folder).ok()?;
    (id.to_string() == folder).then_some(id)
}

/// The number in an object's name, which is written with exactly 20 digits.
fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}
