//! Stable words for errors, and the facts that programs look for in them.

use millstream_log::LogError;
use millstream_meta::MetaError;

use crate::error::{BrokerError, Kind};

impl BrokerError {
    /// A word for it in UPPER_SNAKE_CASE. Clients compare it, so it stays as it is whatever becomes of the message.
    pub fn reason(&self) -> &'static str {
        use BrokerError as E;
        match self {
            E::UnknownTopic { .. } => "TOPIC_UNKNOWN",
            E::UnknownPartition { .. } => "PARTITION_UNKNOWN",
            E::TopicExists { .. } => "TOPIC_EXISTS",
            E::InvalidName { .. } => "NAME_INVALID",
            E::InvalidPartitions { .. } | E::FewerPartitions { .. } => "PARTITIONS_INVALID",
            E::InvalidSetting { .. } => "SETTING_INVALID",
            E::Batch(_) => "BATCH_INVALID",
            E::BadProducer { .. } => "PRODUCER_INVALID",
            E::ProducerFenced { .. } => "PRODUCER_FENCED",
            E::ProducerUnknown { .. } => "PRODUCER_UNKNOWN",
            E::SequenceOutOfOrder { .. } => "SEQUENCE_OUT_OF_ORDER",
            E::SequenceForgotten { .. } => "SEQUENCE_FORGOTTEN",
            E::OffsetOutOfRange { .. } => "OFFSET_OUT_OF_RANGE",
            E::Rejected { .. } => "RECORDS_REJECTED",
            E::ModuleOnProduce { .. } | E::SearchEnded { .. } | E::ModuleOnFetch { .. } => "MODULE_FAILED",
            E::OutputTooLarge { .. } => "MODULE_OUTPUT_TOO_LARGE",
            E::Halted { .. } => "PARTITION_HALTED",
            E::Paused { .. } => "PIPELINE_PAUSED",
            E::BreakerOpen { .. } => "BREAKER_OPEN",
            E::DeadLetters { .. } | E::DeadLettersLate { .. } => "DEAD_LETTERS_FAILED",
            E::DeadLetterCircle { .. } => "DEAD_LETTER_CIRCLE",
            E::OnErrorOnFetch { .. } => "STAGE_INVALID",
            E::BadModule { .. } => "MODULE_REFUSED",
            E::FailsOnRecent { .. } => "MODULE_FAILS_ON_RECENT",
            E::TopicRefuses { source, .. } | E::FlushFailed { source, .. } => source.reason(),
            E::TrialRefused { .. } => "TRIAL_REFUSED",
            E::NoTrial { .. } => "TRIAL_UNKNOWN",
            E::AlreadyCurrent { .. } => "MODULE_ALREADY_CURRENT",
            E::NothingReplaced { .. } => "MODULE_NOTHING_REPLACED",
            E::UnknownModule { .. } => "MODULE_UNKNOWN",
            E::UnknownStage { .. } => "STAGE_UNKNOWN",
            E::TooManyStages { .. } => "STAGES_TOO_MANY",
            E::PipelineChanged { .. } => "PIPELINE_CHANGED",
            E::StageOnTrial { .. } => "STAGE_ON_TRIAL",
            E::StageChange { .. } | E::StageLimit { .. } | E::ParamsTooLarge { .. } => "STAGE_INVALID",
            E::NearName { unknown, .. } => unknown.reason(),
            E::TailFull { .. } => "TAIL_FULL",
            E::StoreOwned { .. } => "STORE_OWNED",
            E::AnswersFull { .. } => "ANSWERS_FULL",
            E::BatchAboveTail { .. } => "BATCH_TOO_LARGE",
            E::PartitionClosed { .. } => "PARTITION_CLOSED",
            E::StreamBroken => "STREAM_BROKEN",
            E::AppendFailed { .. } => "APPEND_FAILED",
            E::Stopping => "AGENT_STOPPING",
            E::AgentFailed { .. } => "AGENT_FAILED",
            E::NameTaken { .. } => "AGENT_NAME_TAKEN",
            E::LeaseLapsed { .. } => "LEASE_LAPSED",
            E::LedElsewhere { .. } => "LED_ELSEWHERE",
            E::WalOfAnotherAgent { .. } | E::WalElsewhere { .. } => "WAL_ELSEWHERE",
            E::MissingSegment { .. }
            | E::WalGap { .. }
            | E::NotesDamaged { .. }
            | E::StoredBatch(_)
            | E::StoredRecords(_)
            | E::StoredProducers { .. }
            | E::StoredForm { .. } => "DATA_DAMAGED",
            E::RebuildGaps { .. } | E::RebuildLogs { .. } => "REBUILD_INCOMPLETE",
            E::RebuildDisturbed => "REBUILD_DISTURBED",
            E::Panicked { .. } => "DEFECT",
            E::Group(error) => error.reason(),
            E::Log(error) => log_reason(error, self.kind()),
            E::Meta(error) => meta_reason(error, self.kind()),
        }
    }

    /// What programs look for in it, by name. Not everything that the message says.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        use BrokerError as E;
        match self {
            E::UnknownTopic { name } | E::TopicExists { name } => vec![("topic", name.clone())],
            E::UnknownModule { name } => vec![("module", name.clone())],
            E::UnknownPartition { topic, partition, last } => {
                let mut facts = at(topic, *partition);
                facts.push(("last_partition", last.to_string()));
                facts
            }
            E::InvalidSetting { name, value, allowed } => vec![
                ("setting", (*name).to_owned()),
                ("value", value.clone()),
                ("allowed", (*allowed).to_owned()),
            ],
            E::OffsetOutOfRange {
                topic,
                partition,
                offset,
                start,
                end,
            } => {
                let mut facts = at(topic, *partition);
                facts.push(("offset", offset.to_string()));
                facts.push(("log_start_offset", start.to_string()));
                facts.push(("high_watermark", end.to_string()));
                facts
            }
            E::ProducerFenced {
                topic,
                partition,
                current,
                ..
            } => {
                let mut facts = at(topic, *partition);
                facts.push(("current_epoch", current.to_string()));
                facts
            }
            E::SequenceOutOfOrder {
                topic,
                partition,
                expected,
                ..
            } => {
                let mut facts = at(topic, *partition);
                facts.push(("expected_sequence", expected.to_string()));
                facts
            }
            E::Rejected { module, version, .. }
            | E::ModuleOnProduce { module, version, .. }
            | E::SearchEnded { module, version, .. }
            | E::OutputTooLarge { module, version, .. } => of(module, *version),
            E::ModuleOnFetch {
                module,
                version,
                offset,
                ..
            } => {
                let mut facts = of(module, *version);
                facts.push(("offset", offset.to_string()));
                facts
            }
            E::Halted {
                topic,
                partition,
                module,
                version,
                ..
            }
            | E::BreakerOpen {
                topic,
                partition,
                module,
                version,
                ..
            } => [at(topic, *partition), of(module, *version)].concat(),
            E::PartitionClosed { topic, partition, .. } => at(topic, *partition),
            E::Paused { topic, side } => vec![("topic", topic.clone()), ("side", (*side).to_owned())],
            E::LedElsewhere {
                topic,
                partition,
                agent,
                address,
            }
            | E::WalOfAnotherAgent {
                topic,
                partition,
                agent,
                address,
                ..
            } => {
                let mut facts = at(topic, *partition);
                facts.push(("agent", agent.clone()));
                facts.push(("address", address.clone()));
                facts
            }
            E::BatchAboveTail { bytes_max, .. } | E::TailFull { bytes_max, .. } | E::AnswersFull { bytes_max } => {
                vec![("bytes_max", bytes_max.to_string())]
            }
            E::NearName { unknown, nearest } => {
                let mut facts = unknown.facts();
                facts.push(("nearest", nearest.clone()));
                facts
            }
            E::TopicRefuses { source, .. } | E::FlushFailed { source, .. } | E::DeadLetters { source, .. } => {
                source.facts()
            }
            E::Group(error) => error.facts(),
            _ => Vec::new(),
        }
    }

    /// After how many milliseconds the same may be tried again; `None` where that does not help.
    pub fn retry_after_ms(&self) -> Option<u32> {
        match (self, self.kind()) {
            (BrokerError::BreakerOpen { retry_in_ms, .. }, _) => Some(u32::try_from(*retry_in_ms).unwrap_or(u32::MAX)),
            (BrokerError::WalOfAnotherAgent { .. } | BrokerError::WalElsewhere { .. }, _) => Some(RETRY_SLOWLY_MS),
            // On another stream, at once.
            (BrokerError::StreamBroken, _) => Some(0),
            (_, Kind::Exhausted) => Some(RETRY_EXHAUSTED_MS),
            (_, Kind::Unavailable | Kind::Fenced) => Some(RETRY_UNAVAILABLE_MS),
            _ => None,
        }
    }
}

