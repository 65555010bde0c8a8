//! Opening a partition: its lease, what our WAL holds of it, its pointer and its pipeline.
//!
//! A partition that stepped down is opened again, with the next request or [without one](crate::reopening). Its tail was
//! acknowledged, and is in our WAL:
//! where the metadata still names that, the tail is taken up from memory beyond the committed end; where it names another
//! WAL, somebody else has led the partition, and what counts is there.

use std::{sync::Arc, time::Duration};

use millstream_meta::{Lease, MetaError, PipelineRow};
use tokio::sync::SemaphorePermit;
use uuid::Uuid;

use crate::{
    broker::Broker,
    error::{BrokerError, Result},
    failure::SUPERSEDED,
    partition::{LeftTail, Partition, Producers},
    pipeline::Pipeline,
    recovery::{Recovered, RecoveredPartition, checkpoint},
    topic::{LiveTopic, Place},
};

/// How long it is believed that another agent leads a partition.
const ELSEWHERE_MAX: Duration = Duration::from_millis(200);

impl Broker {
    /// The partition, opened where it is not.
    pub(crate) async fn partition(&self, live: &LiveTopic, partition: u32) -> Result<Partition> {
        let place = match live.place(partition) {
            Ok(place) => place,
            Err(unknown) => {
                self.look_for_more(live).await.ok_or(unknown)?;
                live.place(partition)?
            }
        };
        if let Some(open) = place.open() {
            return Ok(open);
        }
        if let Some(found) = place.led_elsewhere() {
            return Err(led_elsewhere(live, partition, found.agent, found.address));
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
        // Whoever cannot run its modules, as they are now, takes nothing: another agent may be able to.
        self.pipeline_of(live).await?;
        self.catch_up(live).await?;
        check_not_deleted(live)?;
        let (recovered, from) = self.take(live, partition, place, left).await?;
        let producers = self.producers_of(&recovered).await?;
        // Held while the partition starts, so that a change of the pipeline comes before or after, never between.
        let pipeline = live.pipeline.read().await;
        let pipeline = pipeline.as_ref().expect("a pipeline once loaded stays loaded");
        check_not_deleted(live)?;
        let opened = self.start_partition(live, place, recovered, producers, pipeline.clone());
        // It counts with the partition from now on.
        *left = None;
        if let Some(from) = from {
            self.take_over_rest(from);
        }
        Ok(opened)
    }

    /// Takes the lease, and finds what is not in segments; from another log than ours where that is the answer too. Where it
    /// fails, `left` holds what our WAL holds all the same.
    async fn take(
        &self,
        live: &LiveTopic,
        partition: u32,
        place: &Place,
        left: &mut Option<LeftTail>,
    ) -> Result<(RecoveredPartition, Option<Uuid>)> {
        let shared = self.shared();
        let (metadata, incarnation, topic_id) = (&shared.metadata, shared.incarnation, live.topic().id);
        // Else an agent whose log was sealed would seal that of the one who took over in its turn.
        shared.check_failure()?;
        if shared.lease_time.is_settling() {
            self.leave_to_holder(live, partition).await?;
        }
        let turn = self.opening_turn().await;
        // Where the answer is lost the next try gets a still greater epoch.
        let lease = metadata.acquire_lease(topic_id, partition, incarnation).await;
        let lease = lease.map_err(|error| self.refused(live, partition, place, error))?;
        // What follows may take long: loading modules, reading a log.
        drop(turn);
        // Nobody else can have run a newer one from here on.
        self.catch_up(live).await?;
        let (batches, producers) = match (lease.wal, left.as_ref()) {
            (Some(wal), _) if wal != incarnation => {
                // Whoever asks may go away in the midst of it: what our WAL has by then is found to be of no use, or is used.
                let is_new = left.is_none();
                if is_new {
                    place.keep(left, LeftTail::recovered(Vec::new(), None, &shared.budget));
                }
                let copied = shared.recovery().one(lease.clone(), wal).await;
                if is_new && copied.is_err() {
                    *left = None;
                }
                let copied = copied?;
                // The answer to the move of the pointer may get lost: then the next try finds it at our WAL, and this.
                let (batches, producers) = (copied.batches, copied.producers);
                place.keep(
                    left,
                    LeftTail::recovered(batches.clone(), producers.clone(), &shared.budget),
                );
                (batches, producers)
            }
            (Some(wal), Some(left)) => {
                let batches = left.beyond(lease.committed_end).map_err(|found| BrokerError::WalGap {
                    wal,
                    topic_id,
                    partition,
                    expected: lease.committed_end,
                    found,
                })?;
                (batches, left.producers())
            }
            // Without a pointer everything is in segments. Pointed at our WAL without a tail nothing was ever appended.
            _ => Default::default(),
        };
        let from = lease.wal.filter(|wal| *wal != incarnation);
        self.point_here(live, place, &lease).await?;
        Ok((
            RecoveredPartition {
                lease,
                batches,
                producers,
            },
            from,
        ))
    }

    /// The partition's idempotent producers up to the end of its tail.
    pub(crate) async fn producers_of(&self, recovered: &RecoveredPartition) -> Result<Producers> {
        if let Some(producers) = &recovered.producers {
            return Ok(producers.clone());
        }
        let lease = &recovered.lease;
        let known = self
            .shared()
            .metadata
            .partition_producers(std::slice::from_ref(lease))
            .await?;
        let checkpoint = checkpoint(lease, known.into_iter().next().flatten())?;
        Ok(Producers::restored(checkpoint, Vec::new()))
    }

    /// Lets the partition's pointer name our WAL. That is so before the first frame is written: whoever comes next looks there.
    pub(crate) async fn point_here(&self, live: &LiveTopic, place: &Place, lease: &Lease) -> Result<()> {
        let _turn = self.opening_turn().await;
        let moved = self
            .shared()
            .metadata
            .move_wal_pointer(lease, self.shared().incarnation)
            .await;
        moved.map_err(|error| self.refused(live, lease.partition, place, error))
    }

    /// Waits until there are few enough others that open a partition. Whoever has a turn waits for no lock on a place.
    async fn opening_turn(&self) -> SemaphorePermit<'_> {
        let turn = self.openings.acquire().await;
        turn.expect("nobody closes the semaphore")
    }

