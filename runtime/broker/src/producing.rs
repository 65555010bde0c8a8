//! The way in for producers.

use bytes::Bytes;
use millstream_batch::{Batch, Limits};
use tokio::time::Instant;

use crate::{
    broker::Broker,
    error::{BrokerError, Result},
    partition::{Acks, Held, Partition, Receipt, StreamOrder, Submitted},
};

impl Broker {
    /// Appends one encoded batch. The buffer behind `encoded` stays in memory as long as the tail holds the batch, so it
    /// should hold little else.
    pub async fn produce(
        &self,
        topic: &str,
        partition: u32,
        encoded: Bytes,
        acks: impl Into<Option<Acks>>,
    ) -> Result<Receipt> {
        let (begun, acks, bytes) = (Instant::now(), acks.into(), encoded.len());
        let produced = async {
            let (partition, batch, acks) = self.admit(topic, partition, encoded, acks).await?;
            partition.submit(batch, acks, None, None).await?.await
        };
        let result = produced.await;
        self.shared().measures.produced(begun, acks, bytes, &result);
        result
    }

    /// The same in two steps: this one returns once the batch has its place in the partition's queue, behind those that were
    /// submitted before. Behind one that has to be tried again none of the same `order` is stored. `held` is dropped once the
    /// batch is answered.
    pub async fn submit(
        &self,
        topic: &str,
        partition: u32,
        encoded: Bytes,
        acks: Option<Acks>,
        order: &StreamOrder,
        held: Held,
    ) -> Result<Submitted> {
        let (begun, bytes) = (Instant::now(), encoded.len());
        let submitted = async {
            order.check()?;
            let (partition, batch, acks) = self.admit(topic, partition, encoded, acks).await?;
            partition.submit(batch, acks, Some(order.clone()), Some(held)).await
        };
        let measures = self.shared().measures.clone();
        match submitted.await {
            Ok(submitted) => Ok(submitted.told(move |result| measures.produced(begun, acks, bytes, result))),
            Err(error) => {
                order.heed(&error);
                let refused = Err(error);
                measures.produced(begun, acks, bytes, &refused);
                Err(refused.expect_err("it was refused just now"))
            }
        }
    }

    /// The door: everything about a batch from outside is checked here, once.
    async fn admit(
        &self,
        topic: &str,
        partition: u32,
        encoded: Bytes,
        acks: Option<Acks>,
    ) -> Result<(Partition, Batch, Acks)> {
        self.shared().lease_time.check()?;
        let live = self.live(topic).await?;
        let (bytes, bytes_max) = (encoded.len(), self.shared().budget.bytes_max());
        if bytes > bytes_max {
            return Err(BrokerError::BatchAboveTail { bytes, bytes_max });
        }
        let (record_bytes_max, acks) = {
            let config = &live.topic().config;
            let acks = acks.unwrap_or(config.default_acks);
            (config.record_bytes_max as usize, acks)
        };
        let limits = Limits {
            record_bytes_max,
            ..Limits::default()
        };
        let batch = Batch::validate(encoded, &limits)?;
        Ok((self.partition(&live, partition).await?, batch, acks))
    }
}
