//! `ConsumerService`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use millstream_batch::{Batch, Offset, RecordIter, RecordView};
use millstream_broker::{BrokerError, FetchQuery, Fetched, Room};
use millstream_proto::v1;
use tonic::{Request, Response, Status};

use super::{Api, stage::stage_spec, status::status, stopping};

const FETCH_BYTES_DEFAULT: u32 = 1 << 20;
const FETCH_BYTES_MAX: u32 = 16 << 20;
const WAIT_MS_MAX: u32 = 30_000;
/// Plain records take more memory than as they are stored: an answer of them may take so many times what was asked for.
const PLAIN_FACTOR: usize = 4;
/// Little is rounded up to this, so that a small batch is never split.
const PLAIN_BYTES_LEAST: usize = 1 << 20;
/// Bound on the uncompressed records of one batch.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

#[tonic::async_trait]
impl v1::consumer_service_server::ConsumerService for Api {
    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        let request = request.into_inner();
        let format = request.format();
        let offset = Offset(request.offset);
        let bytes_max = match request.max_bytes {
            0 => FETCH_BYTES_DEFAULT,
            asked => asked.min(FETCH_BYTES_MAX),
        } as usize;
        let query = FetchQuery {
            topic: request.topic,
            partition: request.partition,
            offset,
            bytes_max,
            bytes_min: request.min_bytes as usize,
            wait: Duration::from_millis(u64::from(request.max_wait_ms.min(WAIT_MS_MAX))),
            stage: request.stage.map(stage_spec).transpose()?,
        };
        let fetched = self.fetch_or_stop(query).await.map_err(status)?;
        let (response, room) = respond(fetched, format, offset, bytes_max).await.map_err(status)?;
        let mut response = Response::new(response);
        // `charged` holds it until the answer is out.
        response.extensions_mut().insert(room);
        Ok(response)
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let request = request.into_inner();
        let (log_start, high_watermark) = self
            .broker
            .offsets(&request.topic, request.partition)
            .await
            .map_err(status)?;
        let offset_at = match request.timestamp_ms {
            None => None,
            Some(ms) => self
                .broker
                .offset_at(&request.topic, request.partition, ms)
                .await
                .map_err(status)?,
        };
        Ok(Response::new(v1::ListOffsetsResponse {
            log_start_offset: log_start.0,
            high_watermark: high_watermark.0,
            offset_at: offset_at.map(|offset| offset.0),
        }))
    }
}

impl Api {
    /// A fetch that waits is answered with what there is as soon as the agent begins to stop.
    async fn fetch_or_stop(&self, query: FetchQuery) -> Result<Fetched, BrokerError> {
        if query.wait.is_zero() {
            return self.broker.fetch(query).await;
        }
        let at_once = FetchQuery {
            wait: Duration::ZERO,
            ..query.clone()
        };
        tokio::select! {
            fetched = self.broker.fetch(query) => fetched,
            () = stopping(self.stop.clone()) => self.broker.fetch(at_once).await,
        }
    }
}

async fn respond(
    fetched: Fetched,
    format: v1::FetchFormat,
    from: Offset,
    bytes_max: usize,
) -> Result<(v1::FetchResponse, Room), BrokerError> {
    let mut room = fetched.room;
    let mut response = v1::FetchResponse {
        batches: Bytes::new(),
        records: Vec::new(),
        next_offset: fetched.next_offset.0,
        high_watermark: fetched.high_watermark.0,
        log_start_offset: fetched.log_start.0,
    };
    match format {
        v1::FetchFormat::Unspecified | v1::FetchFormat::Batches => response.batches = join(&fetched.batches),
        v1::FetchFormat::Records if fetched.batches.is_empty() => {}
        v1::FetchFormat::Records => {
            let mut plain = PlainRecords::new(bytes_max);
            // What is stored compressed takes more once it is not.
            room = room.exchange(plain.bytes_max).await?;
            for batch in &fetched.batches {
                // A small batch may hold many bytes: what has no room is left for the next request.
                let left = plain.add(batch, from)?;
                if left.is_some() || plain.bytes >= bytes_max {
                    response.next_offset = left.unwrap_or_else(|| batch.next_offset()).0;
                    break;
                }
            }
            room.shrink(plain.bytes);
            response.records = plain.records;
        }
    }
    Ok((response, room))
}

