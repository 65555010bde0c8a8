//! Being a member of a consumer group on behalf of a call.
//!
//! A task of its own, the keeper, joins, sends the heartbeats, and leaves when the call is gone: it goes on while the call waits
//! for room on the wire or for a record. The call asks here what to tell its client and what to read. A client that is silent for
//! its session timeout, or does not let go of a partition for so long, is no member any more: the keeper leaves, and the call
//! ends with the reason. A keeper may outlast its call while the group's database is away, so their number is bounded.
//!
//! | file | owns |
//! |---|---|
//! | `keeper` | the heartbeats, and the end of the membership |
//! | `beginning` | where to begin reading what is given |
//! | `state` | what the call and the keeper share, and when the client is late; pure |
//! | `holding` | what a member was given, holds, and is to let go of; pure |

mod beginning;
mod holding;
mod keeper;
mod state;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use millstream_broker::{Broker, BrokerError, GroupHeartbeat, GroupShare, Kind, TopicPartition};
use millstream_proto::v1;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{Refusal, Start};
use crate::grpc::group::place_message;
use holding::Holding;
use state::State;

/// Members that an agent keeps at once.
const MEMBERSHIPS_MAX: usize = 10_000;
/// How long the end of a call waits for its member to have left. Where that takes longer it goes on without the call.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

/// The room for members. Clones share it.
#[derive(Clone)]
pub(in crate::grpc) struct Memberships(Arc<Semaphore>);

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

/// While this lives the call does something for its client, and cannot hear it.
pub(super) struct Busy(Arc<Shared>);

impl Default for Memberships {
    fn default() -> Memberships {
        Memberships::new(MEMBERSHIPS_MAX)
    }
}

impl Memberships {
    fn new(most: usize) -> Memberships {
        Memberships(Arc::new(Semaphore::new(most)))
    }

    /// Takes the place of one member, until it is dropped.
    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.0.clone().try_acquire_owned().map_err(|_| {
            let message = format!("the agent keeps {MEMBERSHIPS_MAX} members of groups, which is the most: try again");
            Refusal::exhausted("MEMBERSHIPS_FULL", message)
        })
    }
}

impl Membership {
    /// Joins a group.
    ///
    /// # Errors
    /// What the first heartbeat is answered; the reason `MEMBERSHIPS_FULL` where there is no room for another member.
    pub(super) async fn join(
        memberships: &Memberships,
        broker: Arc<Broker>,
        heartbeat: GroupHeartbeat,
        start: Start,
    ) -> Result<Membership, Refusal> {
        let place = memberships.place()?;
        let (call, gone) = oneshot::channel();
        let (answer, joined) = oneshot::channel();
        // The keeper leaves also where the client goes while it joins.
        let keeper = tokio::spawn(async move {
            let _place = place;
            join_and_keep(broker, heartbeat, start, answer, gone).await;
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
        self.shared.state().hear(Instant::now());
    }

    /// Takes note that it cannot be heard for a while.
    pub(super) fn busy(&self) -> Busy {
        self.shared.state().set_busy(Instant::now());
        Busy(self.shared.clone())
    }

    /// Waits until there is something to tell the client.
    pub(super) async fn changed(&self) {
        loop {
            let news = self.shared.news.notified();
            let lasts_until = {
                let state = self.shared.state();
                if state.over.is_some() || state.holding.has_news() || state.lasts_until <= Instant::now() {
                    return;
                }
                state.lasts_until
            };
            tokio::select! {
                () = news => {}
                () = sleep_until(lasts_until) => {}
            }
        }
    }

    /// Why it is no member any more, once it is not. It is told once.
    pub(super) fn over(&self) -> Option<Refusal> {
        let mut state = self.shared.state();
        let over = state.over.take();
        // The keeper renews the session, or says why it does not: one that does neither has ended by a defect.
        over.or_else(|| (state.lasts_until <= Instant::now()).then(|| self.shared.unrenewed()))
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
            let now = Instant::now();
            let asked_back = state.holding.ask_back(now);
            if !asked_back.is_empty() {
                let (generation, _) = state.holding.tell();
                let asked_back = asked_back.into_iter().map(place_message).collect();
                return Ok(Some(self.shared.message(generation, Vec::new(), asked_back)));
            }
            state.holding.take(now)
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
        if partitions.is_empty() {
            return Ok(());
        }
        self.shared.state().holding.release(partitions)?;
        self.shared.wake.notify_one();
        Ok(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.state().set_idle(Instant::now());
    }
}

/// Joins a group and keeps the member in it, for as long as there is a call.
async fn join_and_keep(
    broker: Arc<Broker>,
    heartbeat: GroupHeartbeat,
    start: Start,
    answer: oneshot::Sender<Result<Arc<Shared>, BrokerError>>,
    gone: oneshot::Receiver<()>,
) {
    if answer.is_closed() {
        return;
    }
    let (group, member_id, sent) = (heartbeat.group.clone(), broker.draw_member_id(), Instant::now());
    // To its end, also where the call goes meanwhile: what is left in the midst of it could still take effect.
    match broker.join_group(&member_id, heartbeat).await {
        Ok(share) => {
            let next = Instant::now() + share.interval;
            let shared = Arc::new(Shared::new(broker, group, share, start, sent));
            let _ = answer.send(Ok(shared.clone()));
            shared.keep(gone, next).await;
        }
        Err(error) => {
            let may_have_joined = error.kind() == Kind::Unavailable;
            let _ = answer.send(Err(error));
            if may_have_joined && let Err(error) = broker.leave_group(&group, &member_id).await {
                tracing::debug!(group, member = member_id, %error, "whoever could not join could not leave");
            }
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
            state: Mutex::new(State::new(holding, sent + share.session_left, Instant::now())),
            wake: Notify::new(),
            news: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