    /// Fails where another agent was the last one to hold the partition: its lease time ran out while the database was away
    /// for us too, and taking over would end it for nothing.
    async fn leave_to_holder(&self, live: &LiveTopic, partition: u32) -> Result<()> {
        let shared = self.shared();
        let row = shared.metadata.partition(live.topic().id, partition).await?;
        match row.and_then(|row| row.holder) {
            Some(holder) if holder.agent != shared.settings.agent_name => {
                Err(led_elsewhere(live, partition, holder.agent, holder.address))
            }
            _ => Ok(()),
        }
    }

    /// What it means that the metadata gives no lease, or moves no pointer.
    fn refused(&self, live: &LiveTopic, partition: u32, place: &Place, error: MetaError) -> BrokerError {
        match error {
            MetaError::LeaseHeld {
                agent,
                address,
                expires_in_ms,
                ..
            } => {
                // Whoever asks here again and again asks the database now and then.
                let lasts = Duration::from_millis(expires_in_ms);
                place.set_elsewhere(&agent, &address, lasts.min(ELSEWHERE_MAX));
                led_elsewhere(live, partition, agent, address)
            }
            MetaError::WalElsewhere {
                wal, agent, address, ..
            } => BrokerError::WalOfAnotherAgent {
                topic: live.topic().name.clone(),
                partition,
                wal,
                agent,
                address,
            },
            // Our lease time was over for so long that others took our log for a dead one's. Nothing is lost: no pointer named
            // it. But no partition can ever name it again.
            MetaError::WalDeleted { wal } if wal == self.shared().incarnation => {
                self.fail("its write-ahead log was given up by other agents while its lease time was over")
            }
            MetaError::Superseded { .. } => self.fail(SUPERSEDED),
            error => error.into(),
        }
    }

    fn fail(&self, reason: &str) -> BrokerError {
        self.shared().failure.fail(reason.to_owned());
        let reason = reason.to_owned();
        BrokerError::AgentFailed { reason }
    }

    pub(crate) fn start_partition(
        &self,
        live: &LiveTopic,
        place: &Place,
        recovered: RecoveredPartition,
        producers: Producers,
        pipeline: Arc<Pipeline>,
    ) -> Partition {
        let RecoveredPartition { lease, batches, .. } = recovered;
        let shared = self.shared();
        // What was committed by others, or before a step down, our WAL need not keep.
        let (topic_id, partition, end) = (lease.topic_id, lease.partition, lease.committed_end);
        shared.wal.committed(topic_id, partition, end);
        let started = Partition::start(
            shared.clone(),
            live.topic(),
            lease,
            batches,
            pipeline,
            live.sample.clone(),
            producers,
        );
        place.set(Some(started.clone()));
        started
    }

