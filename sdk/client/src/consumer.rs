//! The consumer: reads one partition from an offset on and moves over whatever a fetch pipeline left out.

use std::time::Duration;

use bytes::Bytes;
use millstream_batch::{Batch, RecordIter, RecordView};
use millstream_proto::v1::{self, consumer_service_client::ConsumerServiceClient};
use tonic::{Code, transport::Channel};

use crate::{ClientError, Connection};

/// Bound on one batch's records once decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// How often a fetch is sent whose answer finds no room at the agent; each time the agent waits for some.
const TRIES_MAX: usize = 6;
/// Bounds on the pause before it is sent again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

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

/// How a consumer fetches.
#[derive(Clone, Debug)]
pub struct ConsumerSettings {
    /// Encoded bytes of one fetch; at least one whole batch always comes. 16 MiB at most.
    pub max_bytes: u32,
    /// Encoded bytes that one fetch waits for; 0 means one record.
    pub min_bytes: u32,
    /// How long one fetch waits for them; 30 s at most.
    pub max_wait: Duration,
    /// A module that the records go through for this consumer alone, after the topic's fetch pipeline; version 0 is its
    /// current one. On an error it may halt (the default), skip the record or pass it.
    pub stage: Option<v1::Stage>,
}

impl Default for ConsumerSettings {
    fn default() -> ConsumerSettings {
        ConsumerSettings {
            max_bytes: 1 << 20,
            min_bytes: 0,
            max_wait: Duration::from_millis(500),
            stage: None,
        }
    }
}

/// A record as it was read. Key, value and header values are slices of the fetched bytes and keep them alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition.
    pub offset: u64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// Headers in order; a key may repeat.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// Reads one partition of a topic.
#[derive(Debug)]
pub struct Consumer {
    connection: Connection,
    client: ConsumerServiceClient<Channel>,
    topic: String,
    partition: u32,
    settings: ConsumerSettings,
    next_offset: u64,
    log_start_offset: u64,
    high_watermark: u64,
}

impl Consumer {
    /// A consumer that begins at `start`.
    ///
    /// # Errors
    /// What `ListOffsets` answers, and [`ClientError::OutOfRange`] for an offset that cannot be read.
    pub async fn open(
        connection: &Connection,
        topic: &str,
        partition: u32,
        start: Start,
        settings: ConsumerSettings,
    ) -> Result<Consumer, ClientError> {
        let mut client = connection.consumer();
        let request = v1::ListOffsetsRequest {
            topic: topic.to_owned(),
            partition,
            timestamp_ms: match start {
                Start::Timestamp(ms) => Some(ms),
                _ => None,
            },
        };
        let answer = client
            .list_offsets(request)
            .await
            .map_err(|status| connection.error(status))?;
        let v1::ListOffsetsResponse {
            log_start_offset,
            high_watermark,
            offset_at,
        } = answer.into_inner();

        let topic = topic.to_owned();
        let next_offset = match start {
            Start::Earliest => log_start_offset,
            Start::Latest => high_watermark,
            Start::Timestamp(_) => offset_at.unwrap_or(high_watermark),
            Start::Offset(offset) if (log_start_offset..=high_watermark).contains(&offset) => offset,
            Start::Offset(offset) => {
                return Err(ClientError::OutOfRange {
                    topic,
                    partition,
                    offset,
                    log_start_offset,
                    high_watermark,
                });
            }
        };
        let connection = connection.clone();
        Ok(Consumer {
            connection,
            client,
            topic,
            partition,
            settings,
            next_offset,
            log_start_offset,
            high_watermark,
        })
    }

    /// The records of the next fetch, in order of offset. None where nothing came within the wait, or where a fetch
    /// pipeline left none of those it looked at; [`Consumer::next_offset`] tells one from the other.
    ///
    /// # Errors
    /// What `Fetch` answers, where a module halts among it, and [`ClientError::BadAnswer`] for batches that do not decode.
    pub async fn fetch(&mut self) -> Result<Vec<Record>, ClientError> {
        let request = v1::FetchRequest {
            partitions: vec![v1::FetchPartition {
                topic: self.topic.clone(),
                partition: self.partition,
                offset: self.next_offset,
            }],
            max_bytes: self.settings.max_bytes,
            max_wait_ms: u32::try_from(self.settings.max_wait.as_millis()).unwrap_or(u32::MAX),
            min_bytes: self.settings.min_bytes,
            format: v1::FetchFormat::Batches.into(),
            stage: self.settings.stage.clone(),
        };
        let answer = self.ask(request).await?;
        if answer.next_offset < self.next_offset {
            let (asked, told) = (self.next_offset, answer.next_offset);
            return Err(self.bad_answer(format!("asked from offset {asked} on, it says to go on at {told}")));
        }
        let records = decode(answer.batches, self.next_offset).map_err(|reason| self.bad_answer(reason))?;
        self.next_offset = answer.next_offset;
        self.log_start_offset = answer.log_start_offset;
        self.high_watermark = answer.high_watermark;
        Ok(records)
    }