/// How long to wait where a bound is met: about as long as a segment takes to be stored.
const RETRY_EXHAUSTED_MS: u32 = 500;
/// Where a partition moves or an agent starts.
const RETRY_UNAVAILABLE_MS: u32 = 250;
/// Where somebody has to start an agent first.
const RETRY_SLOWLY_MS: u32 = 5_000;

fn at(topic: &str, partition: u32) -> Vec<(&'static str, String)> {
    vec![("topic", topic.to_owned()), ("partition", partition.to_string())]
}

fn of(module: &str, version: u32) -> Vec<(&'static str, String)> {
    vec![("module", module.to_owned()), ("version", version.to_string())]
}

fn log_reason(error: &LogError, kind: Kind) -> &'static str {
    match (error, kind) {
        (LogError::DiskFull { .. }, _) => "DISK_FULL",
        (LogError::Store { .. }, _) => "STORE_UNAVAILABLE",
        (LogError::WalPoisoned { .. } | LogError::WalClosed, _) => "WAL_CLOSED",
        (LogError::FrameTooLarge { .. } | LogError::BatchTooLarge { .. }, _) => "BATCH_TOO_LARGE",
        (_, Kind::Unavailable) => "STORAGE_UNAVAILABLE",
        (_, Kind::Invalid) => "SETTING_INVALID",
        (_, Kind::Corrupt) => "DATA_DAMAGED",
        _ => "DEFECT",
    }
}

