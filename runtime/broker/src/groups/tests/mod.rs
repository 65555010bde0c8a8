//! Members that join, leave, hang, miss answers and repeat themselves, against what must hold all the time.

mod histories;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::members::{Beat, Group, MEMBERS_MAX, Refusal, Seen, Told};

const SESSION_MS: u32 = 6_000;

fn beat(member_id: &str, topics: &[&str]) -> Beat {
    Beat {
        member_id: member_id.to_owned(),
        joins: true,
        generation: 0,
        client_id: String::new(),
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        session_ms: SESSION_MS,
        owned: HashSet::new(),
    }
}

/// What a member sends that owns what it was told last.
fn next(member_id: &str, told: &Told) -> Beat {
    Beat {
        joins: false,
        generation: told.generation,
        owned: told.assigned.iter().cloned().collect(),
        ..beat(member_id, &[])
    }
}

fn seen(topics: &[(&str, u32)]) -> Seen {
    let topics = topics.iter();
    topics
        .map(|(name, partitions)| ((*name).to_owned(), (format!("id of {name}"), *partitions)))
        .collect()
}

/// Lets members send heartbeats until nothing changes any more; what each reads then.
fn settle(group: &mut Group, members: &[&str], seen: &Seen) -> BTreeMap<String, BTreeSet<(String, u32)>> {
    let mut told: BTreeMap<&str, Told> = BTreeMap::new();
    loop {
        let before = group.clone();
        for member in members {
            let beat = match told.get(member) {
                Some(told) => next(member, told),
                None => Beat {
                    joins: false,
                    ..beat(member, &[])
                },
            };
            told.insert(member, group.beat(&beat, seen, 0).unwrap());
        }
        if *group == before {
            break;
        }
    }
    let told = told.into_iter();
    told.map(|(member, told)| (member.to_owned(), told.assigned.into_iter().collect()))
        .collect()
}

#[test]
fn a_partition_moves_only_once_it_was_given_up() {
    let (mut group, seen) = (Group::default(), seen(&[("t", 2)]));
    let a = group.beat(&beat("a", &["t"]), &seen, 0).unwrap();
    assert_eq!((a.generation, a.assigned.len()), (1, 2));
    let b = group.beat(&beat("b", &["t"]), &seen, 0).unwrap();
    assert_eq!((b.generation, b.assigned.len()), (2, 0));
    // It still reads both, and learns that it is to give one up.
    let owning_both = next("a", &a);
    let a = group.beat(&owning_both, &seen, 0).unwrap();
    assert_eq!((a.generation, a.assigned.len()), (3, 1));
    assert!(group.beat(&next("b", &b), &seen, 0).unwrap().assigned.is_empty());
    let again = group
        .beat(
            &Beat {
                generation: 3,
                ..owning_both.clone()
            },
            &seen,
            0,
        )
        .unwrap();
    assert_eq!(again.generation, 3);
    let b = group.beat(&next("b", &b), &seen, 0).unwrap();
    assert!(b.assigned.is_empty() && b.interval_ms == 120, "{b:?}");
    let a = group.beat(&next("a", &again), &seen, 0).unwrap();
    assert_eq!((a.generation, a.assigned.len(), a.interval_ms), (4, 1, 1_200));
    let b = group.beat(&next("b", &b), &seen, 0).unwrap();
    assert_eq!((b.generation, b.assigned.len(), b.interval_ms), (5, 1, 1_200));
    assert!(b.assigned != a.assigned);
}

#[test]
fn a_heartbeat_that_did_not_see_the_last_answer_gives_nothing_up() {
    let (mut group, seen) = (Group::default(), seen(&[("t", 2)]));
    let a = group.beat(&beat("a", &["t"]), &seen, 0).unwrap();
    let b = group.beat(&beat("b", &["t"]), &seen, 0).unwrap();
    let owning_one = Beat {
        owned: a.assigned.iter().take(1).cloned().collect(),
        ..next("a", &a)
    };
    // Sent before it was told to give one up: it may be about to read the other one.
    for _ in 0..3 {
        group.beat(&owning_one, &seen, 0).unwrap();
        assert!(group.beat(&next("b", &b), &seen, 0).unwrap().assigned.is_empty());
    }
}

#[test]
fn a_session_ends_when_nothing_was_heard_for_as_long_as_it_lasts() {
    let (mut group, seen) = (Group::default(), seen(&[("t", 2)]));
    let a = group.beat(&beat("a", &["t"]), &seen, 0).unwrap();
    group.beat(&beat("b", &["t"]), &seen, 1).unwrap();
    let end = i64::from(SESSION_MS);
    let b = group
        .beat(
            &Beat {
                joins: false,
                ..beat("b", &[])
            },
            &seen,
            end - 1,
        )
        .unwrap();
    assert!(b.assigned.is_empty());
    let b = group.beat(&next("b", &b), &seen, end).unwrap();
    assert_eq!(b.assigned.len(), 2);
    assert_eq!(group.beat(&next("a", &a), &seen, end), Err(Refusal::MemberUnknown));
    assert_eq!(
        group.check_member("a", a.generation).err(),
        Some(Refusal::MemberUnknown)
    );
}

