//! How a producer collects and sends.

use std::time::Duration;

use millstream_batch::Compression;
use millstream_proto::v1;

/// How a producer collects and sends.
#[derive(Clone, Debug)]
pub struct ProducerSettings {
    /// When the agent answers; unspecified means the topic's default.
    pub acks: v1::Acks,
    /// The partition for everything that names none; without one the key chooses.
    pub partition: Option<u32>,
    /// A batch is sent once it holds this many encoded bytes; 16 MiB at most.
    pub batch_bytes: usize,
    /// How long a batch that is not full waits for more records. With zero it is sent as soon as fewer batches of its
    /// partition are under way than may be, so that batches are the larger the more there is to send.
    pub linger: Duration,
    /// Bound on the encoded bytes that are held, from `send` until they are answered.
    pub buffer_bytes_max: usize,
    /// How batches are compressed on their way.
    pub compression: Compression,
    /// Batches of one partition that are under way at once; an idempotent producer has five at most.
    pub in_flight_max: usize,
    /// Whether the agent recognises what was sent before, so that it can be sent again without being stored twice. Without it
    /// only what the agent says it has not stored is sent again.
    pub idempotent: bool,
    /// A name that keeps two starts of one idempotent producer apart: the later one fences off the earlier. Empty: none.
    pub name: String,
    /// For how long a batch is tried again before its records fail.
    pub retry_for: Duration,
    /// For how long no agent need answer before what waits fails; `retry_for` bounds each batch besides.
    pub unreachable_for: Duration,
    /// How often to look whether the topic has more partitions. Records with a key go to other partitions from then on.
    pub partitions_max_age: Duration,
    /// Whether nothing more is sent behind the first record that fails.
    pub stop_at_failure: bool,
}

impl Default for ProducerSettings {
    fn default() -> ProducerSettings {
        ProducerSettings {
            acks: v1::Acks::Unspecified,
            partition: None,
            batch_bytes: 256 << 10,
            linger: Duration::ZERO,
            buffer_bytes_max: 32 << 20,
            compression: Compression::None,
            in_flight_max: IDEMPOTENT_IN_FLIGHT_MAX,
            idempotent: true,
            name: String::new(),
            // Longer than an object store is usually away.
            retry_for: Duration::from_secs(300),
            unreachable_for: Duration::from_secs(300),
            // As long as Kafka's clients keep metadata.
            partitions_max_age: Duration::from_secs(300),
            stop_at_failure: false,
        }
    }
}

/// So many batches of an idempotent producer an agent remembers of one partition.
const IDEMPOTENT_IN_FLIGHT_MAX: usize = 5;

impl ProducerSettings {
    pub(super) fn in_flight(&self) -> usize {
        match (self.idempotent, self.stop_at_failure) {
            (true, _) => self.in_flight_max.clamp(1, IDEMPOTENT_IN_FLIGHT_MAX),
            // What is behind a failed one would be stored.
            (false, true) => 1,
            (false, false) => self.in_flight_max.max(1),
        }
    }

    /// Bounded so that it fits a semaphore's permits.
    pub(super) fn buffer(&self) -> usize {
        self.buffer_bytes_max.clamp(1, 1 << 30)
    }
}
