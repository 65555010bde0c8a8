//! Reading as a member of a consumer group.
//!
//! [`GroupMember`] is the membership alone: it sends heartbeats in the background and says what to begin and to stop reading.

mod keeper;
mod member;
mod share;

pub use member::{GroupMember, GroupSettings};
pub use share::Change;

/// A partition by its topic's name.
pub type TopicPartition = (String, u32);
