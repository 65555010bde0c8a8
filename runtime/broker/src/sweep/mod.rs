//! What happens now and then. Each step is on its own: one that waits for a store that is down holds up no other.
//!
//! | step | does |
//! |---|---|
//! | `topics` | takes up what other agents changed about topics that nobody asks for here |
//! | `retention` | lets go of what topics no longer keep, of partitions that nobody opened too |
//! | `merging` | makes few segments of many small ones |
//! | `deletions` | deletes objects whose grace is over |
//! | `orphans` | deletes objects that nothing names and nobody can commit any more |
//! | `manifests` | describes each topic in an object of its own |
//! | `wals` | trims our WAL, and removes those of earlier incarnations |

mod deletions;
mod manifests;
mod merging;
mod orphans;
mod retention;
mod wals;

pub(crate) use manifests::Manifest;
pub(crate) use orphans::{Kind, kind_of};

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{sync::Notify, time::MissedTickBehavior};

use crate::{broker::Broker, error::Result, settings::Settings};

/// How many partitions of a topic are asked for at once.
const PARTITIONS_AT_ONCE: u32 = 1_000;

/// One thing that happens now and then.
#[derive(Clone, Copy, Debug)]
enum Step {
    Topics,
    Retention,
    Merging,
    Deletions,
    Manifests,
    Wals,
    Orphans,
}

impl Step {
    const ALL: [Step; 7] = [
        Step::Topics,
        Step::Retention,
        Step::Merging,
        Step::Deletions,
        Step::Manifests,
        Step::Wals,
        Step::Orphans,
    ];

    fn interval(self, settings: &Settings) -> Duration {
        match self {
            Step::Orphans => settings.orphan_interval,
            _ => settings.sweep_interval,
        }
    }

    async fn run(self, broker: &Broker) -> Result<()> {
        match self {
            Step::Topics => broker.take_up_all().await,
            Step::Retention => retention::run(broker).await,
            Step::Merging => merging::run(broker).await,
            Step::Deletions => deletions::run(broker).await,
            Step::Manifests => manifests::run(broker).await,
            Step::Wals => wals::run(broker).await,
            Step::Orphans => orphans::run(broker).await,
        }
    }

    /// Runs the step again and again until the broker is gone.
    async fn repeat(self, broker: Weak<Broker>, interval: Duration, manifest_due: Arc<Notify>) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once: a start has enough to do.
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = manifest_due.notified(), if matches!(self, Step::Manifests) => {}
            }
            let Some(broker) = broker.upgrade() else { return };
            if let Err(error) = self.run(&broker).await {
                tracing::warn!(step = ?self, %error, "a sweep failed and is tried again with the next");
            }
        }
    }
}

/// Starts every step. They run until the broker is gone.
pub(crate) fn start(broker: &Arc<Broker>) {
    for step in Step::ALL {
        let interval = step.interval(&broker.shared().settings).max(Duration::from_millis(1));
        tokio::spawn(step.repeat(Arc::downgrade(broker), interval, broker.manifest_due.clone()));
    }
}

impl Broker {
    /// Runs every step once, as each runs by itself now and then.
    ///
    /// # Errors
    /// Those of the first step that fails; the others run all the same.
    pub async fn sweep(&self) -> Result<()> {
        let mut result = Ok(());
        for step in Step::ALL {
            result = result.and(step.run(self).await);
        }
        result
    }
}
