//! Joining a group, staying in it, and leaving.

use std::collections::{BTreeSet, HashSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use uuid::Uuid;

use super::{
    CLIENT_ID_BYTES_MAX, GroupError, PARTITIONS_MAX, TOPICS_MAX, TopicPartition, check_count,
    document::Read,
    invalid,
    members::{Beat, Group, Seen},
};
use crate::{
    broker::Broker,
    error::Result,
    names::{check_group_name, check_topic_name},
};

/// How long a session may last, and how long one does that says nothing, in milliseconds.
const SESSION_MS: RangeInclusive<u32> = 1_000..=600_000;
const SESSION_MS_DEFAULT: u32 = 30_000;
/// No id of a member that was given is longer.
const MEMBER_ID_BYTES_MAX: usize = 64;

/// What a member says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupHeartbeat {
    /// 1 to 249 characters of `[a-zA-Z0-9._-]`.
    pub group: String,
    /// Empty to join.
    pub member_id: String,
    /// The generation that it was last told; 0 to join.
    pub generation: u64,
    /// What to call it in lists, 249 bytes at most; looked at when it joins.
    pub client_id: String,
    /// What it reads, 1 to 1,000 when it joins; none to leave them as they are.
    pub topics: Vec<String>,
    /// How long its session lasts without a heartbeat, in milliseconds, 1,000 to 600,000; 0 for 30,000. Looked at when it joins.
    pub session_timeout_ms: u32,
    /// What it reads now.
    pub owned: Vec<TopicPartition>,
}

/// What a member is to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupShare {
    /// Its id.
    pub member_id: String,
    /// The generation.
    pub generation: u64,
    /// What it may read from now on.
    pub assigned: Vec<TopicPartition>,
    /// When to send the next heartbeat.
    pub interval: Duration,
    /// How long its session lasts without a heartbeat.
    pub session_timeout: Duration,
    /// How long it lasts from this heartbeat on: a sixth of it may be over already.
    pub session_left: Duration,
}

impl Broker {
    /// Lets a member join a group or stay in it, and tells it what to read.
    ///
    /// # Errors
    /// [`GroupError::MemberUnknown`] for one whose session is over; [`GroupError::Full`], [`GroupError::TooMany`],
    /// [`GroupError::TooManyPartitions`] and [`GroupError::TooLarge`] at the bounds.
    pub async fn group_heartbeat(&self, heartbeat: GroupHeartbeat) -> Result<GroupShare> {
        if heartbeat.member_id.is_empty() {
            return self.join_group(&self.draw_member_id(), heartbeat).await;
        }
        let name = heartbeat.group.clone();
        self.answer(&name, check_beat(heartbeat, None)?).await
    }

    /// An id for somebody who [joins](Broker::join_group) a group.
    pub fn draw_member_id(&self) -> String {
        Uuid::from_u128(self.shared().clock.random_id()).to_string()
    }

    /// Lets a member join a group under an id that was drawn for it, whatever id the heartbeat has. Where the answer of the
    /// database got lost it may have joined all the same: who knows the id can let it leave.
    ///
    /// # Errors
    /// Those of [`Broker::group_heartbeat`].
    pub async fn join_group(&self, member_id: &str, heartbeat: GroupHeartbeat) -> Result<GroupShare> {
        let name = heartbeat.group.clone();
        self.answer(&name, check_beat(heartbeat, Some(member_id))?).await
    }

    async fn answer(&self, name: &str, beat: Beat) -> Result<GroupShare> {
        let mut tries = self.group_tries(name).await;
        loop {
            let read = tries.read().await?;
            if let Some(share) = tries.outcome(self.beat_once(name, &beat, &read).await) {
                return share;
            }
        }
    }

    async fn beat_once(&self, name: &str, beat: &Beat, read: &Read) -> Result<GroupShare> {
        let seen = self.seen_topics(&read.stored, &beat.topics).await?;
        let mut group = read.stored.clone();
        let told = group.beat(beat, &seen, read.now_ms);
        let told = told.map_err(|refusal| GroupError::of(refusal, name, &beat.member_id, beat.generation))?;
        if group != read.stored {
            self.write_group(name, read, &group).await?;
        }
        let member = &group.members()[&beat.member_id];
        Ok(GroupShare {
            member_id: beat.member_id.clone(),
            generation: told.generation,
            assigned: told.assigned,
            interval: Duration::from_millis(told.interval_ms.into()),
            session_timeout: Duration::from_millis(member.session_ms.into()),
            session_left: Duration::from_millis(member.session_left_ms(read.now_ms)),
        })
    }

