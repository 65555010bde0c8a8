//! The broker without a network: topics, partitions, pipelines and leases over the log, the metadata store and the
//! module host.
//!
//! The room owns what an acknowledgement means. A produced batch goes
//!
//! ```text
//! Broker::produce -> partition actor: pipeline (wasm) -> offsets, epoch -> WAL (durable) -> ack, high watermark -> tail
//!                                                                        tail -> segment -> commit_segment -> WAL released
//! ```
//!
//! and a fetch is answered from the tail or from segments without the actor taking part ([`partition::PartitionLog`]).
//!
//! Invariants:
//! 1. Nothing at or beyond the high watermark is ever served, and nothing below it is ever lost.
//! 2. Only the actor of a partition changes that partition; one incarnation runs one actor for it.
//! 3. A module runs before the WAL, so recovery never re-runs one.
//! 4. Time and randomness come in through [`Clock`].

mod activations;
mod broker;
mod clock;
mod error;
mod failure;
mod following;
mod further;
mod groups;
mod health;
mod keeper;
mod kind;
mod lease_time;
mod measures;
mod modules;
mod names;
mod opening;
mod owner;
mod partition;
mod pipeline;
mod producers;
mod producing;
mod reading;
mod reason;
pub mod rebuild;
mod recovery;
mod rejected;
mod relief;
mod reopening;
mod settings;
mod starting;
mod stats;
mod sweep;
mod takeover;
mod topic;
mod topics;
mod versions;

pub use broker::Broker;
pub use clock::Clock;
pub use error::{BrokerError, Kind, RejectedRecord, Result};
pub use groups::{
    CommitFailure, GroupCommit, GroupError, GroupFigures, GroupHeartbeat, GroupMemberView, GroupOffset, GroupPartition,
    GroupReset, GroupShare, GroupSummary, GroupView, ResetTo, TopicPartition,
};
pub use health::Check;
pub use measures::{Histograms, Label, Measures};
pub use modules::{ModuleInfo, ModuleParam};
pub use names::{most_alike, nearest_module};
pub use partition::{Acks, Held, PartitionStatus, Read, ReadStats, Receipt, ResultStats, Room, StreamOrder, Submitted};
pub use pipeline::{
    BreakerSpec, ChangeOptions, Changed, Follows, LogLine, ModuleLogs, OnError, OpenBreaker, PartitionHalt,
    PipelineSpec, PipelineStatus, Side, StageChange, StageFigures, StageLimits, StageSpec, StageStatus, Trial,
    TrialMode,
};
pub use producers::InitProducer;
pub use reading::{FetchEach, FetchQuery, Fetched, FetchedEach, PartitionOffset};
pub use settings::{Settings, Wals};
pub use stats::BrokerStats;
pub use topics::{NewTopic, TopicChange};
pub use versions::{
    DeployOptions, Deployed, HISTORY_MAX, NotSwitched, Others, PipelineSwitch, RANGES_MAX, Written, WrittenPage,
};

pub use millstream_batch::Offset;
pub use millstream_log::{CacheLooks, Fate, Outcome, WalMeasures, WalStats};
pub use millstream_meta::{
    AgentRow, AgentShare, ModuleVersion, PipelineRow, ProducerIdentity, TimestampType, Topic, TopicConfig, WalKind,
};
