//! The broker's errors: what happened, with its facts. [`BrokerError::kind`] is what callers act on; the message is for people.

use millstream_batch::{BatchError, Offset, RecordError};
use millstream_log::LogError;
use millstream_meta::MetaError;
use millstream_wasm::ModuleError;

use crate::groups::GroupError;
use crate::rejected::{first_reasons, summary};
pub use crate::{kind::Kind, rejected::RejectedRecord};

/// The broker's result.
pub type Result<T, E = BrokerError> = std::result::Result<T, E>;

/// Whatever can go wrong in the broker.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BrokerError {
    #[error("there is no topic {name:?}; `millstream topic list` shows those that exist")]
    UnknownTopic { name: String },
    #[error("topic {topic:?} has partitions 0 to {last}, not {partition}")]
    UnknownPartition { topic: String, partition: u32, last: u32 },
    #[error("topic {name:?} exists already")]
    TopicExists { name: String },
    #[error("{name:?} is no {what} name: {reason}; allowed are {allowed}")]
    InvalidName {
        what: &'static str,
        name: String,
        reason: String,
        allowed: &'static str,
    },
    #[error("a topic has 1 to 100,000 partitions, not {partitions}")]
    InvalidPartitions { partitions: u32 },
    #[error("{name} is {value}; allowed are {allowed}")]
    InvalidSetting {
        name: &'static str,
        value: String,
        allowed: &'static str,
    },
    #[error(
        "topic {topic:?} has {partitions} partitions, not {asked}: more can be added, up to 100,000, and none is ever \
         taken away"
    )]
    FewerPartitions { topic: String, partitions: u32, asked: u32 },
    #[error("the batch is refused: {0}")]
    Batch(#[from] BatchError),
    #[error(
        "partition {partition} of {topic:?}: producer {id} of epoch {epoch} is fenced off, it was started again with epoch {current}: this one has to end"
    )]
    ProducerFenced {
        topic: String,
        partition: u32,
        id: i64,
        epoch: i16,
        current: i16,
    },
    #[error(
        "partition {partition} of {topic:?} knows nothing of producer {id}, whose first batch has to have sequence 0: begin a new epoch with InitProducer"
    )]
    ProducerUnknown { topic: String, partition: u32, id: i64 },
    #[error(
        "partition {partition} of {topic:?}: producer {id} sends sequence {found} where {expected} is next: send what lies between first, or begin a new epoch with InitProducer"
    )]
    SequenceOutOfOrder {
        topic: String,
        partition: u32,
        id: i64,
        expected: i32,
        found: i32,
    },
    #[error(
        "partition {partition} of {topic:?}: producer {id} has sent sequences {first} to {last} before, but what became of that batch is not kept any more: only the last five are"
    )]
    SequenceForgotten {
        topic: String,
        partition: u32,
        id: i64,
        first: i32,
        last: i32,
    },
    #[error("producer {id} of epoch {epoch}: {reason}")]
    BadProducer { id: i64, epoch: i32, reason: &'static str },
    #[error("offset {offset} is out of range: partition {partition} of {topic:?} holds {start} up to {end}")]
    OffsetOutOfRange {
        topic: String,
        partition: u32,
        offset: Offset,
        start: Offset,
        end: Offset,
    },
    #[error("{}: {}", summary(module, *version, *count, rejects), first_reasons(rejects))]
    Rejected {
        module: String,
        version: u32,
        count: u32,
        rejects: Vec<RejectedRecord>,
    },
    #[error("module {module}@{version} failed, nothing was stored: {source}")]
    ModuleOnProduce {
        module: String,
        version: u32,
        source: ModuleError,
    },
    #[error(
        "module {module}@{version} failed, nothing was stored. The stage's policy is to skip, but the search for the records \
         at fault ended before all were decided (at {records_max} of them, or after {cpu_ms} ms of CPU). Send smaller batches, \
         or let the stage dead-letter them, or mend the module. What happened around record {index}: {source}"
    )]
    SearchEnded {
        module: String,
        version: u32,
        records_max: u32,
        cpu_ms: u64,
        index: u32,
        source: ModuleError,
    },
    #[error("module {module}@{version} failed on fetch at offset {offset}: {source}")]
    ModuleOnFetch {
        module: String,
        version: u32,
        offset: Offset,
        source: ModuleError,
    },
    #[error("module {module}@{version} made a batch of {bytes} bytes; the limit is {bytes_max}, nothing was stored")]
    OutputTooLarge {
        module: String,
        version: u32,
        bytes: usize,
        bytes_max: usize,
    },
    #[error(
        "partition {partition} of {topic:?} takes no records: module {module}@{version} halted it: {cause}. Mend what is \
         wrong, then `millstream pipeline resume {topic}`"
    )]
    Halted {
        topic: String,
        partition: u32,
        module: String,
        version: u32,
        cause: String,
    },
    #[error("the {side} side of {topic:?} is paused; `millstream pipeline resume {topic}` lets it go on")]
    Paused { topic: String, side: &'static str },
    #[error(
        "module {module}@{version} failed too often on the {side} side of partition {partition} of {topic:?} and is left \
         alone; it is tried again in {retry_in_ms} ms. Its last failure: {cause}"
    )]
    BreakerOpen {
        topic: String,
        partition: u32,
        side: &'static str,
        module: String,
        version: u32,
        retry_in_ms: u64,
        cause: String,
    },
    #[error("nothing was stored, because records could not be written to the dead-letter topic {topic:?}: {source}")]
    DeadLetters { topic: String, source: Box<BrokerError> },
    #[error("it did not take them within {seconds} s")]
    DeadLettersLate { seconds: u64 },
    #[error(
        "dead letters would go round in a circle: {}. Name another topic with --dead-letter",
        topics.join(" -> ")
    )]
    DeadLetterCircle { topics: Vec<String> },
    #[error("on fetch a stage cannot {on_error} a record; it can halt, skip or pass")]
    OnErrorOnFetch { on_error: &'static str },
    #[error("{module} is refused: {source}")]
    BadModule { module: String, source: ModuleError },
    #[error(
        "module {module}@{version} fails on {failed} of {count} recent records of the topic{}{}{}: {source}. `--no-trial` \
         leaves this test out",
        if *displaced { " in the order that the stages would have" } else { "" },
        before.map(|before| format!(" that version {before} gets through")).unwrap_or_default(),
        if *undecided > 0 { format!(", the search ended before {undecided} more") } else { String::new() }
    )]
    FailsOnRecent {
        module: String,
        version: u32,
        failed: u64,
        undecided: u64,
        count: u32,
        before: Option<u32>,
        displaced: bool,
        source: ModuleError,
    },
    #[error(
        "no topic has switched, because topic {topic:?} cannot: {source}{}",
        kept.as_ref().map(|kept| format!(". {kept} is kept, not current")).unwrap_or_default()
    )]
    TopicRefuses {
        topic: String,
        kept: Option<String>,
        source: Box<BrokerError>,
    },
    #[error("{module} cannot be tried: {reason}")]
    TrialRefused { module: String, reason: String },
    #[error("no single version of module {module} is being tried; deploy one with --canary or --shadow first")]
    NoTrial { module: String },
    #[error("{module} is the current version already")]
    AlreadyCurrent { module: String },
    #[error("{module} replaced no other version; name the one to go back to with --to")]
    NothingReplaced { module: String },
    #[error("there is no module {name}; `millstream module list` shows those that are deployed")]
    UnknownModule { name: String },
    #[error("the {side} pipeline of {topic:?} has {count} stages; there is none at position {position}")]
    UnknownStage {
        topic: String,
        side: &'static str,
        count: usize,
        position: u32,
    },
    #[error("the {side} pipeline of {topic:?} has {count} stages already, which is the most")]
    TooManyStages {
        topic: String,
        side: &'static str,
        count: usize,
    },
    #[error(
        "the pipeline of {topic:?} is at version {found}, not {expected}: somebody has changed it, and nothing was done. \
         `millstream pipeline show {topic}` shows it as it is now"
    )]
    PipelineChanged { topic: String, expected: u64, found: u64 },
    #[error(
        "the version of this stage stays while {module}@{trial} is tried beside {module}@{version}: end that first, with \
         `millstream module promote {module}` or `millstream module rollback {module}`"
    )]
    StageOnTrial { module: String, version: u32, trial: u32 },
    #[error("a change of this stage is refused: {reason}")]
    StageChange { reason: String },
    #[error("{unknown}. Did you mean {nearest}?")]
    NearName { unknown: Box<BrokerError>, nearest: String },
    #[error("a stage with {name} {value} is refused; allowed are {least} to {most}")]
    StageLimit {
        name: &'static str,
        value: u64,
        least: u64,
        most: u64,
    },
    #[error(
        "a stage of module {module} with parameters of {bytes} bytes, names and values together, is refused; allowed are \
         {bytes_max}"
    )]
    ParamsTooLarge {
        module: String,
        bytes: usize,
        bytes_max: usize,
    },
    #[error("{bytes} bytes wait to be uploaded, the bound is {bytes_max}: slow down and try again")]
    TailFull { bytes: usize, bytes_max: usize },
    #[error("the object store belongs to another database ({owner}, this one is {database}): {advice}")]
    StoreOwned {
        owner: String,
        database: String,
        advice: &'static str,
    },
    #[error("answers that are not read yet hold all of the {bytes_max} bytes for them: read those, and try again")]
    AnswersFull { bytes_max: usize },
    #[error(
        "a batch of {bytes} bytes can never be taken, all that waits to be uploaded has to stay below {bytes_max}: \
         send smaller batches"
    )]
    BatchAboveTail { bytes: usize, bytes_max: usize },
    #[error("partition {partition} of {topic:?} could not be flushed, {others} others neither: {source}")]
    FlushFailed {
        topic: String,
        partition: u32,
        others: usize,
        source: Box<BrokerError>,
    },
    #[error("partition {partition} of {topic:?} takes no requests: {reason}")]
    PartitionClosed {
        topic: String,
        partition: u32,
        reason: String,
    },
    #[error(
        "a batch before this one on the same stream has to be tried again first, so nothing of this one was stored: send both \
         on another stream"
    )]
    StreamBroken,
    #[error("the batch is not acknowledged: {reason}")]
    AppendFailed { reason: String },
    #[error("partition {partition} of {topic:?} has no segment for offset {offset}, though it was committed")]
    MissingSegment {
        topic: String,
        partition: u32,
        offset: Offset,
    },
    #[error(
        "offsets are missing in {} places, and nothing was written. {}. Bring back the objects that are lost; or keep what \
         lies below the first gap of a partition with `--on-gap keep-front`, or what lies beyond its last one with \
         `--on-gap keep-back`. `--dry-run` lists all",
        gaps.len(),
        gaps.first().map(ToString::to_string).unwrap_or_default()
    )]
    RebuildGaps { gaps: Vec<crate::rebuild::PartitionGap> },
    #[error(
        "{} write-ahead logs are damaged, and nothing was written. {}. Bring them back from a copy; or go on without them, \
         and lose what only they hold, with `--on-gap keep-front` or `--on-gap keep-back`. `--dry-run` lists all",
        damages.len(),
        damages.first().map(ToString::to_string).unwrap_or_default()
    )]
    RebuildLogs { damages: Vec<crate::rebuild::Damage> },
    #[error(
        "an agent wrote to its write-ahead log meanwhile, and nothing was rebuilt: stop all agents, then rebuild again"
    )]
    RebuildDisturbed,
    #[error("the agent is stopping")]
    Stopping,
    #[error("the agent ends and has to be started again: {reason}")]
    AgentFailed { reason: String },
    #[error(
        "an agent named {agent} is running at {address}, or was until just now, with another data folder: give this one \
         a name of its own (agent_name)"
    )]
    NameTaken { agent: String, address: String },
    #[error(
        "the lease ran out: the metadata database has not answered for {silent_s} s, so another agent may take over. Nothing is \
         acknowledged until it does; nothing acknowledged is lost, and it goes on by itself"
    )]
    LeaseLapsed { silent_s: u64 },
    #[error("partition {partition} of {topic:?} is led by agent {agent:?} at {address}: ask there")]
    LedElsewhere {
        topic: String,
        partition: u32,
        agent: String,
        address: String,
    },
    #[error(
        "partition {partition} of {topic:?} has acknowledged records in write-ahead log {wal} on the disk of agent {agent:?} at \
         {address}: start that agent again, with its data directory"
    )]
    WalOfAnotherAgent {
        topic: String,
        partition: u32,
        wal: uuid::Uuid,
        agent: String,
        address: String,
    },
    #[error(
        "partition {partition} of topic {topic_id} has acknowledged records in write-ahead log {wal}, which is not here; \
         start the agent with the data directory that holds it"
    )]
    WalElsewhere {
        topic_id: uuid::Uuid,
        partition: u32,
        wal: uuid::Uuid,
    },
    #[error(
        "write-ahead log {wal}: partition {partition} of topic {topic_id} has no frame for offset {expected}, the next one begins at {found}"
    )]
    WalGap {
        wal: uuid::Uuid,
        topic_id: uuid::Uuid,
        partition: u32,
        expected: Offset,
        found: Offset,
    },
    #[error("segment {key}: the pipeline versions of its records are damaged, so it is not merged")]
    NotesDamaged { key: String },
    #[error("a stored batch is damaged: {0}")]
    StoredBatch(BatchError),
    #[error("stored records are damaged: {0}")]
    StoredRecords(#[from] RecordError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error(transparent)]
    Group(#[from] GroupError),
    #[error("{what} panicked; this is a defect")]
    Panicked { what: &'static str },
    #[error("what the metadata have of the producers of partition {topic_id}/{partition} cannot be read: {reason}")]
    StoredProducers {
        topic_id: uuid::Uuid,
        partition: u32,
        reason: String,
    },
    #[error("the stored {what} cannot be read: {source}")]
    StoredForm {
        what: &'static str,
        source: serde_json::Error,
    },
}

impl BrokerError {
    /// Whether the partition is another agent's: nothing is wrong, here is nothing to do.
    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(
            self,
            BrokerError::LedElsewhere { .. } | BrokerError::WalOfAnotherAgent { .. }
        )
    }
}
