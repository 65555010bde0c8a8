//! What twenty members did, and what must be true of it. Times are those of the members, who are on one machine.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// A sixth of a session may be over when a heartbeat does not let it begin anew.
const SESSION_SIXTHS: u32 = 5;

/// One membership, from a join to its end.
pub type Life = usize;

/// Something that a member did or was told.
#[derive(Clone, Debug)]
pub enum What {
    /// It joined.
    Joined { session: Duration },
    /// A heartbeat that was sent then was answered.
    Heard { sent: Instant },
    /// This is what it reads from now on, in this generation.
    Owns { generation: u64, partitions: BTreeSet<u32> },
    /// It reads this one no longer, and says so with its next heartbeat.
    GaveUp { partition: u32 },
    /// It has read these offsets.
    Read { partition: u32, offsets: Vec<u64> },
    /// An offset was committed, by a request that was sent then.
    Committed { partition: u32, offset: u64, sent: Instant },
    /// It does nothing any more, and may not know it.
    Silent,
    /// It is back after it was silent, or was told that its session is over.
    Back,
    /// It asked to leave.
    Left,
    /// It was told that its session is over.
    Lost,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub at: Instant,
    pub life: Life,
    pub what: What,
}

/// All that happened, in order of time.
pub struct History(pub Vec<Event>);

/// That somebody reads a partition.
#[derive(Debug)]
struct Hold {
    life: Life,
    from: Instant,
    /// Until when nobody else may.
    to: Instant,
    /// Until when somebody else must have it, where it did not go on in good order.
    due: Option<Instant>,
}

/// A life as it appears in the history.
#[derive(Debug, Default)]
struct Course {
    session: Duration,
    heard: Vec<(Instant, Instant)>,
    end: Option<(Instant, End)>,
    silences: Vec<(Instant, Option<Instant>)>,
}

impl Course {
    /// Until when nobody else may read what it reads, where it went on until then: as long as its session lasted for certain.
    fn sure_until(&self, at: Instant) -> Instant {
        let heard = self.heard.iter().rev().find(|(sent, _)| *sent <= at);
        let (sent, _) = heard.expect("who owns something was heard");
        at.min(self.lasts_from(*sent))
    }

    /// How long its session lasts for certain from a heartbeat on.
    fn lasts_from(&self, sent: Instant) -> Instant {
        sent + self.session * SESSION_SIXTHS / 6
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Left,
    Lost,
    Died,
}

impl History {
    /// In one generation a partition has one reader.
    pub fn check_generations(&self) -> usize {
        let mut readers: HashMap<(u64, u32), Life> = HashMap::new();
        for event in &self.0 {
            let What::Owns { generation, partitions } = &event.what else {
                continue;
            };
            for partition in partitions {
                let reader = *readers.entry((*generation, *partition)).or_insert(event.life);
                assert_eq!(reader, event.life, "two read {partition} in generation {generation}");
            }
        }
        let generations: BTreeSet<u64> = readers.keys().map(|(generation, _)| *generation).collect();
        generations.len()
    }

    /// Nobody reads a partition before the one before has given it up, or could know that its session was over. Where a
    /// session ended somebody else has the partition within `slack`, but for what others who are silent hold up. The longest
    /// that it took beyond the end of a session.
    pub fn check_holds(&self, slack: Duration) -> Duration {
        let courses = self.courses();
        let mut longest = Duration::ZERO;
        for (partition, mut holds) in self.holds(&courses) {
            holds.sort_by_key(|hold| hold.from);
            for (hold, next) in holds.iter().zip(holds.iter().skip(1)) {
                assert!(
                    hold.to <= next.from,
                    "life {} reads {partition} {:?} before life {} is done",
                    next.life,
                    hold.to - next.from,
                    hold.life
                );
                let Some(due) = hold.due else { continue };
                let held_up = held_up(&courses, due + slack, slack);
                assert!(
                    next.from <= held_up,
                    "life {} gets {partition} of life {} {:?} after its session",
                    next.life,
                    hold.life,
                    next.from - due
                );
                longest = longest.max(next.from.saturating_duration_since(due));
            }
        }
        longest
    }

