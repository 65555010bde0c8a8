//! What can go wrong with consumer groups.

use millstream_meta::GROUPS_MAX;

use super::members::{MEMBERS_MAX, Refusal};
use super::{DOCUMENT_BYTES_MAX, PARTITIONS_MAX};
use crate::error::Kind;

/// Why something about a consumer group was not done.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum GroupError {
    #[error("there is no group {group:?}; `millstream group list` shows those that exist")]
    Unknown { group: String },
    #[error(
        "group {group:?} has no member {member:?}: its session is over, or it has left. It owns nothing any more; it joins anew \
         with an empty member id"
    )]
    MemberUnknown { group: String, member: String },
    #[error(
        "generation {generation} is not the present one of member {member:?} of group {group:?}, which is {present}: send a \
         heartbeat, and commit what it still owns"
    )]
    GenerationStale {
        group: String,
        member: String,
        generation: u64,
        present: u64,
    },
    #[error(
        "member {member:?} of group {group:?} does not own partition {partition} of {topic:?}: nothing of it is committed"
    )]
    NotOwned {
        group: String,
        member: String,
        topic: String,
        partition: u32,
    },
    #[error(
        "group {group:?} has {members} members, and only they may move its offsets: stop them first, or wait until their \
         sessions are over"
    )]
    HasMembers { group: String, members: usize },
    #[error("group {group:?} has {MEMBERS_MAX} members, which is the most")]
    Full { group: String },
    #[error("there are {GROUPS_MAX} groups already, which is the most: delete some with `millstream group delete`")]
    TooMany,
    #[error(
        "group {group:?} would read {partitions} partitions, the most are {PARTITIONS_MAX}: share the topics out to several groups"
    )]
    TooManyPartitions { group: String, partitions: usize },
    #[error(
        "what is kept about the members of group {group:?} would take {bytes} bytes, the most are {DOCUMENT_BYTES_MAX}: let \
         them read fewer topics, or share them out to several groups"
    )]
    TooLarge { group: String, bytes: usize },
    #[error("others changed group {group:?} all the time: try again")]
    Contended { group: String },
    #[error("{reason}")]
    Invalid { reason: String },
}

impl GroupError {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            GroupError::Unknown { .. } => Kind::NotFound,
            GroupError::MemberUnknown { .. } | GroupError::GenerationStale { .. } | GroupError::NotOwned { .. } => {
                Kind::Conflict
            }
            GroupError::HasMembers { .. }
            | GroupError::TooMany
            | GroupError::TooManyPartitions { .. }
            | GroupError::TooLarge { .. } => Kind::Precondition,
            GroupError::Full { .. } => Kind::Exhausted,
            GroupError::Contended { .. } => Kind::Unavailable,
            GroupError::Invalid { .. } => Kind::Invalid,
        }
    }

    /// A stable word for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            GroupError::Unknown { .. } => "GROUP_UNKNOWN",
            GroupError::MemberUnknown { .. } => "MEMBER_UNKNOWN",
            GroupError::GenerationStale { .. } => "GENERATION_STALE",
            GroupError::NotOwned { .. } => "PARTITION_NOT_OWNED",
            GroupError::HasMembers { .. } => "GROUP_HAS_MEMBERS",
            GroupError::Full { .. } => "GROUP_FULL",
            GroupError::TooMany => "GROUPS_FULL",
            GroupError::TooManyPartitions { .. } | GroupError::TooLarge { .. } => "GROUP_TOO_LARGE",
            GroupError::Contended { .. } => "GROUP_CONTENDED",
            GroupError::Invalid { .. } => "GROUP_REQUEST_INVALID",
        }
    }

    /// What programs look for in it, by name.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let by = |group: &str, member: &str| vec![("group", group.to_owned()), ("member", member.to_owned())];
        match self {
            GroupError::Unknown { group }
            | GroupError::HasMembers { group, .. }
            | GroupError::Full { group }
            | GroupError::TooManyPartitions { group, .. }
            | GroupError::TooLarge { group, .. }
            | GroupError::Contended { group } => vec![("group", group.clone())],
            GroupError::MemberUnknown { group, member } => by(group, member),
            GroupError::GenerationStale {
                group, member, present, ..
            } => {
                let mut facts = by(group, member);
                facts.push(("present_generation", present.to_string()));
                facts
            }
            GroupError::NotOwned {
                group,
                member,
                topic,
                partition,
            } => {
                let mut facts = by(group, member);
                facts.push(("topic", topic.clone()));
                facts.push(("partition", partition.to_string()));
                facts
            }
            GroupError::TooMany | GroupError::Invalid { .. } => Vec::new(),
        }
    }

    pub(super) fn of(refusal: Refusal, group: &str, member: &str, generation: u64) -> GroupError {
        let (group, member) = (group.to_owned(), member.to_owned());
        match refusal {
            Refusal::MemberUnknown => GroupError::MemberUnknown { group, member },
            Refusal::Full => GroupError::Full { group },
            Refusal::GenerationStale { present } => GroupError::GenerationStale {
                group,
                member,
                generation,
                present,
            },
        }
    }
}
