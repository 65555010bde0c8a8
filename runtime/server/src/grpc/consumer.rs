//! `ConsumerService`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use millstream_batch::{Batch, Offset, RecordIter};
use millstream_broker::{BrokerError, FetchQuery, Fetched};
use millstream_proto::v1;
use tonic::{Request, Response, Status};

use super::{Api, status::status, stopping};

const FETCH_BYTES_DEFAULT: u32 = 1 << 20;
const FETCH_BYTES_MAX: u32 = 16 << 20;
const WAIT_MS_MAX: u32 = 30_000;
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
        };
        let fetched = self.fetch_or_stop(query).await.map_err(status)?;
        let room = fetched.room.clone();
        let mut response = Response::new(respond(fetched, format, offset, bytes_max).map_err(status)?);
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

fn respond(
    fetched: Fetched,
    format: v1::FetchFormat,
    from: Offset,
    bytes_max: usize,
) -> Result<v1::FetchResponse, BrokerError> {
    let mut response = v1::FetchResponse {
        batches: Bytes::new(),
        records: Vec::new(),
        next_offset: fetched.next_offset.0,
        high_watermark: fetched.high_watermark.0,
        log_start_offset: fetched.log_start.0,
    };
    match format {
        v1::FetchFormat::Unspecified | v1::FetchFormat::Batches => response.batches = join(&fetched.batches),
        v1::FetchFormat::Records => {
            let mut bytes = 0;
            for batch in &fetched.batches {
                bytes += decode(batch, from, &mut response.records)?;
                // A small batch may hold many bytes: what does not fit any more is left for the next request.
                if bytes >= bytes_max {
                    response.next_offset = batch.next_offset().0;
                    break;
                }
            }
        }
    }
    Ok(response)
}

fn join(batches: &[Batch]) -> Bytes {
    let mut joined = BytesMut::with_capacity(batches.iter().map(Batch::encoded_len).sum());
    batches.iter().for_each(|batch| batch.encode_into(&mut joined));
    joined.freeze()
}

/// Adds the batch's records at or beyond `from`; returns the bytes of all of them.
fn decode(batch: &Batch, from: Offset, records: &mut Vec<v1::Record>) -> Result<usize, BrokerError> {
    let encoded = batch
        .decompressed(DECOMPRESSED_BYTES_MAX)
        .map_err(BrokerError::StoredBatch)?;
    for record in RecordIter::new(&encoded) {
        let record = record?;
        let offset = batch.base_offset() + u64::from(record.offset_delta.unsigned_abs());
        if offset < from {
            continue;
        }
        records.push(v1::Record {
            key: record.key.map(|key| encoded.slice_ref(key)),
            value: record.value.map(|value| encoded.slice_ref(value)),
            headers: record
                .headers()
                .map(|(key, value)| v1::Header {
                    key: key.to_owned(),
                    value: value.map(|value| encoded.slice_ref(value)),
                })
                .collect(),
            timestamp_ms: Some(batch.header().base_timestamp_ms.wrapping_add(record.timestamp_delta)),
            offset: offset.0,
        });
    }
    Ok(encoded.len())
}
