//! The task that keeps a member in its group.

use std::time::Duration;

use millstream_broker::GroupHeartbeat;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout_at},
};
use tonic::Code;

use super::{super::Refusal, Shared};

impl Shared {
    /// Keeps the member in the group until the call is gone or it can be kept no longer; then it has left.
    pub(super) async fn keep(&self, mut gone: oneshot::Receiver<()>, mut next: Instant) {
        loop {
            let next_check = self.state().next_check(self.session);
            let is_woken = tokio::select! {
                biased;
                _ = &mut gone => break,
                () = self.wake.notified() => true,
                () = sleep_until(next_check.min(next)) => false,
            };
            let over = match self.why_over() {
                Some(refusal) => Err(refusal),
                // A heartbeat may take as long as the session lasts, where the database is away.
                None if is_woken || next <= Instant::now() => tokio::select! {
                    biased;
                    _ = &mut gone => break,
                    beat = self.beat() => beat,
                },
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

    fn why_over(&self) -> Option<Refusal> {
        let (state, now) = (self.state(), Instant::now());
        let (group, member, ms) = (&self.group, &self.member_id, self.session.as_millis());
        if state.lasts_until <= now {
            return Some(self.unrenewed());
        }
        if state.hangs_at(self.session) <= now {
            let message = format!(
                "nothing was heard of member {member:?} of group {group:?} for its session timeout of {ms} ms, so it is no \
                 member any more: a client that is at work gives credits, or says `alive`"
            );
            return Some(Refusal::new(Code::Aborted, "MEMBER_HUNG", message));
        }
        let ((topic, partition), due) = state.first_overdue(self.session)?;
        (due <= now).then(|| {
            let message = format!(
                "member {member:?} of group {group:?} did not release partition {partition} of {topic:?} within its session \
                 timeout of {ms} ms, so it is no member any more"
            );
            Refusal::new(Code::Aborted, "RELEASE_OVERDUE", message)
        })
    }

    /// Why it is over where nothing was heard of the group in time.
    pub(super) fn unrenewed(&self) -> Refusal {
        let (group, member) = (&self.group, &self.member_id);
        let message = format!(
            "the session of member {member:?} of group {group:?} could not be renewed in time: it owns nothing any more, and \
             joins anew with another call"
        );
        Refusal::new(Code::Aborted, "MEMBER_UNKNOWN", message)
    }
}
