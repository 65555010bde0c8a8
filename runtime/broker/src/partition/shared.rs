//! What all partitions of an agent share.

use std::sync::{Arc, OnceLock, Weak};

use millstream_log::{SegmentCache, Store, Wal};
use millstream_meta::Metadata;
use millstream_wasm::Engine;
use uuid::Uuid;

use super::{budget::TailBudget, reads::Reads, uploads::Uploads};
use crate::{
    broker::Broker,
    clock::Clock,
    error::Result,
    failure::{Failure, wal_failed},
    lease_time::LeaseTime,
    measures::Measures,
    owner::Owner,
    pipeline::{Monitors, Pool},
    recovery::Recovery,
    settings::{Settings, Wals},
};

/// The parts that every partition works with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metadata: Metadata,
    pub(crate) owner: Owner,
    pub(crate) store: Store,
    pub(crate) segments: SegmentCache,
    pub(crate) reads: Reads,
    pub(crate) wals: Wals,
    pub(crate) wal: Arc<dyn Wal>,
    pub(crate) incarnation: Uuid,
    pub(crate) lease_time: Arc<LeaseTime>,
    pub(crate) failure: Failure,
    pub(crate) pool: Pool,
    pub(crate) budget: TailBudget,
    pub(crate) uploads: Uploads,
    pub(crate) engine: Engine,
    pub(crate) monitors: Arc<Monitors>,
    pub(crate) measures: Measures,
    /// Set once the broker is there.
    pub(crate) broker: Arc<OnceLock<Weak<Broker>>>,
}

impl Shared {
    /// The broker, for a partition that writes to another one; `None` once it is gone.
    pub(crate) fn broker(&self) -> Option<Arc<Broker>> {
        self.broker.get()?.upgrade()
    }

    /// Fails where the agent has, or its log: whoever cannot append has no use for a lease, and must not take it from
    /// whoever can.
    pub(crate) fn check_failure(&self) -> Result<()> {
        if let Some(reason) = self.wal.failure().borrow().as_deref() {
            self.failure.fail(wal_failed(reason));
        }
        self.failure.check()
    }

    /// Takes over what other incarnations left.
    pub(crate) fn recovery(&self) -> Recovery<'_> {
        Recovery {
            metadata: &self.metadata,
            wals: &self.wals,
            wal: &self.wal,
            incarnation: self.incarnation,
        }
    }
}