    /// Starts the partitions whose batches recovery copied into our WAL. One whose pipeline cannot be loaded stays
    /// closed, with its batches kept: it opens once its modules can be loaded.
    pub(crate) async fn start_recovered(&self, recovered: Recovered) -> Result<()> {
        let by_id: std::collections::HashMap<_, _> = self
            .live_topics()
            .into_iter()
            .map(|live| (live.topic().id, live))
            .collect();
        for RecoveredPartition {
            lease,
            batches,
            producers,
        } in recovered.lost
        {
            let (topic_id, partition) = (lease.topic_id, lease.partition);
            tracing::info!(%topic_id, partition, "another agent was quicker");
            // Reopening finds out who needs them.
            if let Some(live) = by_id
                .get(&topic_id)
                .filter(|_| !batches.is_empty() || producers.as_ref().is_some_and(|known| !known.is_empty()))
            {
                let place = live.place(partition)?;
                let left = LeftTail::recovered(batches, producers, &self.shared().budget);
                place.keep(&mut *place.left.lock().await, left);
            }
        }
        for recovered in recovered.held {
            let (topic_id, partition) = (recovered.lease.topic_id, recovered.lease.partition);
            // Another agent may have deleted the topic since its lease was taken.
            let Some(live) = by_id.get(&topic_id) else { continue };
            let (epoch, batches) = (recovered.lease.epoch.0, recovered.batches.len());
            let topic = &live.topic().name;
            let place = live.place(partition)?;
            let ready = async { Ok((self.pipeline_of(live).await?, self.producers_of(&recovered).await?)) };
            match ready.await {
                Ok((pipeline, producers)) => {
                    tracing::info!(topic, partition, epoch, batches, "recovered a partition");
                    self.start_partition(live, &place, recovered, producers, pipeline);
                }
                Err::<_, BrokerError>(error) => {
                    tracing::error!(topic, partition, batches, %error, "a partition stays closed; its records are safe");
                    let RecoveredPartition { batches, producers, .. } = recovered;
                    let left = LeftTail::recovered(batches, producers, &self.shared().budget);
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
        let stored = self.shared().metadata.pipeline(live.topic().id).await?;
        let pipeline = self.load_pipeline(stored.as_ref()).await?;
        live.keep_pipeline(&mut slot, pipeline.clone());
        Ok(pipeline)
    }

    /// Switches to the topic's pipeline as the metadata has it now. Asked under a lease, it is no older than any that was run
    /// on the partition before.
    pub(crate) async fn catch_up(&self, live: &LiveTopic) -> Result<()> {
        match self.shared().metadata.pipeline(live.topic().id).await? {
            Some(stored) if Some(stored.version) > live.pipeline_version() => self.switch(live, &stored).await,
            _ => Ok(()),
        }
    }

    /// The topic's pipeline as the metadata has it now, switched to where it is another one; the one that is loaded while the
    /// database does not answer.
    pub(crate) async fn newest_pipeline(&self, live: &LiveTopic) -> Result<Arc<Pipeline>> {
        let loaded = self.pipeline_of(live).await?;
        match self.catch_up(live).await {
            Ok(()) => self.pipeline_of(live).await,
            Err(BrokerError::Meta(error)) => {
                tracing::warn!(topic = live.topic().name, %error, "whether the pipeline has changed is not known now");
                Ok(loaded)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn load_pipeline(&self, stored: Option<&PipelineRow>) -> Result<Arc<Pipeline>> {
        let Some(row) = stored else { return Ok(Arc::default()) };
        let spec = serde_json::from_str(&row.stages_json);
        let spec = spec.map_err(|source| BrokerError::StoredForm {
            what: "pipeline",
            source,
        })?;
        Ok(Arc::new(self.module_store().load(row.version, spec).await?))
    }
}

/// Fails for a topic that is gone.
fn check_not_deleted(live: &LiveTopic) -> Result<()> {
    if live.is_deleted() {
        let name = live.topic().name.clone();
        return Err(BrokerError::UnknownTopic { name });
    }
    Ok(())
}

fn led_elsewhere(live: &LiveTopic, partition: u32, agent: String, address: String) -> BrokerError {
    let topic = live.topic().name.clone();
    BrokerError::LedElsewhere {
        topic,
        partition,
        agent,
        address,
    }
}
