//! The task that sends a member's heartbeats.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millstream_proto::v1;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::member::GroupSettings;
use super::offsets::{Leaders, is_over};
use super::share::Share;
use crate::{ClientError, Connection};

/// Until a heartbeat that failed is sent again.
const RETRY: Duration = Duration::from_millis(200);
/// An answer is waited for as long as this part of a session.
const PATIENCE_SHARE: u32 = 3;

/// What the member and its heartbeats share.
#[derive(Debug)]
pub(super) struct Common {
    pub connection: Connection,
    pub group: String,
    pub topics: Vec<String>,
    pub settings: GroupSettings,
    state: Mutex<State>,
    /// A heartbeat is to be sent at once.
    pub wake: Notify,
    /// Something is to be done, or the generation is another one.
    pub news: Notify,
    pub leaders: Leaders,
}

#[derive(Debug)]
pub(super) struct State {
    pub share: Share,
    /// When the last heartbeat that was answered was sent.
    heard: Instant,
    /// When the member last asked for something.
    pub polled: Instant,
}

impl Common {
    pub fn new(connection: &Connection, group: &str, topics: Vec<String>, settings: GroupSettings) -> Arc<Common> {
        let now = Instant::now();
        Arc::new(Common {
            connection: connection.clone(),
            group: group.to_owned(),
            topics,
            settings,
            state: Mutex::new(State {
                share: Share::default(),
                heard: now,
                polled: now,
            }),
            wake: Notify::new(),
            news: Notify::new(),
            leaders: Leaders::default(),
        })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the member is at work. Where it was not for so long that its session may be over, it has lost everything.
    pub fn poll(&self) {
        let mut state = self.state();
        let hung = state.polled.elapsed() >= self.settings.max_poll_interval;
        state.polled = Instant::now();
        self.lose_what_is_over(&mut state);
        if hung {
            self.wake.notify_one();
        }
    }

    /// Waits until something holds, or there will be no more heartbeats.
    pub async fn wait_for(&self, holds: impl Fn(&Share) -> bool) {
        loop {
            let news = self.news.notified();
            let share = |share: &Share| share.failed.is_some() || holds(share);
            if share(&self.state().share) {
                return;
            }
            news.await;
        }
    }

    /// Sends heartbeats for ever; ends where one is refused for good.
    pub async fn keep(self: Arc<Common>) {
        loop {
            let next = match self.beat().await {
                Ok(interval) => Instant::now() + interval,
                Err(error) if is_over(&error) => {
                    self.state().share.lose();
                    self.news.notify_waiters();
                    continue;
                }
                Err(error) if error.is_temporary() => {
                    let mut state = self.state();
                    self.lose_what_is_over(&mut state);
                    Instant::now() + RETRY
                }
                Err(error) => {
                    self.state().share.failed = Some(error);
                    self.news.notify_waiters();
                    return;
                }
            };
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.wake.notified() => {}
            }
            // A member that hangs is not kept alive: others take what it does not read.
            while self.state().polled.elapsed() >= self.settings.max_poll_interval {
                self.wake.notified().await;
            }
        }
    }

    /// Sends one heartbeat; when to send the next.
    pub async fn beat(&self) -> Result<Duration, ClientError> {
        let (request, sent) = (self.request(), Instant::now());
        let heard = async {
            let answer = self.connection.groups().heartbeat(request).await;
            Ok(answer.map_err(|status| self.connection.error(status))?.into_inner())
        };
        let answer = self.in_time("a heartbeat", self.connection.url(), heard).await?;
        let mut state = self.state();
        state.heard = sent;
        let assigned = answer.assigned.into_iter().map(|place| (place.topic, place.partition));
        state
            .share
            .told(answer.member_id, answer.generation, assigned.collect());
        drop(state);
        self.news.notify_waiters();
        Ok(Duration::from_millis(answer.heartbeat_interval_ms.into()))
    }

    /// How long an agent's answer is waited for.
    pub fn patience(&self) -> Duration {
        self.settings.session_timeout / PATIENCE_SHARE
    }

    /// Waits for an answer from `url`. An agent that hangs is one that does not answer.
    pub async fn in_time<T>(
        &self,
        what: &str,
        url: &str,
        answer: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let patience = self.patience();
        let late = |_| ClientError::ConnectionLost {
            url: url.to_owned(),
            reason: format!("no answer to {what} in {patience:?}"),
        };
        timeout(patience, answer).await.map_err(late)?
    }

    fn request(&self) -> v1::HeartbeatRequest {
        let state = self.state();
        let share = &state.share;
        let joins = share.member_id.is_empty();
        let owned = share.owned().iter().map(|(topic, partition)| v1::TopicPartition {
            topic: topic.clone(),
            partition: *partition,
        });
        v1::HeartbeatRequest {
            group: self.group.clone(),
            member_id: share.member_id.clone(),
            generation: share.generation,
            client_id: self.settings.client_id.clone(),
            topics: if joins { self.topics.clone() } else { Vec::new() },
            session_timeout_ms: u32::try_from(self.settings.session_timeout.as_millis()).unwrap_or(u32::MAX),
            owned: owned.collect(),
        }
    }

    /// Others may read what it reads once nothing was heard for as long as its session lasts.
    fn lose_what_is_over(&self, state: &mut State) {
        if state.heard.elapsed() >= self.settings.session_timeout && !state.share.member_id.is_empty() {
            state.share.lose();
            self.news.notify_waiters();
        }
    }
}
