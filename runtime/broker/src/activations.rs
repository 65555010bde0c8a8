//! Switching to what other agents activate, also where nobody asks for the topic: so that whoever activates can say that it is
//! in force.
//!
//! ```text
//! heartbeat        tells, or lets it be asked, whether another agent lives; without one nothing else is asked
//! every second     which pipelines were activated since the last look?      Metadata::activated_since
//! each that is     switched in the background, and tried again after a      Broker::in_background
//! loaded here      pause where that fails
//! then             everything up to this number is in force here, but for   Metadata::reach_activation
//!                  topics that cannot be switched now
//! ```
//!
//! Whoever activates waits for that number ([`crate::versions`]). What is not loaded has no open partition, and what opens later
//! reads its pipeline from the metadata under its lease ([`crate::opening`]).

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use millstream_meta::{MetaError, PipelineRow};
use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use uuid::Uuid;

use crate::{broker::Broker, following::News, topic::LiveTopic};

/// Between two looks for what others activated.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Pipelines that one statement reads.
const PAGE: NonZeroU32 = NonZeroU32::new(100).expect("it is not zero");
/// Topics that switch at once.
const SWITCHES_AT_ONCE: usize = 16;
/// Topics that the metadata is told of as behind; where more are it is told nothing.
const LATE_MAX: usize = 1_000;
/// Between two looks at topics that are switching, where something waits for them.
const SWITCHED_INTERVAL: Duration = Duration::from_millis(50);

/// How far this agent has followed the activations of others.
pub(crate) struct Activations {
    /// Whether other agents live. Told anew, changed or not, whenever a topic may have switched.
    others: watch::Sender<bool>,
    /// Whether that has to be asked.
    asks: AtomicBool,
    followed: tokio::sync::Mutex<Followed>,
}

struct Followed {
    /// The last activation that was read, and the last topic of it.
    read: (u64, Uuid),
    /// What the metadata was told last: everything up to here is in force, but for these topics.
    told: (u64, Vec<Uuid>),
    /// What was activated and is not in force here yet, by topic: topics that are loaded, so they are bounded as those are.
    behind: HashMap<Uuid, Behind>,
}

struct Behind {
    live: Arc<LiveTopic>,
    /// The newest that was read.
    row: Arc<PipelineRow>,
    /// What was activated for it up to here is in force. Of several activations beyond it only the last one was read.
    reached: u64,
    /// Whether it has not switched from one look to the next: then it is told of by itself, and keeps nobody waiting for the
    /// others.
    is_late: bool,
}

impl Activations {
    /// For an agent that has registered when the last activation was this one.
    pub(crate) fn new(activation: u64, others: bool) -> Activations {
        Activations {
            others: watch::Sender::new(others),
            asks: AtomicBool::new(false),
            followed: tokio::sync::Mutex::new(Followed {
                // All of that one was there: who sees its number sees the whole of it.
                read: (activation, Uuid::max()),
                told: (activation, Vec::new()),
                behind: HashMap::new(),
            }),
        }
    }

    /// From now on it is looked for what others activate, or not any more.
    pub(crate) fn set_others(&self, others: bool) {
        self.others
            .send_if_modified(|known| std::mem::replace(known, others) != others);
    }

    /// Lets it be asked whether other agents live: not by whoever keeps the leases, who has no time to wait.
    pub(crate) fn ask_for_others(&self) {
        self.asks.store(true, Ordering::Release);
        self.look_again();
    }

    /// A topic may have switched.
    pub(crate) fn look_again(&self) {
        self.others.send_modify(|_| {});
    }

    pub(crate) fn listen(&self) -> watch::Receiver<bool> {
        self.others.subscribe()
    }
}

impl Followed {
    /// Everything up to here was read.
    fn read_whole(&self) -> u64 {
        match self.read {
            (activation, topic_id) if topic_id == Uuid::max() => activation,
            // The rest of it comes with the next page.
            (activation, _) => activation - 1,
        }
    }

    /// Everything up to here is in force, but for these topics.
    fn reached(&self) -> (u64, Vec<Uuid>) {
        let in_time = self.behind.values().filter(|behind| !behind.is_late);
        let reached = in_time.map(|behind| behind.reached).chain([self.read_whole()]);
        let late = self.behind.iter().filter(|(_, behind)| behind.is_late);
        let mut late: Vec<Uuid> = late.map(|(topic_id, _)| *topic_id).collect();
        late.sort_unstable();
        (reached.min().expect("there is one at least"), late)
    }
}

