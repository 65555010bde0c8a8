//! How far each partition of a call is read, and which of them may have more.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use millstream_broker::{Broker, BrokerError, Offset};
use millstream_proto::v1::{self, start_position::Position};

use super::Refusal;

/// Partitions that one call may read.
const PARTITIONS_MAX: usize = 10_000;

/// Where to begin.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    Earliest,
    Latest,
    Offset(Offset),
    Timestamp(i64),
}

impl Start {
    pub(super) fn of(start: Option<v1::StartPosition>) -> Start {
        match start.and_then(|start| start.position) {
            None | Some(Position::Earliest(_)) => Start::Earliest,
            Some(Position::Latest(_)) => Start::Latest,
            Some(Position::Offset(offset)) => Start::Offset(Offset(offset)),
            Some(Position::TimestampMs(ms)) => Start::Timestamp(ms),
        }
    }

    /// The offset that it means now.
    pub(super) async fn resolve(self, broker: &Broker, topic: &str, partition: u32) -> Result<Offset, BrokerError> {
        if let Start::Offset(offset) = self {
            return Ok(offset);
        }
        let (log_start, high_watermark) = broker.offsets(topic, partition).await?;
        Ok(match self {
            Start::Earliest => log_start,
            Start::Timestamp(ms) => broker.offset_at(topic, partition, ms).await?.unwrap_or(high_watermark),
            _ => high_watermark,
        })
    }
}

/// One partition and how far it is read.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) topic: Arc<str>,
    pub(super) partition: u32,
    pub(super) start: Start,
    /// `None` until the start is resolved.
    pub(super) offset: Option<Offset>,
    /// Whether the client has been told where it begins.
    pub(super) announced: bool,
    /// Which assignment it is of: a later one of the same partition takes its place.
    assignment: u64,
}

/// All partitions of a call.
#[derive(Default)]
pub(super) struct Positions {
    /// The assignment in force, by topic and partition.
    assigned: HashMap<Arc<str>, HashMap<u32, u64>>,
    count: usize,
    assignments: u64,
    /// Those that may have something, in their turn.
    ready: VecDeque<Place>,
    /// Those that have nothing now; each resolves when that may have changed.
    waiting: FuturesUnordered<BoxFuture<'static, Place>>,
}

impl Positions {
    /// Reads a partition, or reads it from another position.
    pub(super) fn put(&mut self, topic: String, partition: u32, start: Start) -> Result<(), Refusal> {
        let topic = match self.assigned.get_key_value(topic.as_str()) {
            Some((known, _)) => known.clone(),
            None => Arc::from(topic),
        };
        self.assignments += 1;
        let of_topic = self.assigned.entry(topic.clone()).or_default();
        if of_topic.insert(partition, self.assignments).is_none() {
            self.count += 1;
        }
        if self.count > PARTITIONS_MAX {
            let message = format!("one call reads {PARTITIONS_MAX} partitions at most");
            return Err(Refusal::invalid("PARTITIONS_TOO_MANY", message));
        }
        // What there was of it has no turn any more.
        self.ready
            .retain(|place| !(place.topic == topic && place.partition == partition));
        self.ready.push_back(Place {
            topic,
            partition,
            start,
            offset: None,
            announced: false,
            assignment: self.assignments,
        });
        Ok(())
    }

    /// Reads a partition no longer.
    pub(super) fn remove(&mut self, topic: &str, partition: u32) {
        let Some(of_topic) = self.assigned.get_mut(topic) else {
            return;
        };
        if of_topic.remove(&partition).is_some() {
            self.count -= 1;
        }
        if of_topic.is_empty() {
            self.assigned.remove(topic);
        }
        self.ready
            .retain(|place| !(*place.topic == *topic && place.partition == partition));
    }

    /// The same for one whose reading has ended.
    pub(super) fn forget(&mut self, place: &Place) {
        if self.is_assigned(place) {
            self.remove(&place.topic, place.partition);
        }
    }

    /// Reads on from another position, which the client is told.
    pub(super) fn begin_again(&mut self, place: Place, start: Start) {
        self.back_to_ready(Place {
            start,
            offset: None,
            announced: false,
            ..place
        });
    }

    fn is_assigned(&self, place: &Place) -> bool {
        let of_topic = self.assigned.get(&place.topic);
        of_topic.and_then(|of| of.get(&place.partition)) == Some(&place.assignment)
    }

    /// The next one that may have something; waits until there is one, or for ever where none may be sent.
    pub(super) async fn turn(&mut self, may_send: bool) -> Place {
        loop {
            while let Some(Some(place)) = self.waiting.next().now_or_never() {
                self.back_to_ready(place);
            }
            if may_send && let Some(place) = self.ready.pop_front() {
                return place;
            }
            match self.waiting.next().await {
                Some(place) => self.back_to_ready(place),
                None => std::future::pending().await,
            }
        }
    }

    /// Behind the others, there may be more of it. What is assigned no longer ends here.
    pub(super) fn back_to_ready(&mut self, place: Place) {
        if self.is_assigned(&place) {
            self.ready.push_back(place);
        }
    }

    /// There is nothing of it until a record comes.
    pub(super) fn wait(&mut self, broker: &Arc<Broker>, place: Place) {
        let broker = broker.clone();
        let offset = place.offset.unwrap_or(Offset(0));
        let waiting = async move {
            // What is wrong is told to whoever reads there.
            let _ = broker.arrived(&place.topic, place.partition, offset).await;
            place
        };
        self.waiting.push(waiting.boxed());
    }

    /// It cannot be read for a while.
    pub(super) fn pause(&mut self, place: Place, pause: Duration) {
        let waiting = async move {
            tokio::time::sleep(pause).await;
            place
        };
        self.waiting.push(waiting.boxed());
    }
}
