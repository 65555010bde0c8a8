//! Consumer groups: consumers that share the partitions of some topics, and remember how far they have read.
//!
//! Who is in a group is one document in the metadata. Every request reads it, works out what follows, and writes it back where
//! that changes it, unless somebody else has changed it meanwhile: then it begins anew. So any agent answers any request of any
//! group, a restart forgets no member, and nobody has to be elected. Sessions go by the clock of the database alone.
//!
//! | file | owns |
//! |---|---|
//! | `members` | what the document says, and what a heartbeat changes about it; pure |
//! | `assign` | sharing out the partitions; pure |
//! | `document` | reading the document, and writing it where it is still the one that was read |
//! | `heartbeat` | joining, staying, leaving |
//! | `commit` | committed offsets |
//! | `reset` | moving and forgetting them |
//! | `view` | groups as they are shown |
//! | `figures` | what is counted |

mod assign;
mod commit;
mod document;
mod error;
mod figures;
mod heartbeat;
mod members;
mod reset;
#[cfg(test)]
mod tests;
mod view;

pub use commit::{CommitFailure, GroupCommit, GroupOffset};
pub use error::GroupError;
pub use figures::GroupFigures;
pub use heartbeat::{GroupHeartbeat, GroupShare};
pub use reset::{GroupReset, ResetTo};
pub use view::{GroupMemberView, GroupPartition, GroupSummary, GroupView};

pub(crate) use document::Groups;

/// A partition by its topic's name.
pub type TopicPartition = (String, u32);

/// The most partitions that the topics of one group may have together, and that one request may name.
pub(crate) const PARTITIONS_MAX: usize = 10_000;
/// The most topics that a member may read.
const TOPICS_MAX: usize = 1_000;
/// The most bytes of what is kept about the members of one group.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// The most bytes of what a member calls itself.
const CLIENT_ID_BYTES_MAX: usize = 249;

fn invalid(reason: String) -> crate::BrokerError {
    GroupError::Invalid { reason }.into()
}

/// What a request says about some of its fields has to be bounded before it is looked at.
fn check_count(what: &str, count: usize, most: usize) -> crate::Result<()> {
    if count <= most {
        return Ok(());
    }
    Err(invalid(format!("the request names {count} {what}, allowed are {most}")))
}