    /// What was committed never goes back.
    pub fn check_commits(&self, at_the_end: &BTreeMap<u32, u64>) -> usize {
        let commits = self.0.iter().filter_map(|event| match event.what {
            What::Committed {
                partition,
                offset,
                sent,
            } => Some((partition, sent, event.at, offset)),
            _ => None,
        });
        let mut by_partition: BTreeMap<u32, Vec<(Instant, Instant, u64)>> = BTreeMap::new();
        for (partition, sent, answered, offset) in commits {
            by_partition
                .entry(partition)
                .or_default()
                .push((sent, answered, offset));
        }
        for (partition, commits) in &mut by_partition {
            commits.sort();
            // Of two that were under way at once either may be the later one.
            for (place, (sent, _, offset)) in commits.iter().enumerate() {
                let before = commits[..place].iter().filter(|(_, answered, _)| answered <= sent);
                let greatest = before.map(|(_, _, offset)| *offset).max().unwrap_or(0);
                assert!(greatest <= *offset, "{partition} goes back from {greatest} to {offset}");
            }
            let greatest = commits.iter().map(|(_, _, offset)| *offset).max();
            assert!(
                greatest <= at_the_end.get(partition).copied(),
                "a commit of {partition} was lost"
            );
        }
        by_partition.values().map(Vec::len).sum()
    }

    /// Every record was read, and committed. How many reads there were.
    pub fn check_reads(&self, ends: &BTreeMap<u32, u64>, committed: &BTreeMap<u32, u64>) -> usize {
        let (mut read, mut reads): (BTreeMap<u32, BTreeSet<u64>>, usize) = Default::default();
        for event in &self.0 {
            if let What::Read { partition, offsets } = &event.what {
                read.entry(*partition).or_default().extend(offsets);
                reads += offsets.len();
            }
        }
        for (partition, end) in ends {
            let found = read.get(partition).map_or(0, BTreeSet::len) as u64;
            assert_eq!(found, *end, "partition {partition}");
            assert_eq!(committed.get(partition), Some(end), "partition {partition}");
        }
        reads
    }

    /// How many events there were of a kind.
    pub fn count(&self, kind: impl Fn(&What) -> bool) -> usize {
        self.0.iter().filter(|event| kind(&event.what)).count()
    }

    fn courses(&self) -> HashMap<Life, Course> {
        let mut courses: HashMap<Life, Course> = HashMap::new();
        for event in &self.0 {
            let course = courses.entry(event.life).or_default();
            match event.what {
                What::Joined { session } => course.session = session,
                What::Heard { sent } => course.heard.push((sent, event.at)),
                What::Silent => course.silences.push((event.at, None)),
                What::Back => {
                    if let Some((_, end)) = course.silences.last_mut() {
                        *end = Some(event.at);
                    }
                }
                What::Left => course.end = Some((event.at, End::Left)),
                What::Lost => course.end = Some((event.at, End::Lost)),
                _ => {}
            }
        }
        for course in courses.values_mut() {
            // Silent and never back.
            if let (None, Some((at, None))) = (course.end, course.silences.last()) {
                course.end = Some((*at, End::Died));
            }
        }
        courses
    }

