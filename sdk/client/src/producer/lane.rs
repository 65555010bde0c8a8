//! One partition's way to the agent: batches leave in order, one request at a time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use millstream_proto::v1::{self, produce_request::Payload, producer_service_client::ProducerServiceClient};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::{Code, transport::Channel};

use super::ledger::{Ledger, Sequences};
use crate::{ClientError, Connection};

/// Waits between tries while the agent asks to slow down: each twice the one before, and never shorter than the agent
/// asks for.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// All waits for one batch together, longer than an object store is usually away; then its refusal is told.
const RETRY_TOTAL: Duration = Duration::from_secs(300);

/// An encoded batch on its way, with the records it holds and its share of the buffer.
#[derive(Debug)]
pub(super) struct SealedBatch {
    pub(super) bytes: Bytes,
    pub(super) sequences: Sequences,
    pub(super) permit: OwnedSemaphorePermit,
}

/// The task of one partition.
pub(super) struct Lane {
    connection: Connection,
    client: ProducerServiceClient<Channel>,
    topic: Arc<str>,
    partition: u32,
    acks: v1::Acks,
    ledger: Ledger,
}

impl Lane {
    pub(super) fn new(
        connection: &Connection,
        topic: &Arc<str>,
        partition: u32,
        acks: v1::Acks,
        ledger: &Ledger,
    ) -> Lane {
        Lane {
            client: connection.producer(),
            connection: connection.clone(),
            topic: Arc::clone(topic),
            partition,
            acks,
            ledger: ledger.clone(),
        }
    }

    /// Sends every batch of the queue. After a failure, of this lane or of another, the rest is discarded.
    pub(super) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<SealedBatch>) {
        while let Some(SealedBatch {
            bytes,
            sequences,
            permit,
        }) = queue.recv().await
        {
            if self.ledger.failed() {
                self.ledger.discarded(&sequences);
                continue;
            }
            let answer = self.produce(bytes).await;
            // Room first: whoever waits for the ledger may want to send again.
            drop(permit);
            match answer {
                Ok(answer) => self.ledger.acknowledged(&sequences, &answer),
                Err(error) => self.ledger.failed_with(&sequences, error),
            }
        }
    }

    /// One batch, sent again only where the agent said that nothing of it was applied.
    async fn produce(&mut self, batch: Bytes) -> Result<v1::ProduceResponse, ClientError> {
        let mut backoff = RETRY_FIRST;
        let mut waited = Duration::ZERO;
        loop {
            let request = v1::ProduceRequest {
                topic: self.topic.to_string(),
                partition: self.partition,
                payload: Some(Payload::Batch(batch.clone())),
                acks: self.acks.into(),
            };
            let error = match self.client.produce(request).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => self.connection.error(status),
            };
            let ClientError::Refused {
                code: Code::ResourceExhausted,
                retry_after,
                ..
            } = &error
            else {
                return Err(error);
            };
            if waited >= RETRY_TOTAL || self.ledger.failed() {
                return Err(error);
            }
            let wait = retry_after.unwrap_or_default().clamp(backoff, RETRY_MAX);
            tokio::time::sleep(wait).await;
            waited += wait;
            backoff = (backoff * 2).min(RETRY_MAX);
        }
    }
}
