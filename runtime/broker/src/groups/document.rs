//! Reading the document of a group, and writing it where it is still the one that was read.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use millstream_meta::{GroupRow, MetaError};
use tokio::sync::{Mutex, MutexGuard};

use super::{DOCUMENT_BYTES_MAX, GroupError, GroupFigures, PARTITIONS_MAX, figures::Figures, members::Group};
use crate::{
    broker::Broker,
    error::{BrokerError, Result},
    names::check_group_name,
};

/// How often a change is made anew because others changed the group too. On one agent they come one after the other.
const TRIES_MAX: u32 = 20;
/// Locks for all groups together: of those with the same one, one request changes something at a time.
const TURNS: usize = 64;

/// What an agent keeps about groups in memory: nothing that has to be true.
pub(crate) struct Groups {
    turns: [Mutex<()>; TURNS],
    pub(super) figures: Figures,
}

impl Default for Groups {
    fn default() -> Groups {
        Groups {
            turns: std::array::from_fn(|_| Mutex::default()),
            figures: Figures::default(),
        }
    }
}

impl Groups {
    /// What was counted.
    pub(crate) fn figures(&self) -> GroupFigures {
        self.figures.now()
    }

    /// Waits for those of this agent who change the group.
    async fn turn(&self, name: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        self.turns[hasher.finish() as usize % TURNS].lock().await
    }
}

/// A group as it was read.
pub(super) struct Read {
    /// By the clock of the database.
    pub now_ms: i64,
    /// As it is stored: with members whose sessions may be over.
    pub stored: Group,
    /// None where there is no such group.
    pub version: Option<u64>,
}

impl Read {
    /// The group without the members whose sessions are over.
    pub fn now(&self) -> Group {
        let mut group = self.stored.clone();
        group.end_sessions(self.now_ms);
        group
    }

    /// Fails while the group has members.
    pub fn check_without_members(&self, name: &str) -> Result<()> {
        match self.now().members().len() {
            0 => Ok(()),
            members => {
                let group = name.to_owned();
                Err(GroupError::HasMembers { group, members }.into())
            }
        }
    }
}

impl Broker {
    /// A group as it is now.
    pub(super) async fn read_group(&self, name: &str) -> Result<Read> {
        check_group_name(name)?;
        let now = self.shared().metadata.group(name).await?;
        let stored = now.group.as_ref().map_or_else(|| Ok(Group::default()), group)?;
        Ok(Read {
            now_ms: now.now_ms,
            version: now.group.map(|row| row.version),
            stored,
        })
    }

    /// Tries to do something that holds the group to the version that was read; one after the other who does so on this agent.
    pub(super) async fn group_tries<'a>(&'a self, name: &'a str) -> Tries<'a> {
        Tries {
            broker: self,
            name,
            left: TRIES_MAX,
            _turn: self.groups().turn(name).await,
        }
    }

    /// Stores a group that was read and changed.
    pub(super) async fn write_group(&self, name: &str, read: &Read, group: &Group) -> Result<()> {
        let owner = || name.to_owned();
        if group.partitions() > PARTITIONS_MAX {
            let partitions = group.partitions();
            return Err(GroupError::TooManyPartitions {
                group: owner(),
                partitions,
            }
            .into());
        }
        let document = serde_json::to_string(group).expect("names and numbers always become JSON");
        if document.len() > DOCUMENT_BYTES_MAX {
            let bytes = document.len();
            return Err(GroupError::TooLarge { group: owner(), bytes }.into());
        }
        let (metadata, now_ms) = (&self.shared().metadata, self.shared().clock.now_ms());
        metadata
            .write_group(name, read.version, group.generation, &document, now_ms)
            .await?;
        self.groups().figures.changed(name, &read.stored, group);
        Ok(())
    }
}

/// The tries to do one thing.
pub(super) struct Tries<'a> {
    broker: &'a Broker,
    name: &'a str,
    left: u32,
    _turn: MutexGuard<'a, ()>,
}

impl Tries<'_> {
    /// The group as it is now, for the next try.
    pub async fn read(&mut self) -> Result<Read> {
        let Some(left) = self.left.checked_sub(1) else {
            let group = self.name.to_owned();
            return Err(GroupError::Contended { group }.into());
        };
        self.left = left;
        self.broker.read_group(self.name).await
    }

    /// What a try came to; none where others changed the group meanwhile, and it is to be read again.
    pub fn outcome<T>(&self, done: Result<T>) -> Option<Result<T>> {
        match done {
            Err(BrokerError::Meta(MetaError::Conflict { .. })) => None,
            Err(BrokerError::Meta(MetaError::TooMany { .. })) => Some(Err(GroupError::TooMany.into())),
            done => Some(done),
        }
    }
}

/// The group that a row describes.
pub(super) fn group(row: &GroupRow) -> Result<Group> {
    let group = serde_json::from_str(&row.members_json);
    let mut group: Group = group.map_err(|source| BrokerError::StoredForm {
        what: "members of a group",
        source,
    })?;
    group.generation = row.generation;
    Ok(group)
}
