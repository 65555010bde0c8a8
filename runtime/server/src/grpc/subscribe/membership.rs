//! Being a member of a consumer group on behalf of a call.
//!
//! A task of its own, the keeper, joins, sends the heartbeats, and leaves when the call is gone: it goes on while the call waits
//! for room on the wire or for a record. The call asks here what to tell its client and what to read. A client that is silent for
//! its session timeout, or does not let go of a partition for so long, is no member any more: the keeper leaves, and the call
//! ends with the reason.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use millstream_broker::{
    Broker, BrokerError, GroupCommit, GroupHeartbeat, GroupOffset, GroupShare, Offset, TopicPartition,
};
use millstream_proto::v1;
use tokio::{
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tonic::Code;

use super::{Refusal, Start, holding::Holding};
use crate::grpc::group::place_message;

/// Partitions whose beginnings are looked for at once.
const PARTITIONS_AT_ONCE: usize = 16;
/// How long the end of a call waits for its member to have left. Where that takes longer it goes on without the call.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

/// The member that a call is. Dropped, it leaves the group.
pub(super) struct Membership {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
    /// The keeper leaves once this is dropped.
    call: oneshot::Sender<()>,
}

/// What the call and the keeper share.
struct Shared {
    broker: Arc<Broker>,
    group: String,
    member_id: String,
    session: Duration,
    /// Where to begin where nothing is committed, or what was is gone.
    start: Start,
    state: Mutex<State>,
    /// A heartbeat is to be sent at once.
    wake: Notify,
    /// There is something for the call.
    news: Notify,
}

struct State {
    holding: Holding,
    /// Until when the session lasts, as far as it was renewed.
    lasts_until: Instant,
    /// When the client was heard of last; what the agent took since to read for it does not count.
    heard: Instant,
    busy_since: Option<Instant>,
    /// Why it is no member any more.
    over: Option<Refusal>,
}

/// While this lives the call does something for its client, and cannot hear it.
pub(super) struct Busy(Arc<Shared>);

impl Membership {
    /// Joins a group.
    ///
    /// # Errors
    /// What the first heartbeat is answered.
    pub(super) async fn join(
        broker: Arc<Broker>,
        heartbeat: GroupHeartbeat,
        start: Start,
    ) -> Result<Membership, BrokerError> {
        let (call, gone) = oneshot::channel();
        let (answer, joined) = oneshot::channel();
        // The keeper leaves also where the client goes while it joins.
        let keeper = tokio::spawn(async move {
            let (group, sent) = (heartbeat.group.clone(), Instant::now());
            match broker.group_heartbeat(heartbeat).await {
                Ok(share) => {
                    let next = Instant::now() + share.interval;
                    let shared = Arc::new(Shared::new(broker, group, share, start, sent));
                    let _ = answer.send(Ok(shared.clone()));
                    shared.keep(gone, next).await;
                }
                Err(error) => {
                    let _ = answer.send(Err(error));
                }
            }
        });
        let what = "joining a group";
        let shared = joined.await.map_err(|_| BrokerError::Panicked { what })??;
        Ok(Membership { shared, keeper, call })
    }

    /// Leaves the group.
    pub(super) async fn leave(self) {
        drop(self.call);
        let _ = timeout(LEAVE_PATIENCE, self.keeper).await;
    }

    /// Takes note that the client is at work.
    pub(super) fn hear(&self) {
        self.shared.state().heard = Instant::now();
    }

    /// Takes note that it cannot be heard for a while.
    pub(super) fn busy(&self) -> Busy {
        self.shared.state().busy_since = Some(Instant::now());
        Busy(self.shared.clone())
    }

    /// Waits until there is something to tell the client.
    pub(super) async fn changed(&self) {
        loop {
            let news = self.shared.news.notified();
            {
                let state = self.shared.state();
                if state.over.is_some() || state.holding.has_news() {
                    return;
                }
            }
            news.await;
        }
    }

    /// Why it is no member any more, once it is not. It is told once.
    pub(super) fn over(&self) -> Option<Refusal> {
        self.shared.state().over.take()
    }

    /// Whether the beginning of something is still to be found.
    pub(super) fn has_taken(&self) -> bool {
        self.shared.state().holding.has_taken()
    }

    /// What to tell the client, if anything: what is asked back is read no further, what is given is read from there on.
    ///
    /// # Errors
    /// Why it cannot be found where to begin.
    pub(super) async fn change(&self) -> Result<Option<v1::SubscribeMembership>, Refusal> {
        let taken = {
            let mut state = self.shared.state();
            let asked_back = state.holding.ask_back(Instant::now());
            if !asked_back.is_empty() {
                let (generation, _) = state.holding.tell();
                let asked_back = asked_back.into_iter().map(place_message).collect();
                return Ok(Some(self.shared.message(generation, Vec::new(), asked_back)));
            }
            state.holding.take()
        };
        let found = self.shared.beginnings(taken).await?;
        let mut state = self.shared.state();
        let given = state.holding.begin(found);
        let (generation, is_new) = state.holding.tell();
        let given = given
            .into_iter()
            .map(|((topic, partition), offset)| v1::FetchPartition {
                topic,
                partition,
                offset: offset.0,
            });
        let message = self.shared.message(generation, given.collect(), Vec::new());
        Ok((is_new || !message.given.is_empty()).then_some(message))
    }

    /// Where to read on a partition whose offset is gone.
    pub(super) fn start(&self) -> Start {
        self.shared.start
    }

    /// The client lets go of what it was asked for.
    ///
    /// # Errors
    /// The reason `PARTITION_NOT_OWNED` for what it does not hold, `RELEASE_NOT_ASKED` for what it may keep.
    pub(super) fn release(&self, partitions: &[TopicPartition]) -> Result<(), Refusal> {
        self.shared.state().holding.release(partitions)?;
        self.shared.wake.notify_one();
        Ok(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let Some(since) = state.busy_since.take() {
            state.heard += since.elapsed();
        }
    }
}

impl Shared {
    fn new(broker: Arc<Broker>, group: String, share: GroupShare, start: Start, sent: Instant) -> Shared {
        let mut holding = Holding::default();
        holding.hear(share.generation, share.assigned);
        Shared {
            broker,
            group,
            member_id: share.member_id,
            session: share.session_timeout,
            start,
            state: Mutex::new(State {
                holding,
                lasts_until: sent + share.session_left,
                heard: Instant::now(),
                busy_since: None,
                over: None,
            }),
            wake: Notify::new(),
            news: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the member in the group until the call is gone or it can be kept no longer; then it has left.
    async fn keep(&self, mut gone: oneshot::Receiver<()>, mut next: Instant) {
        loop {
            let is_woken = tokio::select! {
                biased;
                _ = &mut gone => break,
                () = self.wake.notified() => true,
                () = sleep_until(self.next_check().min(next)) => false,
            };
            let over = match self.why_over() {
                Some(refusal) => Err(refusal),
                None if is_woken || next <= Instant::now() => self.beat().await,
                None => continue,
            };
            match over {
                Ok(when) => next = when,
                Err(refusal) => {
                    // The call stops reading before anybody else begins.
                    self.state().over = Some(refusal);
                    self.news.notify_one();
                    break;
                }
            }
        }
        // Where it cannot be stored that it has left, its session ends.
        if let Err(error) = self.broker.leave_group(&self.group, &self.member_id).await {
            tracing::debug!(group = self.group, member = self.member_id, %error, "a member could not leave");
        }
    }

    /// Sends one heartbeat; when to send the next.
    async fn beat(&self) -> Result<Instant, Refusal> {
        let (heartbeat, lasts_until) = {
            let state = self.state();
            let heartbeat = GroupHeartbeat {
                group: self.group.clone(),
                member_id: self.member_id.clone(),
                generation: state.holding.generation(),
                owned: state.holding.owned(),
                ..GroupHeartbeat::default()
            };
            (heartbeat, state.lasts_until)
        };
        let sent = Instant::now();
        match timeout_at(lasts_until, self.broker.group_heartbeat(heartbeat)).await {
            Ok(Ok(share)) => {
                let mut state = self.state();
                state.lasts_until = sent + share.session_left;
                state.holding.hear(share.generation, share.assigned);
                drop(state);
                self.news.notify_one();
                Ok(Instant::now() + share.interval)
            }
            Ok(Err(error)) => match error.retry_after_ms() {
                Some(ms) => Ok(Instant::now() + Duration::from_millis(ms.into())),
                None => Err(error.into()),
            },
            Err(_) => Err(self.unrenewed()),
        }
    }

    /// When it may be over at the earliest.
    fn next_check(&self) -> Instant {
        let state = self.state();
        let hangs = state.busy_since.is_none().then(|| state.heard + self.session);
        let overdue = state.holding.first_overdue(self.session).map(|(_, due)| due);
        let checks = [hangs, overdue].into_iter().flatten();
        checks.fold(state.lasts_until, Instant::min)
    }

    fn why_over(&self) -> Option<Refusal> {
        let (state, now) = (self.state(), Instant::now());
        let (group, member, ms) = (&self.group, &self.member_id, self.session.as_millis());
        if state.lasts_until <= now {
            return Some(self.unrenewed());
        }
        if state.busy_since.is_none() && state.heard + self.session <= now {
            let message = format!(
                "nothing was heard of member {member:?} of group {group:?} for its session timeout of {ms} ms, so it is no \
                 member any more: a client that is at work gives credits, or says `alive`"
            );
            return Some(Refusal::new(Code::Aborted, "MEMBER_HUNG", message));
        }
        let ((topic, partition), due) = state.holding.first_overdue(self.session)?;
        (due <= now).then(|| {
            let message = format!(
                "member {member:?} of group {group:?} did not release partition {partition} of {topic:?} within its session \
                 timeout of {ms} ms, so it is no member any more"
            );
            Refusal::new(Code::Aborted, "RELEASE_OVERDUE", message)
        })
    }

    fn unrenewed(&self) -> Refusal {
        let (group, member) = (&self.group, &self.member_id);
        let message = format!(
            "the session of member {member:?} of group {group:?} could not be renewed in time: it owns nothing any more, and \
             joins anew with another call"
        );
        Refusal::new(Code::Aborted, "MEMBER_UNKNOWN", message)
    }

    /// Where to begin reading these, as far as it can be found now.
    async fn beginnings(&self, taken: Vec<TopicPartition>) -> Result<Vec<(TopicPartition, Offset)>, Refusal> {
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let committed = match self.broker.group_offsets(&self.group, &taken).await {
            Ok(committed) => committed.into_iter(),
            Err(error) if error.retry_after_ms().is_some() => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let committed: HashMap<TopicPartition, Offset> = committed
            .map(|offset| ((offset.topic, offset.partition), offset.offset))
            .collect();
        let found = taken.into_iter().map(|at| {
            let committed = committed.get(&at).copied();
            async move {
                let offset = self.beginning(&at, committed).await?;
                Some((at, offset))
            }
        });
        let found: Vec<Option<_>> = stream::iter(found).buffered(PARTITIONS_AT_ONCE).collect().await;
        let found = found.into_iter().flatten();
        if !matches!(self.start, Start::Latest) {
            return Ok(found.collect());
        }
        let (known, new): (Vec<_>, Vec<_>) = found.partition(|(at, offset)| committed.get(at) == Some(offset));
        Ok(known.into_iter().chain(self.remember(new).await).collect())
    }

    /// Commits where the group begins with the latest; those of which that is stored. Else what comes before the first commit
    /// would be left out where a partition goes to another member.
    async fn remember(&self, found: Vec<(TopicPartition, Offset)>) -> Vec<(TopicPartition, Offset)> {
        if found.is_empty() {
            return found;
        }
        let offsets = found.iter().map(|((topic, partition), offset)| GroupOffset {
            topic: topic.clone(),
            partition: *partition,
            offset: *offset,
            metadata: String::new(),
            committed_at_ms: 0,
        });
        let commit = GroupCommit {
            group: self.group.clone(),
            member_id: self.member_id.clone(),
            generation: self.state().holding.generation(),
            offsets: offsets.collect(),
        };
        // What is not stored now is looked for anew.
        let Ok(failures) = self.broker.group_commit(commit).await else {
            return Vec::new();
        };
        let failed: HashSet<TopicPartition> = failures
            .into_iter()
            .map(|failure| (failure.topic, failure.partition))
            .collect();
        found.into_iter().filter(|(at, _)| !failed.contains(at)).collect()
    }

    /// Where to begin; nothing where that is to be asked again later.
    async fn beginning(&self, (topic, partition): &TopicPartition, committed: Option<Offset>) -> Option<Offset> {
        let found = match committed {
            None => self.start.resolve(&self.broker, topic, *partition).await,
            Some(committed) => match self.broker.offsets(topic, *partition).await {
                Ok((start, end)) if (start..=end).contains(&committed) => Ok(committed),
                // It was deleted meanwhile.
                Ok(_) => self.start.resolve(&self.broker, topic, *partition).await,
                Err(error) => Err(error),
            },
        };
        match found {
            Ok(offset) => Some(offset),
            Err(error) if error.retry_after_ms().is_some() => None,
            // Whoever begins to read there is told what is wrong.
            Err(_) => Some(committed.unwrap_or(Offset(0))),
        }
    }

    fn message(
        &self,
        generation: u64,
        given: Vec<v1::FetchPartition>,
        asked_back: Vec<v1::TopicPartition>,
    ) -> v1::SubscribeMembership {
        v1::SubscribeMembership {
            member_id: self.member_id.clone(),
            generation,
            session_timeout_ms: u32::try_from(self.session.as_millis()).unwrap_or(u32::MAX),
            given,
            asked_back,
        }
    }
}