/// Follows as long as there is a broker, also one that stops: its partitions are open until they have stopped.
pub(crate) async fn run(broker: Weak<Broker>, mut others: watch::Receiver<bool>) {
    let (mut due, mut silent) = (Instant::now(), false);
    loop {
        let has_others = *others.borrow_and_update();
        let told = match has_others {
            true => select! {
                () = sleep_until(due) => Ok(()),
                told = others.changed() => told,
            },
            false => others.changed().await,
        };
        let (Ok(()), Some(broker)) = (told, broker.upgrade()) else {
            return;
        };
        broker.ask_for_others().await;
        let reads = *others.borrow() && due <= Instant::now();
        if reads {
            due = Instant::now() + LOOK_INTERVAL;
        }
        match broker.follow_activations(reads).await {
            Ok(_) => silent = false,
            // Once for each outage: it is tried again every second.
            Err(error) => {
                if !std::mem::replace(&mut silent, true) {
                    tracing::warn!(%error, "what other agents activate is not known now, it is asked again and again");
                }
            }
        }
    }
}

impl Broker {
    /// Asks whether other agents live, where a heartbeat did not say. Without an answer that stays as it was known.
    async fn ask_for_others(&self) {
        let activations = self.activations();
        if !activations.asks.swap(false, Ordering::AcqRel) {
            return;
        }
        match self.shared().metadata.has_others(self.shared().incarnation).await {
            Ok(others) => activations.set_others(others),
            Err(error) => tracing::debug!(%error, "whether other agents live is not known"),
        }
    }

    /// Begins to switch what was activated, `reads` asks for more of it, and says how far we have come. Whether all that was
    /// read is in force.
    async fn follow_activations(&self, reads: bool) -> Result<bool, MetaError> {
        let shared = self.shared();
        let mut followed = self.activations().followed.lock().await;
        if reads {
            self.read_activations(&mut followed).await?;
        }
        let under_way = followed.behind.values().filter(|behind| behind.live.news.is_followed());
        let mut free = SWITCHES_AT_ONCE.saturating_sub(under_way.count());
        followed.behind.retain(|_, behind| self.is_behind(behind, &mut free));
        let reached = followed.reached();
        // Untold, whatever is behind is among the topics told of, or was activated beyond the number: it counts as behind.
        if reached != followed.told && reached.1.len() <= LATE_MAX {
            let (activation, late) = &reached;
            shared
                .metadata
                .reach_activation(shared.incarnation, *activation, late)
                .await?;
            followed.told = reached;
        }
        Ok(followed.behind.is_empty())
    }

    /// Reads what was activated since, to the end: less than a page.
    async fn read_activations(&self, followed: &mut Followed) -> Result<(), MetaError> {
        let reached = followed.read_whole();
        followed.behind.values_mut().for_each(|behind| behind.is_late = true);
        loop {
            let (activation, topic_id) = followed.read;
            let activated = self
                .shared()
                .metadata
                .activated_since(activation, topic_id, PAGE)
                .await?;
            let more = activated.len() >= PAGE.get() as usize;
            for in_force in activated {
                followed.read = (in_force.row.activation, in_force.topic_id);
                let known = self.known(&in_force.topic);
                // One that is not known here is not open, and whoever opens it finds what is in force.
                if let Some(live) = known.filter(|live| live.topic().id == in_force.topic_id) {
                    let row = Arc::new(in_force.row);
                    let behind = followed.behind.entry(in_force.topic_id).or_insert(Behind {
                        live,
                        row: row.clone(),
                        reached,
                        is_late: false,
                    });
                    behind.row = row;
                }
            }
            if !more {
                // What comes later has a greater number.
                followed.read.1 = Uuid::max();
                return Ok(());
            }
        }
    }

    /// Whether open partitions of the topic may run an older pipeline; then it is begun to switch them, where one more is free
    /// to begin.
    fn is_behind(&self, behind: &Behind, free: &mut usize) -> bool {
        let Behind { live, row, .. } = behind;
        if live.is_deleted() {
            return false;
        }
        // Held by whoever loads the pipeline, or switches: then it is looked at again.
        let Ok(loaded) = live.pipeline.try_read() else {
            return true;
        };
        if loaded.as_ref().is_none_or(|loaded| loaded.version >= row.version) {
            return false;
        }
        drop(loaded);
        if *free > 0 && !live.news.is_paused() && !live.news.is_followed() {
            *free -= 1;
            self.in_background(live, News::Pipeline(row.clone()));
        }
        true
    }

    /// Follows what was activated while our lease time was over, and nobody waited for us. What cannot be switched within
    /// `patience` steps down: it opens again with what is in force.
    ///
    /// # Errors
    /// What the metadata says.
    pub(crate) async fn follow_missed(&self, patience: Duration) -> Result<(), MetaError> {
        let until = Instant::now() + patience;
        let mut all = self.follow_activations(true).await?;
        while !all && Instant::now() < until {
            sleep(SWITCHED_INTERVAL).await;
            all = self.follow_activations(false).await?;
        }
        for behind in self.activations().followed.lock().await.behind.values() {
            for partition in behind.live.open_partitions() {
                partition.step_down("a pipeline that was activated while the lease time was over is not in force yet");
            }
        }
        Ok(())
    }
}
