//! Compares what was read back with what the pipelines must have made of the generator's records.
//!
//! Nothing is remembered of the records that were sent: each one found says its number, and is made anew from it. Every
//! record must be in its place, byte for byte, in order, once, and none may be there that a module should have dropped.

use millstream_client::{Record, TopicStatus, Totals, partition_for_key, v1};
use thiserror::Error;

use super::{
    generate::{Metric, Order, Sample, Shape, UserEvent},
    topics::{DemoTopic, MASK},
};

/// How much is shown around the first byte that differs.
const EXCERPT_BYTES: usize = 60;

/// What is not as it should be.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Difference {
    /// A figure for a whole topic.
    #[error("topic {topic}: {what}: expected {expected}, found {found}")]
    Count {
        /// The topic.
        topic: &'static str,
        /// What was counted.
        what: &'static str,
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// A record that was read.
    #[error("topic {topic}, partition {partition}, offset {offset}: {what}: expected {expected}, found {found}")]
    Record {
        /// The topic.
        topic: &'static str,
        /// The partition.
        partition: u32,
        /// Where the record was found.
        offset: u64,
        /// What about it is wrong.
        what: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A record that was not read.
    #[error("topic {topic}, {place}: expected {expected}, found nothing")]
    Missing {
        /// The topic.
        topic: &'static str,
        /// Partition and offset, where the key tells.
        place: String,
        /// The record.
        expected: String,
    },
}

/// What a topic's pipeline does with a record.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Stored and shown as it is.
    Kept,
    /// Stored with this value.
    Changed(String),
    /// Not stored.
    Dropped,
    /// Stored, and not shown.
    Hidden,
}

/// What becomes of the record of this number: the parameters of `topics`, said once more without the modules.
fn fate(shape: Shape, seq: u64) -> Fate {
    match shape {
        Shape::Order => Fate::Changed(Order::draw(seq).json(MASK, MASK)),
        Shape::UserEvent if UserEvent::draw(seq).event == "heartbeat" => Fate::Hidden,
        Shape::Metric if Metric::draw(seq).env != "prod" => Fate::Dropped,
        Shape::UserEvent | Shape::Metric => Fate::Kept,
    }
}

/// What a reader gets of the record of this number.
fn shown(shape: Shape, seq: u64) -> Option<Sample> {
    let sample = || shape.sample(seq);
    match fate(shape, seq) {
        Fate::Kept => Some(sample()),
        Fate::Changed(value) => Some(Sample { value, ..sample() }),
        Fate::Dropped | Fate::Hidden => None,
    }
}

/// How many records had which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent.
    pub sent: u64,
    /// Stored, changed or not.
    pub stored: u64,
    /// Changed.
    pub changed: u64,
    /// Shown to readers.
    pub shown: u64,
}

/// Where a record belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    partition: u32,
    offset: u64,
}

/// What a topic must hold.
#[derive(Debug)]
pub struct Plan {
    topic: &'static DemoTopic,
    /// The figures.
    pub counts: Counts,
    /// The place of each record by its number; for one that is not stored, the place of the next. Empty where there are
    /// no keys: then the producer chooses the partition.
    places: Vec<Place>,
}

impl Plan {
    /// Goes through the first `records` records of a topic.
    pub fn new(topic: &'static DemoTopic, records: u64) -> Plan {
        let mut counts = Counts {
            sent: records,
            ..Counts::default()
        };
        let mut places = Vec::new();
        let mut ends = vec![0; topic.partitions as usize];
        for seq in 0..records {
            let fate = fate(topic.shape, seq);
            let stored = u64::from(fate != Fate::Dropped);
            counts.stored += stored;
            counts.changed += u64::from(matches!(fate, Fate::Changed(_)));
            counts.shown += u64::from(matches!(fate, Fate::Kept | Fate::Changed(_)));
            if let Some(key) = topic.shape.sample(seq).key {
                let partition = partition_for_key(key.as_bytes(), topic.partitions);
                let end = &mut ends[partition as usize];
                places.push(Place {
                    partition,
                    offset: *end,
                });
                *end += stored;
            }
        }
        Plan { topic, counts, places }
    }

