//! Who is in a group and what each member reads. Pure: times come in, nothing goes out.
//!
//! Partitions move as in Kafka's KIP-848. Each member has a *target*, which is shared out anew whenever members, their topics
//! or partitions change ([`assign`](super::assign)), and each of its heartbeats brings it one step nearer:
//!
//! ```text
//!           in the target, and nobody has it                  not in the target: the answer leaves it out
//!  nobody ---------------------------------> assigned ------------------------------------------------------> revoking
//!    ^                                          ^-------------- back in the target ------------------------------+ |
//!    +------------- a heartbeat that has seen that answer does not name it among what it owns ---------------------+
//! ```
//!
//! Invariants:
//! 1. A partition is assigned to or being revoked from one member at most, at every moment. The generation grows whenever
//!    that changes for any partition.
//! 2. A partition goes to another member only after the one before has said that it no longer reads it, has left, or has let
//!    its session end.
//! 3. What a heartbeat says of what it owns counts only where it names the generation that its member was last told: one
//!    that comes late, or whose member missed an answer, gives nothing up.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

/// Of a session so much has to be over before a heartbeat that changes nothing else makes it last anew, so that most need not
/// be written.
const SESSION_SHARE: i64 = 6;
/// Heartbeats in a session.
const BEATS_PER_SESSION: u32 = 5;
/// Bounds on the time between two heartbeats, in milliseconds.
const BEAT_MS_MIN: u32 = 100;
const BEAT_MS_MAX: u32 = 3_000;
/// A member that waits for partitions, or is to give some up, comes again so many times sooner.
const HASTE: u32 = 10;

/// A partition by the key of its topic in [`Group::topics`], and its number.
pub(super) type Part = (u32, u32);

/// The members of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Group {
    /// Kept beside the document.
    #[serde(skip)]
    pub generation: u64,
    /// The topics that are read, by keys of this document's own.
    topics: BTreeMap<u32, GroupTopic>,
    /// By their ids.
    members: BTreeMap<String, Member>,
}

/// A topic that members read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GroupTopic {
    /// As its id is written: a topic that was made again under the same name is another one.
    pub id: String,
    pub name: String,
    pub partitions: u32,
    /// Not so where it was deleted, or nobody wants to read it any more: it stays until nobody holds any of it.
    pub current: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub client_id: String,
    pub topics: BTreeSet<String>,
    pub session_ms: u32,
    /// By the database's clock.
    expires_at_ms: i64,
    /// The generation that it was last told.
    pub generation: u64,
    pub(super) target: BTreeSet<Part>,
    assigned: BTreeSet<Part>,
    revoking: BTreeSet<Part>,
}

/// A heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beat {
    pub member_id: String,
    /// Whether the member joins. Its id is new then, or it has joined by an earlier try of the same call.
    pub joins: bool,
    pub generation: u64,
    pub client_id: String,
    /// Empty to leave them as they are.
    pub topics: BTreeSet<String>,
    pub session_ms: u32,
    pub owned: HashSet<(String, u32)>,
}

/// What a member is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub generation: u64,
    pub assigned: Vec<(String, u32)>,
    pub interval_ms: u32,
}

/// Why a member may not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    MemberUnknown,
    GenerationStale { present: u64 },
    Full,
}

/// The topics that there are, with their ids and numbers of partitions.
pub(super) type Seen = BTreeMap<String, (String, u32)>;

/// The most members that a group can have.
pub(super) const MEMBERS_MAX: usize = 1_000;

impl Group {
    pub fn topics(&self) -> &BTreeMap<u32, GroupTopic> {
        &self.topics
    }

    pub fn members(&self) -> &BTreeMap<String, Member> {
        &self.members
    }

    pub(super) fn members_mut(&mut self) -> &mut BTreeMap<String, Member> {
        &mut self.members
    }

    /// The topics that its members want to read, whether there are any of the name or not.
    pub fn wanted(&self) -> BTreeSet<&str> {
        let members = self.members.values();
        members.flat_map(|member| &member.topics).map(String::as_str).collect()
    }

    /// What is known of the topic that has the name now.
    pub fn current(&self, name: &str) -> Option<&GroupTopic> {
        self.topics.values().find(|topic| topic.current && topic.name == name)
    }

