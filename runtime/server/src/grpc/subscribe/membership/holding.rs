//! What the member of a call was given, what it holds, and what it is to let go of. Pure: times come in.
//!
//! ```text
//!  given by the group -> taken --its beginning is known--> read --not given any more--> asked back --the client lets go--> gone
//!                          +---- not given any more: nobody has read it ---------------------------------------------------^
//! ```
//!
//! Whatever is taken, read or asked back stands in the heartbeats as owned, so that it is nobody else's.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use millstream_broker::{Offset, TopicPartition};
use tokio::time::Instant;
use tonic::Code;

use super::super::Refusal;

/// How long to wait before the beginnings that were not found are looked for again, at first and at most: it asks the database
/// for all that the group has committed.
const RETRY_LEAST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(10);

/// How one partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Where its reading begins is not known yet, and the client knows nothing of it.
    Taken,
    /// The client reads it.
    Read,
    /// The client was asked then to let go of it.
    AskedBack(Instant),
}

/// What one member holds.
#[derive(Debug, Default)]
pub(super) struct Holding {
    /// What the last heartbeat was answered.
    generation: u64,
    assigned: BTreeSet<TopicPartition>,
    /// The generation that the client was told last.
    told: Option<u64>,
    /// Whether something has changed since all of it was looked at.
    has_news: bool,
    held: BTreeMap<TopicPartition, Phase>,
    /// When the beginnings that were not found are looked for again, and how long after the last time that is.
    retry: Option<(Instant, Duration)>,
}

impl Holding {
    /// Takes in the answer to a heartbeat.
    pub(super) fn hear(&mut self, generation: u64, assigned: Vec<TopicPartition>) {
        self.generation = generation;
        self.assigned = assigned.into_iter().collect();
        // What is given changes with the generation alone.
        self.has_news |= self.told != Some(generation);
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// What the next heartbeat says that the member owns.
    pub(super) fn owned(&self) -> Vec<TopicPartition> {
        self.held.keys().cloned().collect()
    }

    /// Whether the client may have to be told something, or something is to be taken.
    pub(super) fn has_news(&self) -> bool {
        self.has_news
    }

    fn is_lost(&self, at: &TopicPartition, phase: Phase) -> bool {
        !matches!(phase, Phase::AskedBack(_)) && !self.assigned.contains(at)
    }

    /// The generation for an answer to the client, and whether it is one that the client was not told yet.
    pub(super) fn tell(&mut self) -> (u64, bool) {
        let is_new = self.told.replace(self.generation) != Some(self.generation);
        (self.generation, is_new)
    }

    /// Asks the client for what is not given any more. One that was asked back and is given again is let go of all the same,
    /// and taken anew after that.
    pub(super) fn ask_back(&mut self, now: Instant) -> Vec<TopicPartition> {
        let lost = self.held.iter().filter(|(at, phase)| self.is_lost(at, **phase));
        let lost: Vec<(TopicPartition, Phase)> = lost.map(|(at, phase)| (at.clone(), *phase)).collect();
        let (read, unknown): (Vec<_>, Vec<_>) = lost.into_iter().partition(|(_, phase)| *phase == Phase::Read);
        for (at, _) in unknown {
            self.held.remove(&at);
        }
        let asked: Vec<TopicPartition> = read.into_iter().map(|(at, _)| at).collect();
        self.held
            .extend(asked.iter().map(|at| (at.clone(), Phase::AskedBack(now))));
        asked
    }

    /// Takes what was given; everything whose beginning is to be looked for now. What is to be asked back was.
    pub(super) fn take(&mut self, now: Instant) -> Vec<TopicPartition> {
        self.has_news = false;
        let before = self.held.len();
        for at in &self.assigned {
            if !self.held.contains_key(at) {
                self.held.insert(at.clone(), Phase::Taken);
            }
        }
        let pause = match self.retry {
            Some((at, _)) if self.held.len() == before && now < at => return Vec::new(),
            Some((_, pause)) if self.held.len() == before => (2 * pause).min(RETRY_MOST),
            _ => RETRY_LEAST,
        };
        self.retry = Some((now + pause, pause));
        let taken = self.held.iter().filter(|(_, phase)| **phase == Phase::Taken);
        taken.map(|(at, _)| at.clone()).collect()
    }

    /// Whether the beginning of something is still to be found.
    pub(super) fn has_taken(&self) -> bool {
        self.held.values().any(|phase| *phase == Phase::Taken)
    }

    /// Lets the client read what begins there; those that it may still read.
    pub(super) fn begin(&mut self, found: Vec<(TopicPartition, Offset)>) -> Vec<(TopicPartition, Offset)> {
        let may_begin =
            |(at, _): &(TopicPartition, Offset)| self.assigned.contains(at) && self.held.get(at) == Some(&Phase::Taken);
        let begun: Vec<_> = found.into_iter().filter(may_begin).collect();
        self.held.extend(begun.iter().map(|(at, _)| (at.clone(), Phase::Read)));
        begun
    }

    /// The client lets go of what it was asked for: of all of it, or of nothing.
    pub(super) fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), Refusal> {
        for (topic, partition) in partitions {
            match self.held.get(&(topic.clone(), *partition)) {
                Some(Phase::AskedBack(_)) => {}
                Some(Phase::Read) => {
                    let message = format!(
                        "partition {partition} of {topic:?} was not asked back: a member keeps it until it is, or leaves"
                    );
                    return Err(Refusal::invalid("RELEASE_NOT_ASKED", message));
                }
                Some(Phase::Taken) | None => {
                    let message = format!(
                        "the member does not hold partition {partition} of {topic:?}, so it cannot let go of it"
                    );
                    return Err(Refusal::new(Code::Aborted, "PARTITION_NOT_OWNED", message));
                }
            }
        }
        for at in partitions {
            self.held.remove(at);
        }
        // It may have been given again meanwhile.
        self.has_news = true;
        Ok(())
    }

