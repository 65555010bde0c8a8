//! What a caller can do about each error: few kinds, which the network side turns into its codes once.

use millstream_log::LogError;
use millstream_meta::MetaError;
use millstream_wasm::ModuleError;

use crate::{error::BrokerError, rejected::all_failed};

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong; the same request fails again.
    Invalid,
    /// An offset lies outside of what can be read.
    OutOfRange,
    /// What was named does not exist.
    NotFound,
    /// What was to be made exists already.
    Exists,
    /// Somebody else changed the same thing first.
    Conflict,
    /// Another incarnation leads the partition now.
    Fenced,
    /// Try again later.
    Unavailable,
    /// Somebody has to act first; the same request fails until then.
    Precondition,
    /// A bound is reached; slow down and try again.
    Exhausted,
    /// Stored bytes are damaged.
    Corrupt,
    /// A module failed.
    Module,
    /// A defect of the broker.
    Internal,
}

impl BrokerError {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        use BrokerError as E;
        match self {
            E::UnknownTopic { .. } | E::UnknownPartition { .. } | E::UnknownModule { .. } | E::UnknownStage { .. } => {
                Kind::NotFound
            }
            E::TopicExists { .. } => Kind::Exists,
            // The module may be as good as any other: the agent has no room for it now.
            E::BadModule { source, .. } if is_of_agent(source) => Kind::Exhausted,
            E::NearName { unknown, .. } => unknown.kind(),
            E::StoreOwned { .. }
            | E::RebuildDisturbed
            | E::PipelineChanged { .. }
            | E::SequenceOutOfOrder { .. }
            | E::StreamBroken => Kind::Conflict,
            E::ProducerFenced { .. } | E::ProducerUnknown { .. } | E::SequenceForgotten { .. } => Kind::Precondition,
            E::InvalidName { .. }
            | E::InvalidPartitions { .. }
            | E::InvalidSetting { .. }
            | E::FewerPartitions { .. }
            | E::Batch(_)
            | E::BadProducer { .. }
            | E::BatchAboveTail { .. }
            | E::DeadLetterCircle { .. }
            | E::OnErrorOnFetch { .. }
            | E::TooManyStages { .. }
            | E::StageChange { .. }
            | E::StageLimit { .. }
            | E::ParamsTooLarge { .. }
            | E::FailsOnRecent { .. }
            | E::TrialRefused { .. }
            | E::BadModule { .. } => Kind::Invalid,
            E::OffsetOutOfRange { .. } => Kind::OutOfRange,
            E::ModuleOnProduce { source, .. } | E::ModuleOnFetch { source, .. } if is_of_agent(source) => {
                Kind::Exhausted
            }
            // A request that names what the module refuses is wrong; one that it fails on may be right.
            E::Rejected { rejects, .. } if !all_failed(rejects) => Kind::Invalid,
            E::Rejected { .. }
            | E::ModuleOnProduce { .. }
            | E::SearchEnded { .. }
            | E::ModuleOnFetch { .. }
            | E::OutputTooLarge { .. } => Kind::Module,
            E::Halted { .. } | E::Paused { .. } | E::StageOnTrial { .. } => Kind::Precondition,
            E::BreakerOpen { .. } | E::DeadLettersLate { .. } => Kind::Unavailable,
            // What is wrong with that topic is nothing that the producer of this one has asked for.
            E::DeadLetters { source, .. } => match source.kind() {
                retry @ (Kind::Unavailable | Kind::Exhausted | Kind::Internal | Kind::Corrupt) => retry,
                Kind::Fenced | Kind::Conflict => Kind::Unavailable,
                _ => Kind::Precondition,
            },
            E::TailFull { .. } | E::AnswersFull { .. } => Kind::Exhausted,
            E::AppendFailed { .. }
            | E::PartitionClosed { .. }
            | E::Stopping
            | E::AgentFailed { .. }
            | E::NameTaken { .. }
            | E::LeaseLapsed { .. }
            | E::LedElsewhere { .. }
            | E::WalOfAnotherAgent { .. }
            | E::WalElsewhere { .. } => Kind::Unavailable,
            E::NoTrial { .. } | E::AlreadyCurrent { .. } | E::NothingReplaced { .. } => Kind::Precondition,
            E::FlushFailed { source, .. } | E::TopicRefuses { source, .. } => source.kind(),
            E::MissingSegment { .. }
            | E::NotesDamaged { .. }
            | E::RebuildGaps { .. }
            | E::RebuildLogs { .. }
            | E::WalGap { .. }
            | E::StoredRecords(_)
            | E::StoredBatch(_)
            | E::StoredProducers { .. }
            | E::StoredForm { .. } => Kind::Corrupt,
            E::Panicked { .. } => Kind::Internal,
            E::Log(error) => log_kind(error),
            E::Meta(error) => meta_kind(error),
            E::Group(error) => error.kind(),
        }
    }
}

fn log_kind(error: &LogError) -> Kind {
    match error {
        LogError::WalPoisoned { .. }
        | LogError::WalClosed
        | LogError::DiskFull { .. }
        | LogError::Io { .. }
        | LogError::Store { .. } => Kind::Unavailable,
        LogError::WalSettings { .. } | LogError::FrameTooLarge { .. } | LogError::BatchTooLarge { .. } => Kind::Invalid,
        LogError::SegmentCrc { .. }
        | LogError::SegmentDamaged { .. }
        | LogError::SegmentVersion { .. }
        | LogError::Changed { .. }
        | LogError::NotFound { .. } => Kind::Corrupt,
        _ => Kind::Internal,
    }
}

fn meta_kind(error: &MetaError) -> Kind {
    match error {
        MetaError::Invalid { .. } => Kind::Invalid,
        MetaError::TooMany { .. } => Kind::Precondition,
        MetaError::NotFound { .. } => Kind::NotFound,
        MetaError::AlreadyExists { .. } => Kind::Exists,
        MetaError::Conflict { .. } | MetaError::SettingsChanged { .. } => Kind::Conflict,
        MetaError::Fenced { .. } | MetaError::WalDeleted { .. } => Kind::Fenced,
        MetaError::Corrupt { .. } => Kind::Corrupt,
        _ => Kind::Unavailable,
    }
}

/// Whether the agent had no room for the module.
fn is_of_agent(error: &ModuleError) -> bool {
    matches!(
        error,
        ModuleError::AgentMemory { .. } | ModuleError::AgentInstances { .. }
    )
}
