//! `ProducerService`. Plain records are encoded here, so that the broker knows one form only.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use millstream_batch::{BatchBuilder, Compression};
use millstream_broker::{Acks, Receipt, StreamOrder};
use millstream_proto::v1::{self, produce_request::Payload};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Api,
    charged::charged,
    compression::charge_decompressed,
    enums::acks,
    init_producer,
    produce_stream::ProduceStream,
    status::{Refusal, status},
};

/// Batches below this size are copied; the buffer of a larger one holds little else.
const COPIED_BYTES_MAX: usize = 64 << 10;

#[tonic::async_trait]
impl v1::producer_service_server::ProducerService for Api {
    type ProduceStreamStream = BoxStream<'static, Result<v1::ProduceStreamResponse, Status>>;

    async fn produce(&self, request: Request<v1::ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        charge_decompressed(&request)?;
        let (charge, _) = charged(&request);
        let Wanted {
            topic,
            partition,
            batch,
            acks,
        } = Wanted::of(request.into_inner())?;
        // A caller that goes away leaves its batch in the partition's queue, and it stays charged there.
        let order = StreamOrder::default();
        let submitted = self.broker.submit(&topic, partition, batch, acks, &order, charge).await;
        let receipt = self.told(submitted).await?.await.map_err(status)?;
        Ok(Response::new(produced_message(receipt)))
    }

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        Ok(Response::new(ProduceStream::new(self, request).boxed()))
    }

    async fn init_producer(
        &self,
        request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        init_producer::init(self, request.into_inner()).await.map(Response::new)
    }
}

/// What a request wants, in the broker's one form.
pub(super) struct Wanted {
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) batch: Bytes,
    /// The topic's default where the request does not say.
    pub(super) acks: Option<Acks>,
}

impl Wanted {
    pub(super) fn of(request: v1::ProduceRequest) -> Result<Wanted, Refusal> {
        let acks = acks(request.acks, "acks")?;
        let batch = match request.payload {
            Some(Payload::Batch(batch)) => with_own_memory(batch),
            Some(Payload::Records(list)) if !list.records.is_empty() => encode(&list.records),
            Some(Payload::Records(_)) => return Err(Refusal::missing("records; a batch has one at least")),
            None => return Err(Refusal::missing("payload; send `batch` or `records`")),
        };
        Ok(Wanted {
            topic: request.topic,
            partition: request.partition,
            batch,
            acks,
        })
    }
}

/// What became of a batch.
pub(super) fn produced_message(receipt: Receipt) -> v1::ProduceResponse {
    v1::ProduceResponse {
        base_offset: receipt.base_offset.0,
        record_count: receipt.record_count,
        changed_count: receipt.changed_count,
        dropped_count: receipt.dropped_count,
        pipeline_version: receipt.pipeline_version,
        append_time_ms: receipt.append_time_ms,
        results: receipt.results.as_ref().map(init_producer::results).unwrap_or_default(),
        duplicate: receipt.duplicate,
    }
}

/// A message is decoded out of a buffer of several KiB, and a batch is a part of that: a small one would keep all of it for
/// as long as the tail holds the batch, which counts the batch alone.
fn with_own_memory(batch: Bytes) -> Bytes {
    if batch.len() < COPIED_BYTES_MAX {
        Bytes::copy_from_slice(&batch)
    } else {
        batch
    }
}

fn encode(records: &[v1::Record]) -> Bytes {
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64);
    let mut builder = BatchBuilder::new();
    for record in records {
        let headers = record
            .headers
            .iter()
            .map(|header| (header.key.as_str(), header.value.as_deref()));
        builder.push(
            record.timestamp_ms.unwrap_or(now_ms),
            record.key.as_deref(),
            record.value.as_deref(),
            headers,
        );
    }
    builder.build(Compression::None).to_bytes()
}
