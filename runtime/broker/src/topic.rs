//! A topic that this agent serves: its settings, its partitions as they are opened, and its pipeline.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use millstream_batch::Offset;
use millstream_meta::Topic;
use tokio::time::Instant;

use crate::{
    error::{BrokerError, Result},
    partition::{LeftTail, Partition},
    pipeline::Pipeline,
    versions::Sample,
};

/// One topic in memory.
pub(crate) struct LiveTopic {
    topic: RwLock<Arc<Topic>>,
    /// Filled when a partition is first asked for, so that a topic of 100,000 partitions costs what is used of it.
    places: Mutex<HashMap<u32, Arc<Place>>>,
    deleted: AtomicBool,
    /// Loaded with the first partition. Its lock is held while a partition starts and while a change of the pipeline or of
    /// the settings spreads, so that no partition opens with what is being replaced.
    pub(crate) pipeline: tokio::sync::RwLock<Option<Arc<Pipeline>>>,
    /// The version of the pipeline that is loaded, plus one; 0 where none is.
    loaded: AtomicU64,
    pub(crate) news: News,
    /// What producers sent lately, for trial calls.
    pub(crate) sample: Arc<Sample>,
}

/// When to look for what others change about a topic.
#[derive(Default)]
pub(crate) struct News {
    /// Set while a change is being taken up.
    pub(crate) following: AtomicBool,
    /// Set once it was told that one could not be taken up, until one was.
    pub(crate) failing: AtomicBool,
    paused_until: Mutex<Option<Instant>>,
    /// When partitions beyond those that are known were looked for.
    looked_for_more: Mutex<Option<Instant>>,
}

/// Where a partition is, opened or not.
#[derive(Default)]
pub(crate) struct Place {
    partition: RwLock<Option<Partition>>,
    /// What our WAL holds of a partition that is not open. Its lock is held while the partition opens.
    pub(crate) left: tokio::sync::Mutex<Option<LeftTail>>,
    /// The greatest end of what was ever left. All of that is durable, so the high watermark is never below it.
    left_end: AtomicU64,
    /// The greatest end of the partition's segments that the database has told while another agent led it.
    stored_end: AtomicU64,
    elsewhere: RwLock<Option<Elsewhere>>,
}

/// Who leads a partition, and until when that is believed.
#[derive(Clone)]
pub(crate) struct Elsewhere {
    pub(crate) agent: String,
    pub(crate) address: String,
    until: Instant,
}

impl LiveTopic {
    pub(crate) fn new(topic: Topic) -> LiveTopic {
        LiveTopic {
            topic: RwLock::new(Arc::new(topic)),
            places: Mutex::default(),
            deleted: AtomicBool::new(false),
            pipeline: tokio::sync::RwLock::new(None),
            loaded: AtomicU64::new(0),
            news: News::default(),
            sample: Arc::default(),
        }
    }

    /// The version of the pipeline that open partitions run, where there is any.
    pub(crate) fn pipeline_version(&self) -> Option<u64> {
        self.loaded.load(Ordering::Acquire).checked_sub(1)
    }

    /// Keeps a pipeline; `slot` is behind the lock.
    pub(crate) fn keep_pipeline(&self, slot: &mut Option<Arc<Pipeline>>, pipeline: Arc<Pipeline>) {
        self.loaded.store(pipeline.version + 1, Ordering::Release);
        *slot = Some(pipeline);
    }

    /// Keeps another pipeline, and switches every open partition to it; `slot` is behind the lock.
    pub(crate) async fn switch(&self, slot: &mut Option<Arc<Pipeline>>, next: Arc<Pipeline>) {
        self.keep_pipeline(slot, next.clone());
        let open = self.open_partitions();
        // A partition that is closed runs nothing, and its error says nothing; whoever opens it next takes this version.
        join_all(open.iter().map(|partition| partition.set_pipeline(next.clone()))).await;
    }

    /// The topic as it is set now. Name and id never change, and partitions are only added.
    pub(crate) fn topic(&self) -> Arc<Topic> {
        self.topic.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, topic: Arc<Topic>) {
        *self.topic.write().unwrap_or_else(PoisonError::into_inner) = topic;
    }

