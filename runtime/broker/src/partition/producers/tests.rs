use millstream_log::Fate;
use proptest::prelude::*;

use super::*;

fn stamp(id: i64, epoch: i16, first: i32, count: i32) -> ProducerStamp {
    ProducerStamp {
        id,
        epoch,
        first_sequence: first,
        last_sequence: first.wrapping_add(count - 1) & SEQUENCE_MAX,
    }
}

fn stored(stamp: ProducerStamp, base: u64, emitted: u32) -> Stamped {
    let mut outcome = Outcome::default();
    outcome.push(emitted, Fate::Pipeline);
    Stamped {
        stamp,
        base_offset: Offset(base),
        outcome,
    }
}

fn store(producers: &mut Producers, stamp: ProducerStamp, base: u64, emitted: u32) {
    assert_eq!(producers.check(&stamp), Ok(None), "{stamp:?}");
    producers.begin(stored(stamp, base, emitted));
    producers.settle();
}

#[test]
fn numbers_that_continue_are_new_and_those_that_were_there_are_told() {
    let mut producers = Producers::default();
    store(&mut producers, stamp(7, 0, 0, 10), 100, 1);
    let second = stamp(7, 0, 10, 5);
    assert_eq!(producers.check(&second), Ok(None));
    producers.begin(stored(second, 101, 1));
    for at in [stamp(7, 0, 0, 10), second] {
        let original = producers.check(&at).unwrap().unwrap();
        assert_eq!(
            (original.first_sequence, original.last_sequence),
            (at.first_sequence, at.last_sequence)
        );
    }
    // What is on its way may fail: then it was never there.
    producers.forget_pending();
    assert_eq!(producers.check(&second), Ok(None));
}

#[test]
fn gaps_other_cuts_and_older_epochs_are_refused() {
    let mut producers = Producers::default();
    assert_eq!(producers.check(&stamp(7, 0, 3, 1)), Err(Refusal::Unknown));
    store(&mut producers, stamp(7, 0, 0, 10), 0, 1);
    assert_eq!(
        producers.check(&stamp(7, 0, 11, 1)),
        Err(Refusal::OutOfOrder { expected: 10 })
    );
    assert_eq!(producers.check(&stamp(7, 0, 0, 9)), Err(Refusal::Forgotten));
    assert_eq!(
        producers.check(&stamp(7, 0, 5, 10)),
        Err(Refusal::OutOfOrder { expected: 10 })
    );
    assert_eq!(
        producers.check(&stamp(7, 1, 10, 1)),
        Err(Refusal::OutOfOrder { expected: 0 })
    );
    store(&mut producers, stamp(7, 1, 0, 1), 1, 1);
    assert_eq!(
        producers.check(&stamp(7, 0, 10, 1)),
        Err(Refusal::Fenced { current: 1 })
    );
}

#[test]
fn of_each_producer_the_last_five_batches_are_remembered() {
    let mut producers = Producers::default();
    for n in 0..7 {
        store(&mut producers, stamp(7, 0, n, 1), n as u64, 1);
    }
    assert_eq!(producers.check(&stamp(7, 0, 1, 1)), Err(Refusal::Forgotten));
    assert!(producers.check(&stamp(7, 0, 2, 1)).unwrap().is_some());
}

#[test]
fn sequences_begin_with_0_again_behind_the_greatest() {
    let mut producers = Producers::default();
    producers.apply(stored(stamp(7, 0, i32::MAX - 9, 5), 0, 1));
    let across = stamp(7, 0, i32::MAX - 4, 10);
    assert_eq!(across.last_sequence, 4);
    store(&mut producers, across, 1, 1);
    assert!(producers.check(&across).unwrap().is_some());
    assert_eq!(producers.check(&stamp(7, 0, 5, 1)), Ok(None));
    assert_eq!(
        producers.check(&stamp(7, 0, 6, 1)),
        Err(Refusal::OutOfOrder { expected: 5 })
    );
    assert_eq!(producers.check(&stamp(7, 0, i32::MAX, 2)), Err(Refusal::Forgotten));
}

