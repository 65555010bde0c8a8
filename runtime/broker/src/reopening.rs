//! Opening again what closed by itself. A partition that stepped down, or whose modules could not be loaded, holds records
//! that only an open partition makes segments of: it must not wait for a request that may never come.
//!
//! Nobody who leads a partition meanwhile is disturbed: opened is what no other log than ours may hold the rest of, and what
//! we began to take over and nobody else holds. What another incarnation holds instead gives its memory and its room in our
//! log back.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{StreamExt, stream};
use millstream_meta::MetaError;
use uuid::Uuid;

use crate::{
    broker::Broker,
    error::{BrokerError, Result},
    partition::Partition,
    topic::{LiveTopic, Place},
};

/// Between two tries.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Topics whose partitions are opened at once.
const TOPICS_AT_ONCE: usize = 8;

/// A partition that is closed and may hold records.
struct Shut {
    number: u32,
    place: Arc<Place>,
    /// Where it was open before.
    was: Option<Partition>,
}

/// Runs until the broker stops or is gone.
pub(crate) async fn run(broker: Weak<Broker>) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        match broker.upgrade() {
            Some(broker) if !broker.is_stopping() => broker.reopen_closed(false).await,
            _ => return,
        };
    }
}

impl Broker {
    /// Opens what is closed and may hold records, as far as it can be opened; what is open then of it.
    pub(crate) async fn reopen_closed(&self, for_stop: bool) -> Vec<Partition> {
        let topics = self.live_topics().into_iter();
        let shut: Vec<_> = topics
            .map(|live| (live.clone(), shut_of(&live)))
            .filter(|(_, shut)| !shut.is_empty())
            .collect();
        // With a log that failed nothing can be opened, and the process ends.
        if shut.is_empty() || self.shared().check_failure().is_err() {
            return Vec::new();
        }
        // Looked at after the partitions had closed: a pointer that left us since then was moved by somebody else.
        let pointed = match self.shared().metadata.pointed_partitions().await {
            Ok(pointed) => pointed,
            Err(error) => {
                tracing::warn!(%error, "closed partitions cannot be opened again now");
                return Vec::new();
            }
        };
        let pointers = pointed.iter().map(|one| ((one.topic_id, one.partition), one.wal));
        let pointers: HashMap<_, _> = pointers.collect();
        let reopened = stream::iter(shut)
            .map(|(live, shut)| self.reopen_topic(live, shut, &pointers, for_stop))
            .buffer_unordered(TOPICS_AT_ONCE);
        reopened.concat().await
    }

    /// One partition that fails keeps none of the others from it; the first one is told of.
    async fn reopen_topic(
        &self,
        live: Arc<LiveTopic>,
        shut: Vec<Shut>,
        pointers: &HashMap<(Uuid, u32), Uuid>,
        for_stop: bool,
    ) -> Vec<Partition> {
        let topic = live.topic();
        let (mut opened, mut first, mut gone, closed) = (Vec::new(), None, false, shut.len());
        for shut in shut {
            let pointer = pointers.get(&(topic.id, shut.number)).copied();
            match self.reopen(&live, &shut, pointer, for_stop).await {
                Ok(partition) => opened.extend(partition),
                // Whoever leads it has all of it.
                Err(error) if error.is_elsewhere() => {}
                Err(error) => {
                    gone |= matches!(error, BrokerError::Meta(MetaError::NotFound { .. }));
                    first.get_or_insert((shut.number, error));
                    if live.pipeline.read().await.is_none() || self.catch_up(&live).await.is_err() {
                        // What keeps it from all its partitions is not looked for again and again.
                        break;
                    }
                }
            }
        }
        if let Some((partition, error)) = first {
            tracing::warn!(topic = topic.name, partition, closed, %error,
                "a closed partition cannot be opened; its records are safe");
        }
        if gone && let Err(error) = self.take_up(&topic.name).await {
            tracing::warn!(topic = topic.name, %error, "whether another agent has deleted the topic is not known");
        }
        opened
    }

    async fn reopen(
        &self,
        live: &LiveTopic,
        shut: &Shut,
        pointer: Option<Uuid>,
        for_stop: bool,
    ) -> Result<Option<Partition>> {
        let place = &shut.place;
        let mut left = place.left.lock().await;
        if let Some(open) = place.open() {
            return Ok(Some(open));
        }
        let seen = place.seen();
        if (seen.is_none() && left.is_none()) || self.is_stopping() != for_stop {
            return Ok(None);
        }
        let ours = pointer == Some(self.shared().incarnation);
        match (seen, &shut.was) {
            // It has not been tried to open since, so no move of the pointer to us is on its way: what counts is in
            // segments or in another log, and whoever asks for the partition finds it there.
            (Some(closed), Some(was)) if !ours && closed.is_same(was) => {
                drop(closed.left(&self.shared().budget).await);
                place.set(None);
                self.shared().wal.give_up(live.topic().id, shut.number);
                Ok(None)
            }
            // It closed again after the pointers were asked for. The next look decides.
            (Some(_), _) if !ours && pointer.is_some() => Ok(None),
            // A take-over from another log has left off.
            (None, _) if !ours && pointer.is_some() && self.is_anothers(live, shut.number).await? => {
                *left = None;
                self.shared().wal.give_up(live.topic().id, shut.number);
                Ok(None)
            }
            _ => Ok(Some(self.open_place(live, shut.number, place, &mut left).await?)),
        }
    }

    /// Whether another incarnation holds the partition, and its pointer names another log than ours. Then its epoch is greater
    /// than any of ours: a move of the pointer to us that is still on its way is refused when it comes.
    async fn is_anothers(&self, live: &LiveTopic, partition: u32) -> Result<bool> {
        let incarnation = self.shared().incarnation;
        let row = self.shared().metadata.partition(live.topic().id, partition).await?;
        Ok(row.is_some_and(|row| {
            let held = row.holder.is_some_and(|holder| holder.incarnation != incarnation);
            held && row.wal != Some(incarnation)
        }))
    }
}

/// What of the topic is closed, or just being opened.
fn shut_of(live: &LiveTopic) -> Vec<Shut> {
    let places = live.all_places().into_iter();
    let shut = places.filter_map(|(number, place)| {
        if place.open().is_some() {
            return None;
        }
        let was = place.seen();
        // One that was stopped holds nothing, and its lease is about to be given back.
        if was.as_ref().is_some_and(Partition::is_stopped) {
            return None;
        }
        let holds = was.is_some() || place.left.try_lock().map_or(true, |left| left.is_some());
        holds.then_some(Shut { number, place, was })
    });
    shut.collect()
}