    pub(crate) fn set_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// The place of a partition, opened or not.
    pub(crate) fn place(&self, partition: u32) -> Result<Arc<Place>> {
        let topic = self.topic();
        if partition >= topic.partitions {
            let (topic, last) = (topic.name.clone(), topic.partitions - 1);
            return Err(BrokerError::UnknownPartition { topic, partition, last });
        }
        Ok(self.places().entry(partition).or_default().clone())
    }

    /// The partition as it was last seen, closed or not; `None` where nobody asked for it since the start.
    pub(crate) fn seen(&self, partition: u32) -> Option<Partition> {
        self.used_place(partition)?.seen()
    }

    /// The place of a partition that was asked for since the start, or whose records our WAL holds.
    pub(crate) fn used_place(&self, partition: u32) -> Option<Arc<Place>> {
        self.places().get(&partition).cloned()
    }

    /// The partitions that are open.
    pub(crate) fn open_partitions(&self) -> Vec<Partition> {
        self.places().values().filter_map(|place| place.open()).collect()
    }

    /// The numbers of the partitions that were opened, or whose records our WAL holds.
    pub(crate) async fn used_partitions(&self) -> Vec<u32> {
        let places = self.all_places();
        let mut used = Vec::with_capacity(places.len());
        for (number, place) in places {
            if place.seen().is_some() || place.left.lock().await.is_some() {
                used.push(number);
            }
        }
        used
    }

    /// Every place that was ever asked for, with the number of its partition.
    pub(crate) fn all_places(&self) -> Vec<(u32, Arc<Place>)> {
        let places = self.places();
        places.iter().map(|(number, place)| (*number, place.clone())).collect()
    }

    fn places(&self) -> MutexGuard<'_, HashMap<u32, Arc<Place>>> {
        self.places.lock().expect("no code panics while it holds this lock")
    }
}

impl News {
    /// Whether a change is being taken up.
    pub(crate) fn is_followed(&self) -> bool {
        self.following.load(Ordering::Acquire)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    pub(crate) fn pause(&self, pause: Duration) {
        *self.until() = Some(Instant::now() + pause);
    }

    /// Whether to look for partitions that are not known yet, and that it is done now: who asks again and again for one that
    /// there is not asks the database now and then.
    pub(crate) fn may_look_for_more(&self, pause: Duration) -> bool {
        let mut looked = self.looked_for_more.lock().unwrap_or_else(PoisonError::into_inner);
        let may = looked.is_none_or(|at| at.elapsed() >= pause);
        if may {
            *looked = Some(Instant::now());
        }
        may
    }

    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.paused_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Where another agent was found to lead the partition a moment ago: the error that says so.
    pub(crate) fn led_elsewhere(&self) -> Option<Elsewhere> {
        let found = self.elsewhere.read().unwrap_or_else(PoisonError::into_inner);
        found.clone().filter(|found| Instant::now() < found.until)
    }

    pub(crate) fn set_elsewhere(&self, agent: &str, address: &str, lasts: Duration) {
        let elsewhere = Elsewhere {
            agent: agent.to_owned(),
            address: address.to_owned(),
            until: Instant::now() + lasts,
        };
        *self.elsewhere.write().unwrap_or_else(PoisonError::into_inner) = Some(elsewhere);
    }

    /// The partition, where it takes requests.
    pub(crate) fn open(&self) -> Option<Partition> {
        self.seen().filter(Partition::is_open)
    }

    /// The partition, closed or not.
    pub(crate) fn seen(&self) -> Option<Partition> {
        self.partition.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what is left of a partition that is not open; `slot` is behind the lock of `left`.
    pub(crate) fn keep(&self, slot: &mut Option<LeftTail>, left: LeftTail) {
        if let Some(end) = left.end() {
            self.left_end.fetch_max(end.0, Ordering::AcqRel);
        }
        *slot = Some(left);
    }

    /// The high watermark is there or beyond it.
    pub(crate) fn left_end(&self) -> Offset {
        Offset(self.left_end.load(Ordering::Acquire))
    }

    /// Takes note that the partition's segments reach up to there.
    pub(crate) fn set_stored(&self, end: Offset) {
        self.stored_end.fetch_max(end.0, Ordering::AcqRel);
    }

    /// The segments end there or beyond it.
    pub(crate) fn stored_end(&self) -> Offset {
        Offset(self.stored_end.load(Ordering::Acquire))
    }

    pub(crate) fn set(&self, partition: Option<Partition>) {
        *self.partition.write().unwrap_or_else(PoisonError::into_inner) = partition;
    }
}
