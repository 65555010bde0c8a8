//! What a member was told to read, and what it reads. Pure.

use std::collections::BTreeSet;

use super::TopicPartition;
use crate::ClientError;

/// What a member has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its session was over: others may read what it read. It drops all of it, commits nothing, and has joined anew.
    Lost,
    /// It stops reading these, commits how far it came, and then [gives them up](super::GroupMember::give_up).
    Revoked(Vec<TopicPartition>),
    /// It begins to read these, from where the group has come to.
    Assigned(Vec<TopicPartition>),
}

/// A member as it stands between two heartbeats.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// Empty while it has not joined.
    pub member_id: String,
    pub generation: u64,
    assigned: BTreeSet<TopicPartition>,
    owned: BTreeSet<TopicPartition>,
    is_lost: bool,
    /// Why there will be no more heartbeats.
    pub failed: Option<ClientError>,
}

impl Share {
    /// What it reads.
    pub fn owned(&self) -> &BTreeSet<TopicPartition> {
        &self.owned
    }

    /// In which generation this member may commit; `None` where its session is over, whether or not it has joined anew.
    pub fn generation_of(&self, member_id: &str) -> Option<u64> {
        // Whoever has not heard of its loss yet goes by what it read before.
        let is_it = !member_id.is_empty() && self.member_id == member_id && !self.is_lost;
        is_it.then_some(self.generation)
    }

    /// Takes in an answer. One that is older than what is known already says nothing.
    pub fn told(&mut self, member_id: String, generation: u64, assigned: BTreeSet<TopicPartition>) {
        if generation >= self.generation {
            self.member_id = member_id;
            self.generation = generation;
            self.assigned = assigned;
        }
    }

    /// Its session is over.
    pub fn lose(&mut self) {
        // Whoever never joined has nothing to lose.
        let is_lost = self.is_lost || !self.member_id.is_empty();
        *self = Share {
            is_lost,
            ..Share::default()
        };
    }

    /// What is to be done next. What it is to begin to read it owns from now on.
    pub fn change(&mut self) -> Option<Change> {
        if std::mem::take(&mut self.is_lost) {
            return Some(Change::Lost);
        }
        let revoked: Vec<TopicPartition> = self.owned.difference(&self.assigned).cloned().collect();
        if !revoked.is_empty() {
            return Some(Change::Revoked(revoked));
        }
        let gained: Vec<TopicPartition> = self.assigned.difference(&self.owned).cloned().collect();
        self.owned.extend(gained.iter().cloned());
        (!gained.is_empty()).then_some(Change::Assigned(gained))
    }

    /// Whether there is something to do.
    pub fn has_change(&self) -> bool {
        self.is_lost || self.owned != self.assigned
    }

    pub fn give_up(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.owned.remove(partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(numbers: &[u32]) -> Vec<TopicPartition> {
        numbers.iter().map(|number| ("t".to_owned(), *number)).collect()
    }

    fn told(share: &mut Share, generation: u64, numbers: &[u32]) {
        share.told("m".to_owned(), generation, parts(numbers).into_iter().collect());
    }

    #[test]
    fn what_is_revoked_stays_owned_until_it_is_given_up() {
        let mut share = Share::default();
        told(&mut share, 1, &[0, 1]);
        assert_eq!(share.change(), Some(Change::Assigned(parts(&[0, 1]))));
        assert_eq!(share.change(), None);
        told(&mut share, 2, &[1, 2]);
        for _ in 0..2 {
            assert_eq!(share.change(), Some(Change::Revoked(parts(&[0]))));
            assert_eq!(share.owned().len(), 2);
        }
        share.give_up(&parts(&[0]));
        assert_eq!(share.change(), Some(Change::Assigned(parts(&[2]))));
        assert!(!share.has_change());
    }

    #[test]
    fn an_answer_that_comes_late_changes_nothing() {
        let mut share = Share::default();
        told(&mut share, 5, &[0]);
        told(&mut share, 4, &[0, 1]);
        assert_eq!(
            (share.generation, share.change()),
            (5, Some(Change::Assigned(parts(&[0]))))
        );
    }

    #[test]
    fn who_lost_its_session_drops_everything_before_it_begins_anew() {
        let mut share = Share::default();
        share.lose();
        assert!(!share.has_change());
        told(&mut share, 7, &[0]);
        share.change();
        share.lose();
        assert!(share.owned().is_empty() && share.member_id.is_empty());
        assert_eq!(share.generation_of(""), None);
        told(&mut share, 1, &[0]);
        assert_eq!(share.generation_of("m"), None, "it was read before");
        assert_eq!(share.change(), Some(Change::Lost));
        assert_eq!((share.generation_of("m"), share.generation_of("n")), (Some(1), None));
        assert_eq!(share.change(), Some(Change::Assigned(parts(&[0]))));
    }
}
