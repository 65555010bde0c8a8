//! Sharing out the partitions: balanced, and with few moves.
//!
//! 1. Every partition of a topic that somebody reads is in one member's target.
//! 2. Of members that read the same topics none has two partitions more than another.
//! 3. What a member had in its target it keeps, where the first two let it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::members::{Group, Part};

/// The members of a group while they are shared out to, by their place in the order of ids.
struct Shares {
    targets: Vec<BTreeSet<Part>>,
    held: Vec<BTreeSet<Part>>,
    /// Of each topic who reads it.
    readers: BTreeMap<u32, Vec<usize>>,
    /// Those that read the same topics.
    alike: Vec<Vec<usize>>,
}

/// Partitions of any topic.
const ANY: RangeInclusive<Part> = (0, 0)..=(u32::MAX, u32::MAX);

/// Gives every member its target anew.
pub(super) fn share_out(group: &mut Group) {
    let mut shares = Shares::of(group);
    shares.give_what_is_left(group);
    // Each move makes the shares more even, so it ends.
    while shares.even_out_once() {}
    for (member, target) in group.members_mut().values_mut().zip(shares.targets) {
        member.target = target;
    }
}

impl Shares {
    /// What every member keeps.
    fn of(group: &Group) -> Shares {
        let members = || group.members().values();
        let current = group.topics().iter().filter(|(_, topic)| topic.current);
        let readers = current.map(|(key, topic)| {
            let reads = members()
                .enumerate()
                .filter(|(_, member)| member.topics.contains(&topic.name));
            (*key, reads.map(|(place, _)| place).collect::<Vec<_>>())
        });
        let readers: BTreeMap<u32, Vec<usize>> = readers.filter(|(_, readers)| !readers.is_empty()).collect();
        let is_kept = |place: usize, (topic, partition): &Part| {
            let reads = readers
                .get(topic)
                .is_some_and(|readers| readers.binary_search(&place).is_ok());
            reads && *partition < group.topics()[topic].partitions
        };
        let targets = members().enumerate().map(|(place, member)| {
            let kept = member.target.iter().filter(|part| is_kept(place, part));
            kept.copied().collect()
        });
        let mut alike: BTreeMap<&BTreeSet<String>, Vec<usize>> = BTreeMap::new();
        for (place, member) in members().enumerate() {
            alike.entry(&member.topics).or_default().push(place);
        }
        Shares {
            alike: alike.into_values().collect(),
            targets: targets.collect(),
            held: members().map(|member| member.held().collect()).collect(),
            readers,
        }
    }

    /// Gives what nobody has to whoever has least; of several to the one that holds it.
    fn give_what_is_left(&mut self, group: &Group) {
        let given: BTreeSet<Part> = self.targets.iter().flatten().copied().collect();
        let mut topics = self.topics();
        // Those that few read first: the others can even it out.
        topics.sort_by_key(|topic| self.readers[topic].len());
        for topic in topics {
            let mut loads = self.loads(&self.readers[&topic]);
            for partition in 0..group.topics()[&topic].partitions {
                let part = (topic, partition);
                if given.contains(&part) {
                    continue;
                }
                let (least, first) = *loads.first().expect("a topic without readers is not shared out");
                let holder = self.readers[&topic]
                    .iter()
                    .find(|place| self.held[**place].contains(&part));
                let place = match holder {
                    Some(holder) if self.targets[*holder].len() == least => *holder,
                    _ => first,
                };
                loads.remove(&(least, place));
                loads.insert((least + 1, place));
                self.targets[place].insert(part);
            }
        }
    }

    /// Moves partitions from who has more to who has less; whether there was one to move. Among those that read the same any
    /// partition will do, so that few moves are enough.
    fn even_out_once(&mut self) -> bool {
        let alike = self.alike.iter().map(|readers| (readers.clone(), ANY));
        let topics = self.readers.iter();
        let topics = topics.map(|(topic, readers)| (readers.clone(), (*topic, 0)..=(*topic, u32::MAX)));
        let ways: Vec<_> = alike.chain(topics).collect();
        ways.into_iter().any(|(readers, parts)| self.even_out(&readers, &parts))
    }

    /// Moves such partitions from who has most to who has least of these members; whether there was one to move.
    fn even_out(&mut self, readers: &[usize], parts: &RangeInclusive<Part>) -> bool {
        let mut loads = self.loads(readers);
        let mut moved = false;
        while let Some((least, to)) = loads.first().copied() {
            let mut with_most = loads.iter().rev().take_while(|(load, _)| *load >= least + 2);
            let found = with_most.find_map(|(load, from)| Some((*load, *from, self.to_move(parts, *from, to)?)));
            let Some((most, from, part)) = found else { break };
            self.targets[from].remove(&part);
            self.targets[to].insert(part);
            loads.remove(&(most, from));
            loads.remove(&(least, to));
            loads.insert((most - 1, from));
            loads.insert((least + 1, to));
            moved = true;
        }
        moved
    }

    /// Which of these partitions costs least to move from one to the other: one that the other still holds, or one that the
    /// first does not hold yet.
    fn to_move(&self, parts: &RangeInclusive<Part>, from: usize, to: usize) -> Option<Part> {
        let movable = || self.targets[from].range(parts.clone()).rev();
        let cheap = movable().find(|part| self.held[to].contains(part));
        let cheap = cheap.or_else(|| movable().find(|part| !self.held[from].contains(part)));
        cheap.or_else(|| movable().next()).copied()
    }

    /// These members by how much each has.
    fn loads(&self, readers: &[usize]) -> BTreeSet<(usize, usize)> {
        readers
            .iter()
            .map(|place| (self.targets[*place].len(), *place))
            .collect()
    }

    fn topics(&self) -> Vec<u32> {
        self.readers.keys().copied().collect()
    }
}
