//! Where a consumer begins, and how it reads.

use std::time::Duration;

use millstream_proto::v1::{self, start_position};

/// Most that may be prefetched.
const PREFETCH_BYTES_MAX: u32 = 32 << 20;

/// Where to begin reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first record that is still there.
    Earliest,
    /// Behind the last record that is there now.
    Latest,
    /// At this offset.
    Offset(u64),
    /// At the first record of this time or later, in milliseconds since the Unix epoch; behind the last record where
    /// there is none.
    Timestamp(i64),
}

impl Start {
    pub(super) fn message(self) -> v1::StartPosition {
        let position = match self {
            Start::Earliest => start_position::Position::Earliest(true),
            Start::Latest => start_position::Position::Latest(true),
            Start::Offset(offset) => start_position::Position::Offset(offset),
            Start::Timestamp(ms) => start_position::Position::TimestampMs(ms),
        };
        v1::StartPosition {
            position: Some(position),
        }
    }
}

/// How a consumer reads.
#[derive(Clone, Debug)]
pub struct ConsumerSettings {
    /// Encoded bytes of one answer; at least one whole batch always comes. 16 MiB at most.
    pub max_bytes: u32,
    /// Encoded bytes that may be on their way from one agent, or wait here; 32 MiB at most. One answer may pass it. Each agent
    /// that leads some of what is read has so much of its own.
    pub prefetch_bytes: u32,
    /// A module that the records go through for this consumer alone, after the topic's fetch pipeline; version 0 is its
    /// current one. On an error it may halt (the default), skip the record or pass it.
    pub stage: Option<v1::Stage>,
    /// For how long an agent that is away is called again before that is an error.
    pub retry_for: Duration,
}

impl Default for ConsumerSettings {
    fn default() -> ConsumerSettings {
        ConsumerSettings {
            max_bytes: 1 << 20,
            prefetch_bytes: 8 << 20,
            stage: None,
            retry_for: Duration::from_secs(60),
        }
    }
}

impl ConsumerSettings {
    pub(super) fn credits(&self) -> u32 {
        self.prefetch_bytes.clamp(1, PREFETCH_BYTES_MAX)
    }
}