#[test]
fn the_producer_that_sent_nothing_for_longest_goes_first() {
    let mut producers = Producers::default();
    for id in 0..=PRODUCERS_MAX as i64 {
        store(&mut producers, stamp(id, 0, 0, 1), id as u64, 1);
        if id > 0 {
            store(&mut producers, stamp(0, 0, id as i32, 1), id as u64, 1);
        }
    }
    assert_eq!(producers.durable.len(), PRODUCERS_MAX);
    assert_eq!(producers.check(&stamp(1, 0, 1, 1)), Err(Refusal::Unknown));
    assert_eq!(producers.check(&stamp(2, 0, 1, 1)), Ok(None));
}

#[test]
fn what_modules_did_to_every_other_record_takes_bounded_memory() {
    let mut producers = Producers::default();
    let mut first = 0;
    for n in 0..20 {
        let mut outcome = Outcome::default();
        (0..100_000).for_each(|record| outcome.push(record % 2, Fate::Pipeline));
        let stamp = stamp(n % 2, 0, first, 100_000);
        producers.begin(Stamped {
            stamp,
            base_offset: Offset(0),
            outcome,
        });
        producers.settle();
        first += if n % 2 == 1 { 100_000 } else { 0 };
    }
    assert!(producers.bytes < 2 * BYTES_MAX, "{}", producers.bytes);
    assert!(
        producers.check(&stamp(1, 0, 900_000, 100_000)).unwrap().is_some(),
        "the last one is kept"
    );
}

#[test]
fn a_checkpoint_holds_what_lies_below_its_end_and_what_was_dropped_there() {
    let mut producers = Producers::default();
    store(&mut producers, stamp(7, 0, 0, 1), 0, 1);
    store(&mut producers, stamp(7, 0, 1, 1), 1, 0);
    store(&mut producers, stamp(7, 0, 2, 1), 1, 1);
    store(&mut producers, stamp(8, 0, 0, 1), 2, 1);
    let numbers = |end| {
        let states = producers.checkpoint(Offset(end)).producers;
        states
            .into_iter()
            .map(|state| (state.id, state.batches.len()))
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(1), [(7, 2)]);
    assert_eq!(numbers(2), [(7, 3)]);
    assert_eq!(numbers(3), [(7, 3), (8, 1)]);
    assert_eq!(producers.loose(Offset(1)).len(), 1);
    assert_eq!(producers.loose(Offset(3)).len(), 0);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Send { id: i64, records: i32, kept: bool },
    Epoch { id: i64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        9 => (0..4i64, 1..4i32, any::<bool>()).prop_map(|(id, records, kept)| Step::Send { id, records, kept }),
        1 => (0..4i64).prop_map(|id| Step::Epoch { id }),
    ]
}

proptest! {
    /// Wherever a checkpoint was made, with the frames behind it, some of which it has already, it becomes the same again.
    #[test]
    fn a_checkpoint_and_the_frames_from_its_end_on_restore_everything(
        steps in proptest::collection::vec(any_step(), 1..60), cut in any::<prop::sample::Index>()
    ) {
        let (mut producers, mut sent, mut end) = (Producers::default(), HashMap::new(), 0u64);
        let mut frames = Vec::new();
        let cut = cut.index(steps.len());
        let mut checkpoint = None;
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Epoch { id } => {
                    let (epoch, sequence) = sent.entry(id).or_insert((0i16, 0i32));
                    *epoch += 1;
                    *sequence = 0;
                }
                Step::Send { id, records, kept } => {
                    let (epoch, sequence) = sent.entry(id).or_insert((0, 0));
                    let stamp = stamp(id, *epoch, *sequence, records);
                    *sequence += records;
                    let frame = stored(stamp, end, u32::from(kept));
                    store(&mut producers, stamp, end, u32::from(kept));
                    frames.push(frame);
                    end += u64::from(kept);
                }
            }
            if n == cut {
                checkpoint = Some((producers.checkpoint(Offset(end)), end));
            }
        }
        let (checkpoint, at) = checkpoint.unwrap();
        let checkpoint = decode(&encode(&checkpoint)).unwrap();
        frames.retain(|frame| frame.base_offset >= Offset(at));
        let restored = Producers::restored(checkpoint, frames);
        let sorted = |producers: &Producers| {
            let mut states = producers.checkpoint(Offset(end)).producers;
            states.sort_by_key(|state| state.id);
            states
        };
        prop_assert_eq!(sorted(&restored), sorted(&producers));
    }
}