    /// Partitions of all its topics.
    pub fn partitions(&self) -> usize {
        let current = self.topics.values().filter(|topic| topic.current);
        current.map(|topic| topic.partitions as usize).sum()
    }

    /// A member joins, or stays and is told what to read.
    pub fn beat(&mut self, beat: &Beat, seen: &Seen, now_ms: i64) -> Result<Told, Refusal> {
        let before = self.clone();
        self.end_sessions(now_ms);
        if beat.joins && !self.members.contains_key(&beat.member_id) {
            if self.members.len() >= MEMBERS_MAX {
                return Err(Refusal::Full);
            }
            self.members.insert(beat.member_id.clone(), Member::new(beat));
        }
        let member = self.members.get_mut(&beat.member_id).ok_or(Refusal::MemberUnknown)?;
        if !beat.topics.is_empty() {
            member.topics.clone_from(&beat.topics);
        }
        member.give_up(beat, &self.topics);
        self.see(seen);
        if !self.shared_out_as(&before) {
            super::assign::share_out(self);
        }
        self.step(&beat.member_id);
        self.forget_topics();
        if self.shares() != before.shares() {
            self.generation = before.generation + 1;
        }
        Ok(self.tell(&beat.member_id, &before, now_ms))
    }

    /// A member goes.
    pub fn leave(&mut self, member_id: &str, now_ms: i64) -> Result<(), Refusal> {
        self.end_sessions(now_ms);
        self.members.remove(member_id).ok_or(Refusal::MemberUnknown)?;
        self.generation += 1;
        super::assign::share_out(self);
        self.forget_topics();
        Ok(())
    }

    /// Lets go of the members whose sessions are over.
    pub fn end_sessions(&mut self, now_ms: i64) {
        let before = self.members.len();
        for member in self.members.values_mut() {
            // A clock that went back would let dead members live on.
            member.expires_at_ms = member.expires_at_ms.min(now_ms + i64::from(member.session_ms));
        }
        self.members.retain(|_, member| member.expires_at_ms > now_ms);
        if self.members.len() < before {
            self.generation += 1;
            super::assign::share_out(self);
            self.forget_topics();
        }
    }

    /// Whether a member may commit what it has read in this generation.
    pub fn check_member(&self, member_id: &str, generation: u64) -> Result<&Member, Refusal> {
        let member = self.members.get(member_id).ok_or(Refusal::MemberUnknown)?;
        if member.generation != generation {
            let present = member.generation;
            return Err(Refusal::GenerationStale { present });
        }
        Ok(member)
    }

    /// Who holds which partition: read, or still to be given up.
    pub fn holdings(&self) -> Vec<(&str, Part)> {
        let members = self.members.iter();
        let held = members.flat_map(|(id, member)| member.held().map(move |part| (id.as_str(), part)));
        held.collect()
    }

    /// What each member reads, and what it is to give up.
    fn shares(&self) -> Vec<(&str, &BTreeSet<Part>, &BTreeSet<Part>)> {
        let members = self.members.iter();
        members
            .map(|(id, member)| (id.as_str(), &member.assigned, &member.revoking))
            .collect()
    }

    /// Takes in which topics there are now.
    fn see(&mut self, seen: &Seen) {
        let wanted: BTreeSet<String> = self.wanted().into_iter().map(str::to_owned).collect();
        for topic in self.topics.values_mut() {
            let found = seen.get(&topic.name).filter(|_| wanted.contains(&topic.name));
            match found {
                Some((id, partitions)) if *id == topic.id => {
                    topic.partitions = *partitions;
                    topic.current = true;
                }
                _ => topic.current = false,
            }
        }
        for name in &wanted {
            let Some((id, partitions)) = seen.get(name) else {
                continue;
            };
            if self.current(name).is_none() {
                let key = self.topics.last_key_value().map_or(0, |(last, _)| last + 1);
                let topic = GroupTopic {
                    id: id.clone(),
                    name: name.clone(),
                    partitions: *partitions,
                    current: true,
                };
                self.topics.insert(key, topic);
            }
        }
    }

