//! What the call and the keeper of a member share, and when that is over. Pure: times come in.

use std::time::Duration;

use millstream_broker::TopicPartition;
use tokio::time::Instant;

use super::{super::Refusal, holding::Holding};

pub(super) struct State {
    pub(super) holding: Holding,
    /// Until when the session lasts, as far as it was renewed.
    pub(super) lasts_until: Instant,
    /// When the client was heard of last; what the agent took since to read for it does not count.
    heard: Instant,
    /// Since when the agent does something for the client, and cannot hear it.
    busy_since: Option<Instant>,
    /// Why it is no member any more.
    pub(super) over: Option<Refusal>,
}

impl State {
    pub(super) fn new(holding: Holding, lasts_until: Instant, now: Instant) -> State {
        State {
            holding,
            lasts_until,
            heard: now,
            busy_since: None,
            over: None,
        }
    }

    /// The client is at work.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    /// It cannot be heard from now on.
    pub(super) fn set_busy(&mut self, now: Instant) {
        self.busy_since = Some(now);
    }

    /// It can be heard again: what that took was none of its time.
    pub(super) fn set_idle(&mut self, now: Instant) {
        if let Some(since) = self.busy_since.take() {
            self.heard += now - since;
            self.holding.postpone(since, now);
        }
    }

    /// When the client counts as one that hangs. What the agent does for it counts too where that takes a whole session: the
    /// transport drives it, and does so no further for a client that does not read.
    pub(super) fn hangs_at(&self, session: Duration) -> Instant {
        self.busy_since.unwrap_or(self.heard) + session
    }

    /// Which partition is to be let go of first, and until when. None is while the agent does not hear the client.
    pub(super) fn first_overdue(&self, session: Duration) -> Option<(&TopicPartition, Instant)> {
        match self.busy_since {
            None => self.holding.first_overdue(session),
            Some(_) => None,
        }
    }

    /// When it may be over at the earliest.
    pub(super) fn next_check(&self, session: Duration) -> Instant {
        let ends = self.lasts_until.min(self.hangs_at(session));
        let overdue = self.first_overdue(session);
        overdue.map_or(ends, |(_, due)| ends.min(due))
    }
}

#[cfg(test)]
mod tests {
    use millstream_broker::Offset;

    use super::*;

    const SESSION: Duration = Duration::from_secs(6);

    /// At `start`, of a member that was asked then for what it reads.
    fn asked_back(start: Instant) -> State {
        let at = ("t".to_owned(), 0);
        let mut holding = Holding::default();
        holding.hear(1, vec![at.clone()]);
        holding.take(start);
        holding.begin(vec![(at, Offset(0))]);
        holding.hear(2, Vec::new());
        assert_eq!(holding.ask_back(start).len(), 1);
        State::new(holding, start + 100 * SESSION, start)
    }

    #[test]
    fn what_the_agent_does_for_a_client_takes_nothing_of_its_time() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut state = asked_back(start);
        assert_eq!(state.first_overdue(SESSION).unwrap().1, start + SESSION);
        state.set_busy(start + second);
        assert!(state.first_overdue(SESSION).is_none());
        state.set_idle(start + 4 * second);
        assert_eq!(state.hangs_at(SESSION), start + SESSION + 3 * second);
        assert_eq!(state.first_overdue(SESSION).unwrap().1, start + SESSION + 3 * second);
        state.hear(start + 5 * second);
        assert_eq!(state.hangs_at(SESSION), start + SESSION + 5 * second);
        assert_eq!(state.next_check(SESSION), start + SESSION + 3 * second);
    }

    #[test]
    fn what_takes_a_whole_session_is_nothing_that_the_agent_does() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut state = asked_back(start);
        state.set_busy(start + second);
        assert_eq!(state.hangs_at(SESSION), start + second + SESSION);
        assert_eq!(state.next_check(SESSION), start + second + SESSION);
    }
}
