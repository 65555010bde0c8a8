//! Taking over the rest of what an agent left.
//!
//! The first request for a partition of an agent that is gone seals that agent's log, which ends the agent whatever it still
//! does, and reads all of the log for the one partition. So the others whose pointers name the log are taken over right
//! behind it, with one more reading, before every one of them is asked for and reads it again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use millstream_meta::WalStream;
use tokio::sync::MutexGuard;
use uuid::Uuid;

use crate::{
    broker::{Broker, PARTITIONS_AT_ONCE},
    error::Result,
    partition::LeftTail,
    recovery::RecoveredPartition,
    topic::{LiveTopic, Place},
};

/// A partition that is to be taken over, with the lock on its place held.
struct Held<'a> {
    live: &'a Arc<LiveTopic>,
    place: &'a Arc<Place>,
    left: MutexGuard<'a, Option<LeftTail>>,
}

impl Broker {
    /// Takes over in the background what still points at a log of which a partition was taken over just now.
    pub(crate) fn take_over_rest(&self, wal: Uuid) {
        let Some(broker) = self.me.upgrade() else { return };
        if !self
            .takeovers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(wal)
        {
            return;
        }
        tokio::spawn(async move {
            if let Err(error) = broker.take_over_pointed(wal).await {
                tracing::warn!(%wal, %error, "what points at a log that was taken over follows as it is asked for");
            }
            let mut takeovers = broker.takeovers.lock().unwrap_or_else(PoisonError::into_inner);
            takeovers.remove(&wal);
        });
    }

    async fn take_over_pointed(&self, wal: Uuid) -> Result<()> {
        let metadata = &self.shared().metadata;
        let mut pointed = metadata.pointed_partitions().await?;
        pointed.retain(|pointed| pointed.wal == wal);
        let Some(first) = pointed.first() else { return Ok(()) };
        let stream = WalStream {
            id: wal,
            kind: first.kind,
            trim_floor: first.trim_floor,
        };
        // Its topics may all be another agent's making.
        self.take_up_all().await?;
        let topics = self.live_topics();
        let by_id: HashMap<Uuid, &Arc<LiveTopic>> = topics.iter().map(|live| (live.topic().id, live)).collect();
        let places = pointed.iter().filter_map(|pointed| {
            let live = *by_id.get(&pointed.topic_id)?;
            let place = live.place(pointed.partition).ok()?;
            Some(((pointed.topic_id, pointed.partition), (live, place)))
        });
        let places: BTreeMap<_, _> = places.collect();
        // Whoever opens one of them meanwhile is waited for, or waits. In one order, and nobody else holds two of these locks.
        let mut held = HashMap::with_capacity(places.len());
        for (id, (live, place)) in &places {
            let left = place.left.lock().await;
            held.insert(*id, Held { live, place, left });
        }
        if self.is_stopping() || self.shared().lease_time.is_settling() {
            return Ok(());
        }
        let copied = self.shared().recovery().copied(stream).await?;
        // Without its lock only the lease of a partition was taken: whoever opens it takes that again.
        let mut opens: Vec<BoxFuture<'_, ()>> = Vec::with_capacity(copied.len());
        for recovered in copied {
            if let Some(held) = held.remove(&(recovered.lease.topic_id, recovered.lease.partition)) {
                opens.push(self.open_copied(held, recovered).boxed());
            }
        }
        stream::iter(opens)
            .buffer_unordered(PARTITIONS_AT_ONCE)
            .collect::<()>()
            .await;
        Ok(())
    }

    async fn open_copied(&self, mut held: Held<'_>, recovered: RecoveredPartition) {
        let Held { live, place, left } = &mut held;
        if place.open().is_some() {
            return;
        }
        let (topic, partition) = (live.topic().name.clone(), recovered.lease.partition);
        let RecoveredPartition { batches, producers, .. } = &recovered;
        let kept = LeftTail::recovered(batches.clone(), producers.clone(), &self.shared().budget);
        match self.open_one_copied(live, place, recovered).await {
            Ok(()) => **left = None,
            Err(error) => {
                // The answer to the move of the pointer may have got lost: then our log is the one that counts.
                place.keep(left, kept);
                tracing::warn!(topic, partition, %error, "a partition was not taken over; its records are safe");
            }
        }
    }

    async fn open_one_copied(&self, live: &LiveTopic, place: &Place, recovered: RecoveredPartition) -> Result<()> {
        self.pipeline_of(live).await?;
        self.catch_up(live).await?;
        self.point_here(live, place, &recovered.lease).await?;
        let producers = self.producers_of(&recovered).await?;
        let pipeline = live.pipeline.read().await;
        let pipeline = pipeline.as_ref().expect("a pipeline once loaded stays loaded");
        if live.is_deleted() {
            return Ok(());
        }
        self.start_partition(live, place, recovered, producers, pipeline.clone());
        Ok(())
    }
}