    async fn ask(&mut self, request: v1::FetchRequest) -> Result<v1::FetchedPartition, ClientError> {
        let mut tries = 1;
        loop {
            let error = match self.client.fetch(request.clone()).await {
                Ok(answer) => match answer.into_inner().partitions.pop() {
                    None => return Err(self.bad_answer("it has no part for it".to_owned())),
                    Some(v1::FetchedPartition { error: Some(error), .. }) => ClientError::from_message(error),
                    Some(part) => return Ok(part),
                },
                Err(status) => self.connection.error(status),
            };
            match &error {
                ClientError::Refused {
                    code: Code::ResourceExhausted,
                    retry_after,
                    ..
                } if tries < TRIES_MAX => {
                    let pause = retry_after.unwrap_or_default().clamp(PAUSE_MIN, PAUSE_MAX);
                    tokio::time::sleep(pause).await;
                }
                _ => return Err(error),
            }
            tries += 1;
        }
    }

    /// The partition that is read.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Where the next fetch begins: beyond everything returned and everything that a fetch pipeline left out.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// First offset that could be read at the last answer.
    pub fn log_start_offset(&self) -> u64 {
        self.log_start_offset
    }

    /// One past the last offset that could be read at the last answer.
    pub fn high_watermark(&self) -> u64 {
        self.high_watermark
    }

    fn bad_answer(&self, reason: String) -> ClientError {
        let Consumer { topic, partition, .. } = self;
        ClientError::BadAnswer {
            reason: format!("partition {partition} of topic {topic:?}: {reason}"),
        }
    }
}

/// The records at or beyond `from`: the first batch may begin below it.
fn decode(mut batches: Bytes, from: u64) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    while !batches.is_empty() {
        let batch = Batch::split_first(&mut batches).map_err(|error| error.to_string())?;
        let bytes = batch
            .decompressed(DECOMPRESSED_BYTES_MAX)
            .map_err(|error| error.to_string())?;
        for view in RecordIter::new(&bytes) {
            let view = view.map_err(|error| format!("batch at offset {}: {error}", batch.base_offset()))?;
            let offset = batch
                .base_offset()
                .0
                .saturating_add_signed(i64::from(view.offset_delta));
            if offset >= from {
                let timestamp_ms = batch.header().timestamp_ms(view.timestamp_delta);
                records.push(owned(&bytes, &view, offset, timestamp_ms));
            }
        }
    }
    Ok(records)
}

fn owned(bytes: &Bytes, view: &RecordView<'_>, offset: u64, timestamp_ms: i64) -> Record {
    let slice = |part: &[u8]| bytes.slice_ref(part);
    Record {
        offset,
        timestamp_ms,
        key: view.key.map(slice),
        value: view.value.map(slice),
        headers: view
            .headers()
            .map(|(key, value)| (key.to_owned(), value.map(slice)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use millstream_batch::{BatchBuilder, Compression, Epoch, Offset};

    use super::*;

    fn batch(base_offset: u64, values: &[&str], compression: Compression) -> Bytes {
        let mut builder = BatchBuilder::new();
        for (i, value) in values.iter().enumerate() {
            let headers: [(&str, Option<&[u8]>); 2] = [("trace", Some(b"1")), ("trace", None)];
            builder.push(1_000 + i as i64, None, Some(value.as_bytes()), headers.into_iter());
        }
        let mut batch = builder.build(compression);
        batch.stamp(Offset(base_offset), Epoch(1));
        batch.to_bytes()
    }

    #[test]
    fn batches_back_to_back_decode_from_the_wanted_offset_on() {
        let bytes = [
            batch(10, &["a", "b", "c"], Compression::None),
            batch(20, &["d"], Compression::Lz4),
        ]
        .concat();

        let records = decode(bytes.into(), 11).unwrap();

        let found: Vec<_> = records
            .iter()
            .map(|record| {
                (
                    record.offset,
                    record.timestamp_ms,
                    record.value.as_deref().unwrap_or_default(),
                )
            })
            .collect();
        assert_eq!(found, [(11, 1_001, &b"b"[..]), (12, 1_002, b"c"), (20, 1_000, b"d")]);
        assert_eq!(records[0].key, None);
        let headers = [
            ("trace".to_owned(), Some(Bytes::from_static(b"1"))),
            ("trace".to_owned(), None),
        ];
        assert_eq!(records[0].headers, headers);
    }

    #[test]
    fn a_damaged_batch_is_an_error() {
        let mut bytes = batch(0, &["a"], Compression::None).to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(decode(bytes.into(), 0).is_err());
    }
}