    fn holds(&self, courses: &HashMap<Life, Course>) -> BTreeMap<u32, Vec<Hold>> {
        let mut open: BTreeMap<(Life, u32), Instant> = BTreeMap::new();
        let mut holds: BTreeMap<u32, Vec<Hold>> = BTreeMap::new();
        for event in &self.0 {
            match &event.what {
                What::Owns { partitions, .. } => {
                    for partition in partitions {
                        open.entry((event.life, *partition)).or_insert(event.at);
                    }
                }
                What::GaveUp { partition } => {
                    if let Some(from) = open.remove(&(event.life, *partition)) {
                        let (life, to, due) = (event.life, courses[&event.life].sure_until(event.at), None);
                        holds.entry(*partition).or_default().push(Hold { life, from, to, due });
                    }
                }
                _ => {}
            }
        }
        for ((life, partition), from) in open {
            let course = &courses[&life];
            let Some((at, end)) = course.end else { continue };
            let (to, due) = match end {
                End::Left => (course.sure_until(at), None),
                End::Lost | End::Died => {
                    let (sent, answered) = *course.heard.last().expect("who owns something was heard");
                    (course.lasts_from(sent), Some(answered + course.session))
                }
            };
            holds.entry(partition).or_default().push(Hold { life, from, to, due });
        }
        holds
    }
}

/// A partition may be promised to somebody who is silent too, and then to the next one: until when all of them may hold it up
/// that were silent by then.
fn held_up(courses: &HashMap<Life, Course>, mut limit: Instant, slack: Duration) -> Instant {
    loop {
        let later = courses.values().flat_map(|course| {
            let silences = course.silences.iter().filter(|(from, _)| *from <= limit);
            silences.filter_map(|(from, to)| {
                let heard = course.heard.iter().rev().find(|(sent, _)| sent <= from)?;
                let over = heard.1 + course.session;
                Some(to.map_or(over, |to| to.min(over)) + slack)
            })
        });
        match later.max() {
            Some(later) if later > limit => limit = later,
            _ => return limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(6);

    /// Things that happened so many seconds after the beginning.
    fn history(events: &[(u64, Life, What)]) -> History {
        let start = Instant::now();
        let at = |(seconds, life, what): &(u64, Life, What)| Event {
            at: start + Duration::from_secs(*seconds),
            life: *life,
            what: match what {
                What::Heard { .. } => What::Heard {
                    sent: start + Duration::from_secs(*seconds),
                },
                what => what.clone(),
            },
        };
        History(events.iter().map(at).collect())
    }

    fn joined() -> What {
        What::Joined { session: SESSION }
    }

    fn heard() -> What {
        What::Heard { sent: Instant::now() }
    }

    fn owns(generation: u64) -> What {
        let partitions = [0].into();
        What::Owns { generation, partitions }
    }

    #[test]
    #[should_panic(expected = "two read 0 in generation 1")]
    fn two_readers_in_one_generation_are_found() {
        history(&[(0, 0, owns(1)), (1, 1, owns(1))]).check_generations();
    }

    #[test]
    #[should_panic(expected = "before life 0 is done")]
    fn a_reader_that_comes_before_a_session_is_over_is_found() {
        let events = [(0, 0, joined()), (0, 0, heard()), (0, 0, owns(1)), (1, 0, What::Silent)];
        let other = [(0, 1, joined()), (4, 1, heard()), (4, 1, owns(2)), (4, 1, What::Left)];
        history(&[events, other].concat()).check_holds(Duration::ZERO);
    }

    #[test]
    #[should_panic(expected = "after its session")]
    fn a_partition_that_nobody_takes_over_in_time_is_found() {
        let events = [(0, 0, joined()), (0, 0, heard()), (0, 0, owns(1)), (1, 0, What::Silent)];
        let other = [(0, 1, joined()), (9, 1, heard()), (9, 1, owns(2)), (9, 1, What::Left)];
        let history = history(&[events, other].concat());
        assert_eq!(history.check_holds(Duration::from_secs(3)), Duration::from_secs(3));
        history.check_holds(Duration::from_secs(2));
    }

    #[test]
    #[should_panic(expected = "goes back from 5 to 4")]
    fn a_commit_that_goes_back_is_found() {
        let at = Instant::now();
        let committed = |offset| What::Committed {
            partition: 0,
            offset,
            sent: at + Duration::from_secs(offset),
        };
        let events = [
            (5, 0, committed(5)),
            (
                6,
                0,
                What::Committed {
                    partition: 0,
                    offset: 4,
                    sent: at + SESSION,
                },
            ),
        ];
        history(&events).check_commits(&BTreeMap::from([(0, 5)]));
    }

    #[test]
    #[should_panic(expected = "partition 0")]
    fn a_record_that_nobody_read_is_found() {
        let read = What::Read {
            partition: 0,
            offsets: vec![0, 2],
        };
        history(&[(0, 0, read)]).check_reads(&BTreeMap::from([(0, 3)]), &BTreeMap::from([(0, 3)]));
    }
}
