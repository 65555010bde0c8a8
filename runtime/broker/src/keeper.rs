//! Keeping the leases: one call now and then for all partitions of the agent, however many there are.
//!
//! | what happens | what is done |
//! |---|---|
//! | the database answers in time | the deadline moves on |
//! | it does not | it is asked again soon; beyond the deadline [`LeaseTime`] refuses to append |
//! | it answers after the deadline | others were free to take over meanwhile: what they took steps down, what they activated is followed, then the rest goes on |
//! | another start of this agent is there | this one is over for good |

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use millstream_meta::{Lease, MetaError, Metadata};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use uuid::Uuid;

use crate::{
    broker::Broker,
    failure::{Failure, SUPERSEDED},
    lease_time::LeaseTime,
    partition::Partition,
};

/// Renewals in a lease's time.
const RENEWALS: u32 = 3;
/// Between two tries while the database does not answer.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(10);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);
/// The part of the time between two renewals that may go by in following what others activated during a lapse: a half.
const CATCHING_UP_PART: u32 = 2;
/// Tries in the time between two renewals.
const RETRIES: u32 = 10;

/// What a keeper works with.
pub(crate) struct Keep {
    pub(crate) metadata: Metadata,
    pub(crate) incarnation: Uuid,
    pub(crate) time: Arc<LeaseTime>,
    pub(crate) failure: Failure,
}

/// The task that keeps the leases. It ends with this handle: an agent that is gone keeps nothing.
pub(crate) struct Keeper {
    task: JoinHandle<()>,
    broker: Arc<OnceLock<Weak<Broker>>>,
}

impl Keeper {
    pub(crate) fn start(keep: Keep) -> Keeper {
        let broker = Arc::new(OnceLock::new());
        let task = tokio::spawn(keep.run(broker.clone()));
        Keeper { task, broker }
    }

    /// From now on there are partitions to look after. Before, a deadline that has passed stays so.
    pub(crate) fn serve(&self, broker: Weak<Broker>) {
        // Only the start of the broker says so, once.
        let _ = self.broker.set(broker);
    }

    /// Renews nothing any more.
    pub(crate) fn end(&self) {
        self.task.abort();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end();
    }
}

impl Keep {
    async fn run(self, broker: Arc<OnceLock<Weak<Broker>>>) {
        let every = self.time.duration() / RENEWALS;
        let retry = (every / RETRIES).clamp(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
        let (mut due, mut lapsed, mut silent) = (Instant::now() + every, false, false);
        loop {
            sleep_until(due).await;
            let asked = Instant::now();
            let renewed = self.renew(every).await;
            if self.time.is_over() && !lapsed {
                lapsed = true;
                self.time.count_lapse();
                tracing::error!("the leases were not renewed in time: nothing is acknowledged until they are");
            }
            let held = match renewed {
                Ok(others) => self.on_renewed(&broker, others, lapsed).await,
                Err(error) => Err(error),
            };
            due = match held {
                Ok(()) => {
                    self.time.renewed(asked);
                    silent = false;
                    if lapsed && !self.time.is_over() {
                        lapsed = false;
                        self.time.came_back();
                        tracing::info!("the leases are renewed: appending goes on");
                    }
                    asked + every
                }
                Err(MetaError::Superseded { .. }) => {
                    return self.failure.fail(SUPERSEDED.to_owned());
                }
                Err(error) => {
                    // Once for each outage: it is tried again every second.
                    if !std::mem::replace(&mut silent, true) {
                        let left_s = self.time.left().as_secs();
                        tracing::warn!(%error, left_s, "the leases could not be renewed, it is tried again and again");
                    }
                    Instant::now() + retry
                }
            };
        }
    }

    /// A call whose answer does not come, over a connection that is dead, is given up for another one.
    async fn renew(&self, patience: Duration) -> Result<Option<bool>, MetaError> {
        let renewal = self.metadata.renew_leases(self.incarnation, self.time.duration());
        timeout(patience, renewal)
            .await
            .unwrap_or_else(|_| Err(self.unavailable(format!("no answer for {patience:?}"))))
    }

    /// Before the deadline moves; `others` says whether other agents live, where the renewal told.
    async fn on_renewed(
        &self,
        broker: &OnceLock<Weak<Broker>>,
        others: Option<bool>,
        lapsed: bool,
    ) -> Result<(), MetaError> {
        match (broker.get().and_then(Weak::upgrade), others) {
            (Some(broker), Some(others)) => broker.activations().set_others(others),
            (Some(broker), None) => broker.activations().ask_for_others(),
            (None, _) => {}
        }
        match lapsed {
            true => self.come_back(broker).await,
            false => Ok(()),
        }
    }

    /// Between the deadline and this renewal anybody could take over. Asked after the renewal, since which nobody can any
    /// more, and before the deadline moves: until then nothing is appended under a lease that was lost.
    ///
    /// A partition that is just being opened is not looked at. Where its lease was lost the move of its pointer is
    /// refused; where that had moved before, whoever took over has sealed our log.
    async fn come_back(&self, broker: &OnceLock<Weak<Broker>>) -> Result<(), MetaError> {
        let Some(broker) = broker.get().and_then(Weak::upgrade) else {
            // What the start has taken so far is open only once there is a broker.
            return Err(self.unavailable("the agent is still starting".to_owned()));
        };
        let open = broker.open_partitions();
        let leases: Vec<Lease> = open.iter().map(Partition::lease).collect();
        let held = self.metadata.holds_leases(&leases).await?;
        for (partition, _) in open.iter().zip(held).filter(|(_, held)| !held) {
            // One that took a greater epoch for itself just now steps down too: that loses nothing, it opens again.
            partition.step_down("another agent leads it since the lease time was over");
        }
        // Nobody waited for us. What is appended from here on goes through what was activated meanwhile.
        let patience = self.time.duration() / RENEWALS / CATCHING_UP_PART;
        broker.follow_missed(patience).await
    }

    fn unavailable(&self, reason: String) -> MetaError {
        MetaError::Unavailable {
            database: self.metadata.place().to_owned(),
            reason,
        }
    }
}