    /// Compares the figures that the producer was told.
    pub fn check_totals(&self, totals: &Totals) -> Result<(), Difference> {
        let Counts {
            sent, stored, changed, ..
        } = self.counts;
        self.check_counts([
            ("records acknowledged", sent, totals.acknowledged),
            ("records stored", stored, totals.stored),
            ("records changed", changed, totals.changed),
            ("records dropped", sent - stored, totals.dropped),
        ])
    }

    /// Compares the figures of a topic whose records are all in segments.
    pub fn check_status(&self, status: &TopicStatus) -> Result<(), Difference> {
        let sum = |figure: fn(&v1::PartitionStatus) -> u64| status.partitions.iter().map(figure).sum();
        self.check_counts([
            (
                "partitions",
                self.topic.partitions.into(),
                status.partitions.len() as u64,
            ),
            (
                "offsets used",
                self.counts.stored,
                sum(|partition| partition.high_watermark),
            ),
            (
                "offsets in segments",
                self.counts.stored,
                sum(|partition| partition.committed_end),
            ),
        ])
    }

    fn check_counts<const N: usize>(&self, counts: [(&'static str, u64, u64); N]) -> Result<(), Difference> {
        let wrong = counts.into_iter().find(|(_, expected, found)| expected != found);
        wrong.map_or(Ok(()), |(what, expected, found)| {
            Err(Difference::Count {
                topic: self.topic.name,
                what,
                expected,
                found,
            })
        })
    }

    /// Compares everything that was read: the records of each partition, in the order in which they came.
    pub fn check_records(&self, partitions: &[Vec<Record>]) -> Result<(), Difference> {
        let mut seen = vec![false; self.counts.sent as usize];
        for (partition, records) in (0..).zip(partitions) {
            let mut previous = None;
            for record in records {
                previous = Some(self.check_record(partition, record, previous, &mut seen)?);
            }
        }
        self.check_missing(&seen)
    }

    /// Compares one record, and says its number and offset for the next.
    fn check_record(
        &self,
        partition: u32,
        record: &Record,
        previous: Option<(u64, u64)>,
        seen: &mut [bool],
    ) -> Result<(u64, u64), Difference> {
        let wrong = |what, expected: String, found: String| Difference::Record {
            topic: self.topic.name,
            partition,
            offset: record.offset,
            what,
            expected,
            found,
        };
        let value = record.value.as_deref().unwrap_or_default();
        let seq = number(value).filter(|seq| *seq < self.counts.sent).ok_or_else(|| {
            let expected = format!("{{\"seq\":N, with N below {}", self.counts.sent);
            wrong("its number", expected, excerpt(value, 0))
        })?;
        if let Some((last, _)) = previous.filter(|(last, _)| *last >= seq) {
            return Err(wrong("its order", format!("a number above {last}"), seq.to_string()));
        }
        let sample = shown(self.topic.shape, seq)
            .ok_or_else(|| wrong("what the module drops", "nothing".to_owned(), excerpt(value, 0)))?;
        if value != sample.value.as_bytes() {
            let at = first_difference(sample.value.as_bytes(), value);
            return Err(wrong(
                "its value",
                excerpt(sample.value.as_bytes(), at),
                excerpt(value, at),
            ));
        }
        let key = sample.key.as_deref().map(str::as_bytes);
        if record.key.as_deref() != key {
            let shown = |key: Option<&[u8]>| key.map_or("no key".to_owned(), |key| excerpt(key, 0));
            return Err(wrong("its key", shown(key), shown(record.key.as_deref())));
        }
        if record.timestamp_ms != sample.timestamp_ms {
            let (expected, found) = (sample.timestamp_ms.to_string(), record.timestamp_ms.to_string());
            return Err(wrong("its timestamp", expected, found));
        }
        if !record.headers.is_empty() {
            return Err(wrong("its headers", "none".to_owned(), format!("{:?}", record.headers)));
        }
        // Without keys the records of a partition are what the producer put there, one after the other.
        let next = previous.map_or(0, |(_, offset)| offset + 1);
        let place = self.places.get(seq as usize).copied().unwrap_or(Place {
            partition,
            offset: next,
        });
        if (place.partition, place.offset) != (partition, record.offset) {
            return Err(wrong("its place", place.to_string(), format!("record {seq}")));
        }
        seen[seq as usize] = true;
        Ok((seq, record.offset))
    }

    fn check_missing(&self, seen: &[bool]) -> Result<(), Difference> {
        let unseen = (0..).zip(seen).filter(|(_, seen)| !**seen).map(|(seq, _)| seq);
        let missing = unseen
            .filter_map(|seq| Some((seq, shown(self.topic.shape, seq)?)))
            .next();
        missing.map_or(Ok(()), |(seq, sample)| {
            let place = self.places.get(seq as usize);
            Err(Difference::Missing {
                topic: self.topic.name,
                place: place.map_or("no partition has it".to_owned(), Place::to_string),
                expected: excerpt(sample.value.as_bytes(), 0),
            })
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "partition {}, offset {}", self.partition, self.offset)
    }
}

/// The number that a record says it has.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.strip_prefix(b"{\"seq\":")?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

fn first_difference(one: &[u8], other: &[u8]) -> usize {
    let same = one.iter().zip(other).take_while(|(one, other)| one == other);
    same.count()
}

/// The text around a byte.
fn excerpt(text: &[u8], at: usize) -> String {
    let start = at.saturating_sub(EXCERPT_BYTES / 3).min(text.len());
    let end = (start + EXCERPT_BYTES).min(text.len());
    let shown = String::from_utf8_lossy(&text[start..end]);
    let before = if start > 0 { "…" } else { "" };
    let after = if end < text.len() { "…" } else { "" };
    format!("{before}{shown}{after} (byte {at} of {})", text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::topics::TOPICS;

    const RECORDS: u64 = 400;

    /// What an agent that does everything right would answer; records without a key go round in runs of ten.
    fn read(topic: &DemoTopic) -> Vec<Vec<Record>> {
        let mut partitions = vec![Vec::new(); topic.partitions as usize];
        let mut ends = vec![0; topic.partitions as usize];
        for seq in 0..RECORDS {
            let sample = topic.shape.sample(seq);
            let key = sample.key.clone();
            let partition = match &key {
                Some(key) => partition_for_key(key.as_bytes(), topic.partitions),
                None => (seq / 10) as u32 % topic.partitions,
            } as usize;
            if let Some(sample) = shown(topic.shape, seq) {
                partitions[partition].push(Record {
                    offset: ends[partition],
                    timestamp_ms: sample.timestamp_ms,
                    key: key.map(|key| key.into_bytes().into()),
                    value: Some(sample.value.into_bytes().into()),
                    headers: Vec::new(),
                });
            }
            ends[partition] += u64::from(fate(topic.shape, seq) != Fate::Dropped);
        }
        partitions
    }

    fn check_after(topic: usize, change: impl FnOnce(&mut Vec<Vec<Record>>)) -> Result<(), String> {
        let mut partitions = read(&TOPICS[topic]);
        change(&mut partitions);
        let plan = Plan::new(&TOPICS[topic], RECORDS);
        plan.check_records(&partitions)
            .map_err(|difference| difference.to_string())
    }

    #[test]
    fn what_the_pipelines_must_make_of_the_records_passes() {
        for topic in 0..TOPICS.len() {
            assert_eq!(check_after(topic, |_| ()), Ok(()));
        }
    }

    #[test]
    fn an_order_loses_its_address_and_its_card_and_nothing_else() {
        let order = Order::draw(5);
        let Fate::Changed(masked) = fate(Shape::Order, 5) else {
            panic!("an order is changed");
        };
        let restored = masked
            .replacen("\"email\":\"***\"", &format!("\"email\":\"{}\"", order.email), 1)
            .replacen(
                "\"number\":\"***\"",
                &format!("\"number\":\"{}\"", order.card_number),
                1,
            );
        assert!(!masked.contains(&order.email) && !masked.contains(&order.card_number));
        assert_eq!(restored, Shape::Order.sample(5).value);
    }

    #[test]
    fn counts_follow_from_the_fates() {
        let counts = |topic| Plan::new(&TOPICS[topic], RECORDS).counts;
        let (orders, events, metrics) = (counts(0), counts(1), counts(2));
        assert_eq!(
            (orders.stored, orders.changed, orders.shown),
            (RECORDS, RECORDS, RECORDS)
        );
        assert_eq!((events.stored, events.changed), (RECORDS, 0));
        assert!(events.shown < RECORDS);
        assert!(metrics.stored < RECORDS && metrics.shown == metrics.stored);

        let plan = Plan::new(&TOPICS[2], RECORDS);
        let mut totals = Totals {
            acknowledged: RECORDS,
            stored: metrics.stored,
            dropped: RECORDS - metrics.stored,
            ..Totals::default()
        };
        assert_eq!(plan.check_totals(&totals), Ok(()));
        totals.dropped -= 1;
        let difference = plan.check_totals(&totals).unwrap_err().to_string();
        assert!(
            difference.starts_with("topic metrics: records dropped: expected "),
            "{difference}"
        );
    }

    #[test]
    fn a_difference_names_its_place_and_both_sides() {
        let unmasked = Shape::Order.sample(0);
        let key = unmasked.key.clone().unwrap();
        let partition = partition_for_key(key.as_bytes(), 3) as usize;
        let difference = check_after(0, |read| {
            read[partition][0].value = Some(unmasked.value.into_bytes().into());
        })
        .unwrap_err();
        let start = format!("topic orders, partition {partition}, offset 0: its value: expected …");
        assert!(difference.starts_with(&start), "{difference}");
        assert!(
            difference.contains("\"email\":\"***\"") && difference.contains("found …"),
            "{difference}"
        );
    }

    #[test]
    fn every_way_to_be_wrong_is_found() {
        type Change = fn(&mut Vec<Vec<Record>>);
        let cases: [(usize, &str, Change); 9] = [
            (0, "its key", |read| read[1][3].key = None),
            (0, "its timestamp", |read| read[1][3].timestamp_ms += 1),
            (0, "its headers", |read| read[1][3].headers.push(("a".to_owned(), None))),
            (0, "its place", |read| read.swap(0, 1)),
            (1, "its place", |read| read[0][2].offset += 1),
            (2, "its place", |read| drop(read[3].remove(4))),
            (2, "its order", |read| read[2][1].value = read[2][0].value.clone()),
            (2, "found nothing", |read| drop(read[0].pop())),
            (1, "its number", |read| read[0][0].value = None),
        ];
        for (topic, what, change) in cases {
            let difference = check_after(topic, change).unwrap_err();
            assert!(difference.contains(what), "{what}: {difference}");
        }
    }

    #[test]
    fn a_record_that_should_be_hidden_is_found() {
        let seq = (0..).find(|seq| fate(Shape::UserEvent, *seq) == Fate::Hidden).unwrap();
        let hidden = Shape::UserEvent.sample(seq);
        let difference = check_after(1, |read| {
            read[0][0].value = Some(hidden.value.into_bytes().into());
        })
        .unwrap_err();
        assert!(
            difference.contains("what the module drops: expected nothing"),
            "{difference}"
        );
    }
}