#[test]
fn a_heartbeat_soon_after_another_changes_nothing() {
    let (mut group, seen) = (Group::default(), seen(&[("t", 2)]));
    let told = group.beat(&beat("a", &["t"]), &seen, 0).unwrap();
    let before = group.clone();
    assert_eq!(group.beat(&next("a", &told), &seen, 999).unwrap(), told);
    assert_eq!(group, before);
    group.beat(&next("a", &told), &seen, 1_000).unwrap();
    assert_eq!(group.members()["a"].session_left_ms(1_000), u64::from(SESSION_MS));
}

#[test]
fn a_clock_that_goes_back_lets_nobody_live_longer() {
    let (mut group, seen) = (Group::default(), seen(&[("t", 2)]));
    let hour = 3_600_000;
    let a = group.beat(&beat("a", &["t"]), &seen, hour).unwrap();
    group.beat(&beat("b", &["t"]), &seen, 0).unwrap();
    assert_eq!(group.members()["a"].session_left_ms(0), u64::from(SESSION_MS));
    group.end_sessions(i64::from(SESSION_MS));
    assert!(group.members().is_empty());
    assert_eq!(group.beat(&next("a", &a), &seen, hour), Err(Refusal::MemberUnknown));
}

#[test]
fn who_joins_takes_its_share_and_nothing_else_moves() {
    let (mut group, seen) = (Group::default(), seen(&[("t", 13), ("u", 7)]));
    for id in ["a", "b", "c"] {
        group.beat(&beat(id, &["t", "u"]), &seen, 0).unwrap();
    }
    let before = settle(&mut group, &["a", "b", "c"], &seen);
    group.beat(&beat("d", &["t", "u"]), &seen, 0).unwrap();
    let after = settle(&mut group, &["a", "b", "c", "d"], &seen);
    assert_eq!(after["d"].len(), 5);
    for id in ["a", "b", "c"] {
        assert!(after[id].is_subset(&before[id]), "{id}");
        assert_eq!(after[id].len(), 5);
    }
    group.leave("a", 0).unwrap();
    let left = settle(&mut group, &["b", "c", "d"], &seen);
    for id in ["b", "c", "d"] {
        assert!(left[id].is_superset(&after[id]), "{id}");
    }
}

#[test]
fn members_that_read_different_topics_share_what_they_can() {
    let (mut group, seen) = (Group::default(), seen(&[("t", 4), ("u", 4)]));
    group.beat(&beat("a", &["t", "u"]), &seen, 0).unwrap();
    group.beat(&beat("b", &["t", "absent"]), &seen, 0).unwrap();
    let shares = settle(&mut group, &["a", "b"], &seen);
    assert!(shares["b"].iter().all(|(topic, _)| topic == "t"));
    assert_eq!((shares["a"].len(), shares["b"].len()), (4, 4));
    let grown = self::seen(&[("t", 4), ("u", 4), ("absent", 3)]);
    let shares = settle(&mut group, &["a", "b"], &grown);
    assert_eq!(shares["a"].len() + shares["b"].len(), 11);
    assert!(shares["a"].len().abs_diff(shares["b"].len()) <= 1, "{shares:?}");
}

#[test]
fn a_topic_that_was_made_again_is_given_up_and_read_anew() {
    let (mut group, mut seen) = (Group::default(), seen(&[("t", 2)]));
    let told = group.beat(&beat("a", &["t"]), &seen, 0).unwrap();
    seen.insert("t".to_owned(), ("another".to_owned(), 3));
    let none = group.beat(&next("a", &told), &seen, 0).unwrap();
    assert_eq!(none.assigned.len(), 1, "{none:?}");
    let told = group.beat(&next("a", &none), &seen, 0).unwrap();
    assert_eq!(told.assigned.len(), 3);
    assert_eq!(group.topics().len(), 1);
    seen.clear();
    let told = group.beat(&next("a", &told), &seen, 0).unwrap();
    assert!(told.assigned.is_empty());
    group.beat(&next("a", &told), &seen, 0).unwrap();
    assert!(group.topics().is_empty() && group.holdings().is_empty());
}

#[test]
fn a_group_has_a_bound_on_its_members() {
    let (mut group, seen) = (Group::default(), seen(&[("t", 1)]));
    for id in 0..MEMBERS_MAX {
        group.beat(&beat(&format!("{id}"), &["t"]), &seen, 0).unwrap();
    }
    let full = group.clone();
    assert_eq!(group.beat(&beat("more", &["t"]), &seen, 0), Err(Refusal::Full));
    assert_eq!(group, full);
}

#[test]
fn a_join_that_was_tried_twice_is_one_member() {
    let (mut group, seen) = (Group::default(), seen(&[("t", 1)]));
    for _ in 0..2 {
        let told = group.beat(&beat("a", &["t"]), &seen, 0).unwrap();
        assert_eq!((told.generation, told.assigned.len()), (1, 1));
    }
    assert_eq!(group.members().len(), 1);
}

#[test]
fn the_document_is_read_as_it_was_written() {
    let (mut group, seen) = (Group::default(), seen(&[("t", 3), ("u", 2)]));
    group.beat(&beat("a", &["t"]), &seen, 0).unwrap();
    group.beat(&beat("b", &["t", "u"]), &seen, 5).unwrap();
    let document = serde_json::to_string(&group).unwrap();
    let mut read: Group = serde_json::from_str(&document).unwrap();
    read.generation = group.generation;
    assert_eq!(read, group);
    assert_eq!(serde_json::from_str::<Group>("{}").unwrap(), Group::default());
}
