//! Reading as a member of a consumer group.
//!
//! [`GroupConsumer`] reads what the group gives it, and commits how far it came. [`GroupMember`] is the membership alone: it sends
//! heartbeats in the background and says what to begin and to stop reading.

mod consumer;
mod keeper;
mod member;
mod offsets;
mod share;
#[cfg(test)]
mod tests;
mod upkeep;

pub use consumer::{GroupConsumer, GroupConsumerSettings};
pub use member::{GroupMember, GroupSettings};
pub use share::Change;

/// A partition by its topic's name.
pub type TopicPartition = (String, u32);