    /// Whether what decides about the targets is as it was.
    fn shared_out_as(&self, before: &Group) -> bool {
        let wants = |group: &Group| -> Vec<_> {
            let members = group.members.iter();
            members
                .map(|(id, member)| (id.clone(), member.topics.clone()))
                .collect()
        };
        self.topics == before.topics && wants(self) == wants(before)
    }

    /// Brings what a member reads one step nearer to its target.
    fn step(&mut self, member_id: &str) {
        let taken: HashSet<(&str, u32)> = self.holdings().into_iter().map(|(_, part)| self.place(part)).collect();
        let Some(member) = self.members.get(member_id) else {
            return;
        };
        let is_back = |part: &&Part| member.revoking.contains(part);
        let is_free = |part: &&Part| !taken.contains(&self.place(**part));
        let gained = member.target.iter().filter(|part| is_back(part) || is_free(part));
        let gained: BTreeSet<Part> = gained.copied().collect();
        let lost: BTreeSet<Part> = member.assigned.difference(&member.target).copied().collect();
        let Some(member) = self.members.get_mut(member_id) else {
            return;
        };
        member.assigned.retain(|part| !lost.contains(part));
        member.revoking.extend(lost);
        member.revoking.retain(|part| !gained.contains(part));
        member.assigned.extend(gained);
    }

    /// Tells a member how things stand, and lets its session begin anew where that is due.
    fn tell(&mut self, member_id: &str, before: &Group, now_ms: i64) -> Told {
        let generation = self.generation;
        let member = self
            .members
            .get_mut(member_id)
            .expect("a member that was let go of is refused");
        member.generation = generation;
        let session_ms = i64::from(member.session_ms);
        let is_due = member.expires_at_ms - now_ms <= session_ms - session_ms / SESSION_SHARE;
        if is_due || *self != *before {
            let member = self.members.get_mut(member_id).expect("it was there");
            member.expires_at_ms = now_ms + session_ms;
        }
        let member = &self.members[member_id];
        let assigned = member.assigned.iter().map(|part| self.place(*part));
        Told {
            generation,
            assigned: assigned.map(|(name, partition)| (name.to_owned(), partition)).collect(),
            interval_ms: member.interval_ms(),
        }
    }

    /// The name and number of a partition.
    pub fn place(&self, part: Part) -> (&str, u32) {
        let (key, partition) = part;
        (&self.topics[&key].name, partition)
    }

    /// Forgets topics that are not read any more.
    fn forget_topics(&mut self) {
        let held: HashSet<u32> = self.holdings().into_iter().map(|(_, (key, _))| key).collect();
        let wanted: BTreeSet<String> = self.wanted().into_iter().map(str::to_owned).collect();
        self.topics.retain(|key, topic| {
            topic.current &= wanted.contains(&topic.name);
            topic.current || held.contains(key)
        });
    }
}

impl Member {
    fn new(beat: &Beat) -> Member {
        Member {
            client_id: beat.client_id.clone(),
            topics: beat.topics.clone(),
            session_ms: beat.session_ms,
            expires_at_ms: 0,
            generation: 0,
            target: BTreeSet::new(),
            assigned: BTreeSet::new(),
            revoking: BTreeSet::new(),
        }
    }

    /// What it reads, and what it is still to give up.
    pub fn held(&self) -> impl Iterator<Item = Part> {
        self.assigned.iter().chain(&self.revoking).copied()
    }

    /// How long its session lasts without a heartbeat.
    pub fn session_left_ms(&self, now_ms: i64) -> u64 {
        u64::try_from(self.expires_at_ms - now_ms).unwrap_or(0)
    }

    /// Gives up what it was told to and does not own any more.
    fn give_up(&mut self, beat: &Beat, topics: &BTreeMap<u32, GroupTopic>) {
        if beat.generation != self.generation {
            return;
        }
        let owns = |(key, partition): &Part| beat.owned.contains(&(topics[key].name.clone(), *partition));
        self.revoking.retain(owns);
    }

    fn interval_ms(&self) -> u32 {
        let usual = (self.session_ms / BEATS_PER_SESSION).clamp(BEAT_MS_MIN, BEAT_MS_MAX);
        if self.revoking.is_empty() && self.assigned == self.target {
            return usual;
        }
        (usual / HASTE).max(BEAT_MS_MIN)
    }
}
