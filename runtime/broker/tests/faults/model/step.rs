//! What can be done to a broker.

use std::fmt;

use millstream_batch::Compression;
use millstream_broker::{Acks, WalKind};
use proptest::prelude::*;

use crate::control::{Fault, Point};

/// One thing that happens. Places within a log are in thousandths of it.
#[derive(Clone, Debug)]
pub enum Step {
    Produce {
        partition: u32,
        batch: BatchShape,
        acks: Acks,
    },
    /// Several batches that do not wait for each other.
    Burst {
        partition: u32,
        batches: Vec<BatchShape>,
    },
    Flush,
    Sweep,
    Advance {
        seconds: u64,
    },
    Truncate {
        partition: u32,
        place: u64,
    },
    Retain {
        ms: Option<u64>,
        bytes: Option<u64>,
    },
    Resize {
        segment_bytes: u64,
        compression: Compression,
    },
    Read {
        partition: u32,
        place: u64,
        bytes_max: usize,
    },
    ReadEnd {
        partition: u32,
    },
    ReadAt {
        partition: u32,
        place: u64,
    },
    BreakStore {
        point: Point,
        fault: Fault,
    },
    BreakLog {
        fault: Fault,
    },
    Recreate,
    Crash {
        next: WalKind,
    },
    Stop {
        next: WalKind,
    },
}

/// What is in a batch.
#[derive(Clone, Debug)]
pub struct BatchShape {
    pub records: u64,
    pub padding: usize,
    pub compression: Compression,
}

/// What a case does, shown one step a line.
#[derive(Clone)]
pub struct Steps(pub Vec<Step>);

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "\n    {step:?}"))
    }
}

pub fn steps(count_max: usize) -> impl Strategy<Value = Steps> {
    prop::collection::vec(step(), 1..=count_max).prop_map(Steps)
}

fn step() -> impl Strategy<Value = Step> {
    let partition = 0..2_u32;
    let place = 0..=1_000_u64;
    let seconds = prop_oneof![1..10_u64, 60..4_000_u64];
    prop_oneof![
        300 => (partition.clone(), batch(), acks())
            .prop_map(|(partition, batch, acks)| Step::Produce { partition, batch, acks }),
        60 => (partition.clone(), prop::collection::vec(batch(), 2..6))
            .prop_map(|(partition, batches)| Step::Burst { partition, batches }),
        40 => Just(Step::Flush),
        30 => Just(Step::Sweep),
        40 => seconds.prop_map(|seconds| Step::Advance { seconds }),
        15 => (partition.clone(), place.clone()).prop_map(|(partition, place)| Step::Truncate { partition, place }),
        8 => (prop::option::of(1_000..4_000_000_u64), prop::option::of(1_000..20_000_u64))
            .prop_map(|(ms, bytes)| Step::Retain { ms, bytes }),
        6 => (1_024..10_000_u64, compression())
            .prop_map(|(segment_bytes, compression)| Step::Resize { segment_bytes, compression }),
        350 => (partition.clone(), place.clone(), 1..6_000_usize)
            .prop_map(|(partition, place, bytes_max)| Step::Read { partition, place, bytes_max }),
        40 => partition.clone().prop_map(|partition| Step::ReadEnd { partition }),
        60 => (partition, place).prop_map(|(partition, place)| Step::ReadAt { partition, place }),
        8 => (point(), fault()).prop_map(|(point, fault)| Step::BreakStore { point, fault }),
        8 => prop_oneof![Just(Fault::Fail), Just(Fault::LoseAnswer)].prop_map(|fault| Step::BreakLog { fault }),
        2 => Just(Step::Recreate),
        10 => kind().prop_map(|next| Step::Crash { next }),
        4 => kind().prop_map(|next| Step::Stop { next }),
    ]
}

fn batch() -> impl Strategy<Value = BatchShape> {
    (1..20_u64, 0..150_usize, compression()).prop_map(|(records, padding, compression)| BatchShape {
        records,
        padding,
        compression,
    })
}

fn acks() -> impl Strategy<Value = Acks> {
    prop_oneof![3 => Just(Acks::Durable), 1 => Just(Acks::Memory)]
}

fn compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)]
}

fn kind() -> impl Strategy<Value = WalKind> {
    prop_oneof![Just(WalKind::Disk), Just(WalKind::Object)]
}

fn point() -> impl Strategy<Value = Point> {
    prop_oneof![
        Just(Point::Put),
        Just(Point::Get),
        Just(Point::Delete),
        Just(Point::List)
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![Just(Fault::Fail), Just(Fault::LoseAnswer), Just(Fault::Twice)]
}
