//! Opening a partition: its lease, what our WAL holds of it, its pointer and its pipeline.
//!
//! A partition that stepped down is opened again, with the next request or [without one](crate::reopening). Its tail was
//! acknowledged, and is in our WAL:
//! where the metadata still names that, the tail is taken up from memory beyond the committed end; where it names another
//! WAL, somebody else has led the partition, and what counts is there.

use std::sync::Arc;

use crate::{
    broker::Broker,
    error::{BrokerError, Result},
    partition::{LeftTail, Partition},
    pipeline::Pipeline,
    recovery::RecoveredPartition,
    topic::{LiveTopic, Place},
};

impl Broker {
    /// The partition, opened where it is not.
    pub(crate) async fn partition(&self, live: &LiveTopic, partition: u32) -> Result<Partition> {
        let place = live.place(partition)?;
        if let Some(open) = place.open() {
            return Ok(open);
        }
        let mut left = place.left.lock().await;
        if let Some(open) = place.open() {
            return Ok(open);
        }
        if self.is_stopping() {
            return Err(BrokerError::Stopping);
        }
        self.open_place(live, partition, &place, &mut left).await
    }

    /// Opens a partition that is not open; `left` is behind the lock of its place.
    pub(crate) async fn open_place(
        &self,
        live: &LiveTopic,
        partition: u32,
        place: &Place,
        left: &mut Option<LeftTail>,
    ) -> Result<Partition> {
        if let Some(closed) = place.seen() {
            place.keep(left, closed.left(&self.shared().budget).await);
            place.set(None);
        }
        self.pipeline_of(live).await?;
        // Held while the partition opens, so that a change of the pipeline comes before or after, never between.
        let pipeline = live.pipeline.read().await;
        let pipeline = pipeline.as_ref().expect("a pipeline once loaded stays loaded");
        if live.is_deleted() {
            let name = live.topic().name.clone();
            return Err(BrokerError::UnknownTopic { name });
        }
        let recovered = self.take(live, partition, place, left).await?;
        let opened = self.start_partition(live, place, recovered, pipeline.clone());
        // It counts with the partition from now on.
        *left = None;
        Ok(opened)
    }

    /// Takes the lease, and finds what is not in segments. Where it fails, `left` holds what our WAL holds all the same.
    async fn take(
        &self,
        live: &LiveTopic,
        partition: u32,
        place: &Place,
        left: &mut Option<LeftTail>,
    ) -> Result<RecoveredPartition> {
        let shared = self.shared();
        let (metadata, incarnation, topic_id) = (&shared.metadata, shared.incarnation, live.topic().id);
        // Else an agent whose log was sealed would seal that of the one who took over in its turn.
        shared.check_wal()?;
        let lease = metadata.acquire_lease(topic_id, partition, incarnation).await?;
        let batches = match (lease.wal, left.as_ref()) {
            (Some(wal), _) if wal != incarnation => {
                let copied = shared.recovery().one(lease.clone(), wal).await?;
                // The answer to the move of the pointer may get lost: then the next try finds it at our WAL, and this.
                place.keep(left, LeftTail::recovered(copied.batches.clone(), &shared.budget));
                copied.batches
            }
            (Some(wal), Some(left)) => left.beyond(lease.committed_end).map_err(|found| BrokerError::WalGap {
                wal,
                topic_id,
                partition,
                expected: lease.committed_end,
                found,
            })?,
            // Without a pointer everything is in segments. Pointed at our WAL without a tail nothing was ever appended.
            _ => Vec::new(),
        };
        // The pointer is set before the first frame is written: whoever comes next looks into our WAL.
        metadata.move_wal_pointer(&lease, incarnation).await?;
        Ok(RecoveredPartition { lease, batches })
    }

    pub(crate) fn start_partition(
        &self,
        live: &LiveTopic,
        place: &Place,
        recovered: RecoveredPartition,
        pipeline: Arc<Pipeline>,
    ) -> Partition {
        let RecoveredPartition { lease, batches } = recovered;
        let shared = self.shared();
        // What was committed by others, or before a step down, our WAL need not keep.
        let (topic_id, partition, end) = (lease.topic_id, lease.partition, lease.committed_end);
        shared.wal.committed(topic_id, partition, end);
        let started = Partition::start(shared.clone(), live.topic(), lease, batches, pipeline);
        place.set(Some(started.clone()));
        started
    }

    /// Starts the partitions whose batches recovery copied into our WAL. One whose pipeline cannot be loaded stays
    /// closed, with its batches kept: it opens once its modules can be loaded.
    pub(crate) async fn start_recovered(&self, recovered: Vec<RecoveredPartition>) -> Result<()> {
        let by_id: std::collections::HashMap<_, _> = self
            .live_topics()
            .into_iter()
            .map(|live| (live.topic().id, live))
            .collect();
        for recovered in recovered {
            let (topic_id, partition) = (recovered.lease.topic_id, recovered.lease.partition);
            let live = by_id
                .get(&topic_id)
                .expect("deleting a topic deletes its partitions and their pointers");
            let (epoch, batches) = (recovered.lease.epoch.0, recovered.batches.len());
            let topic = &live.topic().name;
            let place = live.place(partition)?;
            match self.pipeline_of(live).await {
                Ok(pipeline) => {
                    tracing::info!(topic, partition, epoch, batches, "recovered a partition");
                    self.start_partition(live, &place, recovered, pipeline);
                }
                Err(error) => {
                    tracing::error!(topic, partition, batches, %error, "a partition stays closed; its records are safe");
                    let left = LeftTail::recovered(recovered.batches, &self.shared().budget);
                    place.keep(&mut *place.left.lock().await, left);
                }
            }
        }
        Ok(())
    }

    /// The topic's pipeline, loaded where it is not yet.
    pub(crate) async fn pipeline_of(&self, live: &LiveTopic) -> Result<Arc<Pipeline>> {
        if let Some(pipeline) = live.pipeline.read().await.as_ref() {
            return Ok(pipeline.clone());
        }
        let mut slot = live.pipeline.write().await;
        if let Some(pipeline) = slot.as_ref() {
            return Ok(pipeline.clone());
        }
        let pipeline = match self.shared().metadata.pipeline(live.topic().id).await? {
            None => Pipeline::default(),
            Some(row) => {
                let spec = serde_json::from_str(&row.stages_json);
                let spec = spec.map_err(|source| BrokerError::StoredForm {
                    what: "pipeline",
                    source,
                })?;
                self.module_store().load(row.version, spec).await?
            }
        };
        Ok(slot.insert(Arc::new(pipeline)).clone())
    }
}