fn join(batches: &[Batch]) -> Bytes {
    let mut joined = BytesMut::with_capacity(batches.iter().map(Batch::encoded_len).sum());
    batches.iter().for_each(|batch| batch.encode_into(&mut joined));
    joined.freeze()
}

/// Records out of their batches, one at least and no more than have room.
struct PlainRecords {
    records: Vec<v1::Record>,
    /// Memory that they take, which is more than they take in a message.
    bytes: usize,
    bytes_max: usize,
}

impl PlainRecords {
    fn new(bytes_max: usize) -> PlainRecords {
        PlainRecords {
            records: Vec::new(),
            bytes: 0,
            bytes_max: bytes_max.max(PLAIN_BYTES_LEAST) * PLAIN_FACTOR,
        }
    }

    /// Adds the batch's records at or beyond `from`; tells the first one that has no room, where there is one.
    fn add(&mut self, batch: &Batch, from: Offset) -> Result<Option<Offset>, BrokerError> {
        let encoded = batch
            .decompressed(DECOMPRESSED_BYTES_MAX)
            .map_err(BrokerError::StoredBatch)?;
        for record in RecordIter::new(&encoded) {
            let record = record?;
            let offset = batch.base_offset() + u64::from(record.offset_delta.unsigned_abs());
            if offset < from {
                continue;
            }
            let bytes = self.bytes.saturating_add(memory(&record));
            if bytes > self.bytes_max && !self.records.is_empty() {
                return Ok(Some(offset));
            }
            self.bytes = bytes;
            self.records.push(plain(&record, batch, offset, &encoded));
        }
        Ok(None)
    }
}

/// Bytes of a record in memory, with its content.
fn memory(record: &RecordView<'_>) -> usize {
    let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let header = |(key, value): (&str, _)| size_of::<v1::Header>() + key.len() + len(value);
    let headers: usize = record.headers().map(header).sum();
    size_of::<v1::Record>() + len(record.key) + len(record.value) + headers
}

fn plain(record: &RecordView<'_>, batch: &Batch, offset: Offset, encoded: &Bytes) -> v1::Record {
    v1::Record {
        key: record.key.map(|key| encoded.slice_ref(key)),
        value: record.value.map(|value| encoded.slice_ref(value)),
        headers: record
            .headers()
            .map(|(key, value)| v1::Header {
                key: key.to_owned(),
                value: value.map(|value| encoded.slice_ref(value)),
            })
            .collect(),
        timestamp_ms: Some(batch.header().timestamp_ms(record.timestamp_delta)),
        offset: offset.0,
    }
}

#[cfg(test)]
mod tests {
    use millstream_batch::{BatchBuilder, Compression};

    use super::*;

    fn batch(records: usize, value: &[u8], headers: usize) -> Batch {
        let mut builder = BatchBuilder::new();
        for _ in 0..records {
            builder.push(0, None, Some(value), (0..headers).map(|_| ("", None)));
        }
        builder.build(Compression::Zstd)
    }

    /// How many records each request gets until the batch is read.
    fn read(batch: &Batch, bytes_max: usize) -> Vec<usize> {
        let (mut from, mut counts, mut next) = (Offset(0), Vec::new(), 0);
        loop {
            let mut plain = PlainRecords::new(bytes_max);
            let left = plain.add(batch, from).unwrap();
            for record in &plain.records {
                assert_eq!(record.offset, next);
                next += 1;
            }
            counts.push(plain.records.len());
            match left {
                Some(left) => from = left,
                None => return counts,
            }
        }
    }

    #[test]
    fn a_batch_that_holds_far_more_than_was_asked_for_is_read_in_pieces() {
        let batch = batch(60, &vec![0; 1_000_000], 0);
        assert!(batch.encoded_len() < 100_000);
        assert!(read(&batch, 1).iter().all(|count| *count == 4));
        assert_eq!(read(&batch, 16 << 20), [60]);
    }

    #[test]
    fn a_record_larger_than_its_bound_comes_alone() {
        assert_eq!(read(&batch(3, &vec![0; 6 << 20], 0), 1), [1, 1, 1]);
        assert_eq!(read(&batch(2, b"", 100_000), 1), [1, 1]);
    }

    #[test]
    fn a_small_batch_is_whole_however_little_was_asked_for() {
        assert_eq!(read(&batch(1_000, &[0; 1_000], 2), 1), [1_000]);
    }
}