    /// Lets a member leave a group at once.
    ///
    /// # Errors
    /// [`GroupError::MemberUnknown`] for one whose session is over.
    pub async fn leave_group(&self, name: &str, member_id: &str) -> Result<()> {
        check_member_id(member_id)?;
        let mut tries = self.group_tries(name).await;
        loop {
            let read = tries.read().await?;
            if let Some(left) = tries.outcome(self.leave_once(name, member_id, &read).await) {
                return left;
            }
        }
    }

    async fn leave_once(&self, name: &str, member_id: &str, read: &Read) -> Result<()> {
        let mut group = read.stored.clone();
        let left = group.leave(member_id, read.now_ms);
        left.map_err(|refusal| GroupError::of(refusal, name, member_id, 0))?;
        self.write_group(name, read, &group).await
    }

    /// The topics that a group reads, and these, as far as there are any. What memory says is believed where the group knows
    /// the same: else two agents, of which one is behind, would each undo what the other has seen.
    async fn seen_topics(&self, group: &Group, more: &BTreeSet<String>) -> Result<Seen> {
        let metadata = &self.shared().metadata;
        let mut names = group.wanted();
        names.extend(more.iter().map(String::as_str));
        let mut seen = Seen::new();
        for name in names {
            let cached = metadata.cached().topic(name).await?;
            let cached = cached.map(|topic| (topic.id.to_string(), topic.partitions));
            let known = group.current(name).map(|topic| (topic.id.clone(), topic.partitions));
            let found = match cached == known {
                true => cached,
                false => metadata
                    .topic(name)
                    .await?
                    .map(|topic| (topic.id.to_string(), topic.partitions)),
            };
            if let Some(found) = found {
                seen.insert(name.to_owned(), found);
            }
        }
        Ok(seen)
    }
}

/// Checks what a member says; one that joins does so under this id.
fn check_beat(heartbeat: GroupHeartbeat, joins_as: Option<&str>) -> Result<Beat> {
    check_group_name(&heartbeat.group)?;
    let joins = joins_as.is_some();
    let member_id = joins_as.map_or(heartbeat.member_id, str::to_owned);
    check_member_id(&member_id)?;
    check_count("topics", heartbeat.topics.len(), TOPICS_MAX)?;
    check_count("owned partitions", heartbeat.owned.len(), PARTITIONS_MAX)?;
    heartbeat.topics.iter().try_for_each(|topic| check_topic_name(topic))?;
    if joins && heartbeat.topics.is_empty() {
        return Err(invalid(
            "a member that joins a group names the topics to read".to_owned(),
        ));
    }
    if heartbeat.client_id.len() > CLIENT_ID_BYTES_MAX || heartbeat.client_id.contains('\0') {
        return Err(invalid(format!(
            "a client id has at most {CLIENT_ID_BYTES_MAX} bytes, none of them 0"
        )));
    }
    let session_ms = match heartbeat.session_timeout_ms {
        0 => SESSION_MS_DEFAULT,
        asked => asked,
    };
    if joins && !SESSION_MS.contains(&session_ms) {
        let (least, most) = SESSION_MS.into_inner();
        return Err(invalid(format!(
            "a session timeout of {session_ms} ms is refused; allowed are {least} to {most}"
        )));
    }
    Ok(Beat {
        member_id,
        joins,
        generation: heartbeat.generation,
        client_id: heartbeat.client_id,
        topics: heartbeat.topics.into_iter().collect(),
        session_ms,
        owned: heartbeat.owned.into_iter().collect::<HashSet<_>>(),
    })
}

fn check_member_id(member_id: &str) -> Result<()> {
    if member_id.len() <= MEMBER_ID_BYTES_MAX {
        return Ok(());
    }
    Err(invalid(format!(
        "a member id of {} bytes was never given: join with an empty one",
        member_id.len()
    )))
}