    /// Leaves more time for what was asked back by as much of this span as it waited through.
    pub(super) fn postpone(&mut self, since: Instant, until: Instant) {
        for phase in self.held.values_mut() {
            if let Phase::AskedBack(asked) = phase {
                *asked += until - since.max(*asked);
            }
        }
    }

    /// Which of those that were asked back is overdue first, and since when.
    pub(super) fn first_overdue(&self, session: Duration) -> Option<(&TopicPartition, Instant)> {
        let asked = self.held.iter().filter_map(|(at, phase)| match phase {
            Phase::AskedBack(since) => Some((at, *since + session)),
            Phase::Taken | Phase::Read => None,
        });
        asked.min_by_key(|(_, due)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(numbers: &[u32]) -> Vec<TopicPartition> {
        numbers.iter().map(|number| ("t".to_owned(), *number)).collect()
    }

    fn found(numbers: &[u32]) -> Vec<(TopicPartition, Offset)> {
        parts(numbers).into_iter().map(|at| (at, Offset(0))).collect()
    }

    /// One that reads these.
    fn reading(numbers: &[u32]) -> Holding {
        let mut holding = Holding::default();
        holding.hear(1, parts(numbers));
        assert_eq!(
            (holding.take(Instant::now()), holding.tell()),
            (parts(numbers), (1, true))
        );
        assert_eq!(holding.begin(found(numbers)).len(), numbers.len());
        assert!(!holding.has_news() && !holding.has_taken());
        holding
    }

    #[test]
    fn what_is_asked_back_stays_owned_until_it_is_released() {
        let mut holding = reading(&[0, 1]);
        holding.hear(2, parts(&[1]));
        assert!(holding.has_news());
        assert_eq!(holding.ask_back(Instant::now()), parts(&[0]));
        assert!(holding.ask_back(Instant::now()).is_empty());
        assert_eq!((holding.tell(), holding.tell()), ((2, true), (2, false)));
        assert_eq!(holding.owned(), parts(&[0, 1]));
        holding.release(&parts(&[0])).unwrap();
        assert_eq!(holding.owned(), parts(&[1]));
        assert!(holding.has_news() && holding.take(Instant::now()).is_empty() && !holding.has_news());
    }

    #[test]
    fn what_comes_back_before_it_is_released_is_begun_anew_after_that() {
        let mut holding = reading(&[0]);
        holding.hear(2, Vec::new());
        holding.ask_back(Instant::now());
        holding.hear(3, parts(&[0]));
        assert!(holding.take(Instant::now()).is_empty());
        holding.release(&parts(&[0])).unwrap();
        assert!(holding.has_news());
        assert_eq!(holding.take(Instant::now()), parts(&[0]));
        assert_eq!(holding.begin(found(&[0])), found(&[0]));
    }

    #[test]
    fn what_is_lost_before_it_was_begun_is_given_up_without_a_word() {
        let mut holding = Holding::default();
        holding.hear(1, parts(&[0, 1]));
        assert_eq!(holding.take(Instant::now()), parts(&[0, 1]));
        assert_eq!(holding.owned(), parts(&[0, 1]));
        holding.hear(2, parts(&[1]));
        // It was being looked for meanwhile.
        assert_eq!(holding.begin(found(&[0, 1])), found(&[1]));
        assert!(holding.ask_back(Instant::now()).is_empty());
        assert_eq!(holding.owned(), parts(&[1]));
    }

    #[test]
    fn a_release_of_anything_else_is_refused_and_changes_nothing() {
        let mut holding = reading(&[0, 1]);
        holding.hear(2, parts(&[1]));
        holding.ask_back(Instant::now());
        for wrong in [[0, 1], [0, 2]] {
            holding.release(&parts(&wrong)).unwrap_err();
            assert_eq!(holding.owned(), parts(&[0, 1]));
        }
    }

    #[test]
    fn the_one_that_was_asked_back_first_is_overdue_first() {
        let mut holding = reading(&[0, 1]);
        let (start, session) = (Instant::now(), Duration::from_secs(6));
        assert!(holding.first_overdue(session).is_none());
        holding.hear(2, parts(&[0]));
        holding.ask_back(start);
        holding.hear(3, Vec::new());
        holding.ask_back(start + Duration::from_secs(1));
        let (at, due) = holding.first_overdue(session).unwrap();
        assert_eq!((at.1, due), (1, start + session));
    }

    #[test]
    fn what_cannot_be_begun_is_looked_for_less_and_less_often() {
        let (start, mut holding) = (Instant::now(), Holding::default());
        holding.hear(1, parts(&[0]));
        let (mut now, mut pauses) = (start, Vec::new());
        assert_eq!(holding.take(now), parts(&[0]));
        for _ in 0..7 {
            let before = now;
            while holding.take(now).is_empty() {
                now += Duration::from_millis(100);
            }
            pauses.push((now - before).as_millis());
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
        // Something new is looked for at once, and what is not found of it soon.
        holding.hear(2, parts(&[0, 1]));
        assert_eq!(holding.take(now), parts(&[0, 1]));
        assert!(holding.take(now).is_empty());
        assert_eq!(holding.take(now + RETRY_LEAST), parts(&[0, 1]));
    }
}