fn meta_reason(error: &MetaError, kind: Kind) -> &'static str {
    match (error, kind) {
        (MetaError::LeaseHeld { .. }, _) => "LED_ELSEWHERE",
        (MetaError::WalElsewhere { .. }, _) => "WAL_ELSEWHERE",
        (MetaError::TooMany { .. }, _) => "TOO_MANY",
        (_, Kind::Invalid) => "ARGUMENT_INVALID",
        (_, Kind::NotFound) => "NOT_FOUND",
        (_, Kind::Exists) => "EXISTS",
        (_, Kind::Conflict) => "CHANGED_MEANWHILE",
        (_, Kind::Fenced) => "FENCED",
        (_, Kind::Corrupt) => "METADATA_DAMAGED",
        _ => "METADATA_UNAVAILABLE",
    }
}

#[cfg(test)]
mod tests {
    use millstream_batch::Offset;

    use super::*;

    #[test]
    fn what_another_agent_leads_says_where() {
        let error = BrokerError::LedElsewhere {
            topic: "t".to_owned(),
            partition: 3,
            agent: "b".to_owned(),
            address: "host:7070".to_owned(),
        };
        assert_eq!(error.reason(), "LED_ELSEWHERE");
        let facts = error.facts();
        assert!(facts.contains(&("address", "host:7070".to_owned())) && facts.contains(&("partition", "3".to_owned())));
        assert_eq!(error.retry_after_ms(), Some(RETRY_UNAVAILABLE_MS));
    }

    #[test]
    fn an_error_that_wraps_another_has_the_reason_of_that() {
        let unknown = BrokerError::UnknownTopic { name: "a".to_owned() };
        let error = BrokerError::NearName {
            unknown: Box::new(unknown),
            nearest: "b".to_owned(),
        };
        assert_eq!(error.reason(), "TOPIC_UNKNOWN");
        assert_eq!(error.facts(), [("topic", "a".to_owned()), ("nearest", "b".to_owned())]);
        assert_eq!(error.retry_after_ms(), None);
    }

    #[test]
    fn a_breaker_says_when_it_lets_something_through() {
        let error = BrokerError::BreakerOpen {
            topic: "t".to_owned(),
            partition: 0,
            side: "produce",
            module: "m".to_owned(),
            version: 1,
            retry_in_ms: 1_234,
            cause: String::new(),
        };
        assert_eq!((error.reason(), error.retry_after_ms()), ("BREAKER_OPEN", Some(1_234)));
        let beyond = BrokerError::OffsetOutOfRange {
            topic: "t".to_owned(),
            partition: 0,
            offset: Offset(9),
            start: Offset(1),
            end: Offset(5),
        };
        assert!(beyond.facts().contains(&("high_watermark", "5".to_owned())));
    }
}
