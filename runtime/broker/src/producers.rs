//! Ids and epochs of idempotent producers.
//!
//! An id is 63 random bits, so a producer without a name needs no database. One with a name finds its id again at its next
//! start, and the epoch it gets then fences the start before.

use millstream_meta::ProducerIdentity;

use crate::{
    broker::Broker,
    error::{BrokerError, Result},
    names::check_producer_name,
};

/// Who asks for an id and an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitProducer {
    /// A producer that is known by a name from one start to the next.
    Named(String),
    /// A new one without a name.
    New,
    /// One without a name that goes on with a greater epoch.
    Again {
        /// The id it has.
        id: i64,
        /// The epoch it has.
        epoch: i32,
    },
}

impl Broker {
    /// Gives a producer its id, and an epoch that fences every one it had before.
    pub async fn init_producer(&self, who: InitProducer) -> Result<ProducerIdentity> {
        let fresh_id = || (self.shared().clock.random_id() as u64 >> 1) as i64;
        match who {
            InitProducer::New => Ok(ProducerIdentity {
                id: fresh_id(),
                epoch: 0,
            }),
            InitProducer::Again { id, epoch } => {
                let reason = match epoch {
                    _ if id < 0 => "an id is 0 or more",
                    ..0 => "an epoch is 0 or more",
                    epoch => match i16::try_from(epoch) {
                        Ok(i16::MAX) => {
                            return Ok(ProducerIdentity {
                                id: fresh_id(),
                                epoch: 0,
                            });
                        }
                        Ok(epoch) => return Ok(ProducerIdentity { id, epoch: epoch + 1 }),
                        Err(_) => "an epoch is 32,767 at most",
                    },
                };
                Err(BrokerError::BadProducer { id, epoch, reason })
            }
            InitProducer::Named(name) => {
                check_producer_name(&name)?;
                let now_ms = self.shared().clock.now_ms();
                Ok(self.shared().metadata.init_producer(&name, fresh_id(), now_ms).await?)
            }
        }
    }
}
