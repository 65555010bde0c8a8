//! The bounds on what clients have under way: how much one request holds of its connection's and the agent's budget.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The bounds of one agent, and how much of them is used.
#[derive(Debug)]
pub struct Bounds {
    /// Bytes of requests that are not answered yet, of all connections.
    requests: Arc<Budget>,
    connection_bytes_max: usize,
    /// One stream at a time may go beyond the budgets, until the message that it began is whole and answered: so that
    /// streams which hold parts of messages do not wait for each other.
    beyond: Arc<Semaphore>,
    open_connections: AtomicUsize,
    refused: AtomicU64,
    /// One permit for each connection that may still be accepted.
    pub(super) free_connections: Arc<Semaphore>,
}

impl Bounds {
    /// Bounds of which nothing is used. A connection's and the agent's are in bytes.
    pub fn new(connections_max: usize, connection_bytes_max: usize, in_flight_bytes_max: usize) -> Arc<Bounds> {
        Arc::new(Bounds {
            requests: Arc::new(Budget::new("all connections", in_flight_bytes_max)),
            connection_bytes_max,
            beyond: Arc::new(Semaphore::new(1)),
            open_connections: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            free_connections: Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS))),
        })
    }

    /// Bytes of requests that are not answered yet.
    pub fn request_bytes(&self) -> usize {
        self.requests.used.load(Ordering::Relaxed)
    }

    /// Requests that were refused because some bound was met.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Counts a request that was refused because some bound was met.
    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.open_connections.load(Ordering::Relaxed)
    }

    /// Counts a connection until the answer is dropped.
    pub(super) fn open_connection(self: &Arc<Bounds>, permit: OwnedSemaphorePermit) -> OpenConnection {
        self.open_connections.fetch_add(1, Ordering::Relaxed);
        OpenConnection {
            bounds: self.clone(),
            _permit: permit,
        }
    }

    /// The budget of a new connection.
    pub(super) fn connection(&self) -> ConnectionBudget {
        ConnectionBudget {
            requests: Arc::new(Budget::new("this connection", self.connection_bytes_max)),
            answers: Arc::default(),
        }
    }

    /// What a new request holds: nothing yet.
    pub(super) fn charge(&self, connection: &ConnectionBudget) -> Arc<Charge> {
        Arc::new(Charge {
            connection: connection.clone(),
            agent: self.requests.clone(),
            beyond: self.beyond.clone(),
            bytes: AtomicUsize::new(0),
            is_beyond: Mutex::default(),
        })
    }
}

/// An open connection counts as one.
pub(super) struct OpenConnection {
    bounds: Arc<Bounds>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.bounds.open_connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The budget of one connection; every request on it carries it.
#[derive(Clone, Debug)]
pub(super) struct ConnectionBudget {
    requests: Arc<Budget>,
    /// Pieces of answers that are not sent yet.
    answers: Arc<AtomicUsize>,
}

impl ConnectionBudget {
    /// Whether something of an answer waits to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.answers.load(Ordering::Acquire) > 0
    }
}

/// Bytes in use, and their bound.
#[derive(Debug)]
struct Budget {
    whose: &'static str,
    used: AtomicUsize,
    bytes_max: usize,
    /// Something was given back.
    freed: Notify,
}

impl Budget {
    fn new(whose: &'static str, bytes_max: usize) -> Budget {
        Budget {
            whose,
            used: AtomicUsize::new(0),
            bytes_max,
            freed: Notify::new(),
        }
    }

    /// Takes them whatever the bound.
    fn force(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    fn take(&self, bytes: usize) -> Result<(), Full> {
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(bytes).filter(|used| *used <= self.bytes_max)
        });
        taken.map(|_| ()).map_err(|used| Full {
            whose: self.whose,
            used,
            bytes_max: self.bytes_max,
        })
    }

    /// What was taken, and could not be used, was never there.
    fn undo(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
        self.freed.notify_waiters();
    }
}

/// A budget is used up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full {
    whose: &'static str,
    used: usize,
    bytes_max: usize,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Full { whose, used, bytes_max } = self;
        write!(
            f,
            "the requests of {whose} that are not answered yet hold {used} of {bytes_max} bytes; nothing of this one was \
             stored, send it again later"
        )
    }
}

/// What one request holds of both budgets until the last clone of its `Arc` is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    connection: ConnectionBudget,
    agent: Arc<Budget>,
    beyond: Arc<Semaphore>,
    bytes: AtomicUsize,
    /// Held while it is the one that may go beyond the budgets.
    is_beyond: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Charge {
    /// Charges bytes that have arrived.
    pub(super) fn add(&self, bytes: usize) -> Result<(), Full> {
        self.connection.requests.take(bytes)?;
        let agent = self.agent.take(bytes);
        // Without a word: who waits would try again at once, and do the same to the others.
        agent.inspect_err(|_| self.connection.requests.undo(bytes))?;
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        Ok(())
    }

    /// Charges bytes that have arrived, once there is room for them or this is the one that may go beyond the budgets.
    pub(super) async fn add_when_free(&self, bytes: usize) {
        loop {
            let freed = (self.connection.requests.freed.notified(), self.agent.freed.notified());
            let (mut connection, mut agent) = (pin!(freed.0), pin!(freed.1));
            // Whatever is given back from here on wakes.
            connection.as_mut().enable();
            agent.as_mut().enable();
            if self.is_beyond() {
                self.connection.requests.force(bytes);
                self.agent.force(bytes);
                self.bytes.fetch_add(bytes, Ordering::AcqRel);
                return;
            }
            if self.add(bytes).is_ok() {
                return;
            }
            tokio::select! {
                () = connection => {}
                () = agent => {}
                permit = self.beyond.clone().acquire_owned() => {
                    *self.permit() = Some(permit.expect("it is never closed"));
                }
            }
        }
    }

    /// Whether it may go beyond the budgets.
    pub(super) fn is_beyond(&self) -> bool {
        self.permit().is_some()
    }

    /// A charge of its own for a message of a stream: `bytes` of what has arrived, or all but the last `kept` where that is
    /// more. A message may take more than it seems to.
    pub(super) fn split(&self, bytes: usize, kept: usize) -> Charge {
        let arrived = self.bytes.load(Ordering::Acquire);
        let bytes = bytes.max(arrived.saturating_sub(kept)).min(arrived);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        Charge {
            connection: self.connection.clone(),
            agent: self.agent.clone(),
            beyond: self.beyond.clone(),
            bytes: AtomicUsize::new(bytes),
            is_beyond: Mutex::new(self.permit().take()),
        }
    }

    fn permit(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        // Nothing panics while it holds this lock.
        self.is_beyond.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.connection.requests.give_back(bytes);
        self.agent.give_back(bytes);
    }
}

/// A piece of an answer that is not sent yet: it holds what its request was charged.
#[derive(Debug)]
pub(super) struct Unsent(Arc<Charge>);

impl Unsent {
    pub(super) fn new(charge: &Arc<Charge>) -> Unsent {
        charge.connection.answers.fetch_add(1, Ordering::AcqRel);
        Unsent(charge.clone())
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.0.connection.answers.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_holds_both_budgets_until_it_is_dropped() {
        let bounds = Bounds::new(10, 100, 150);
        let (one, other) = (bounds.connection(), bounds.connection());
        let first = bounds.charge(&one);
        first.add(60).unwrap();
        first.add(40).unwrap();
        assert_eq!(first.add(1).unwrap_err().whose, "this connection");
        let second = bounds.charge(&other);
        second.add(50).unwrap();
        assert_eq!(second.add(1).unwrap_err().whose, "all connections");
        assert_eq!(bounds.request_bytes(), 150);

        // What the agent's budget refused was given back to the connection's.
        drop(first);
        second.add(50).unwrap();
        drop(second);
        assert_eq!(bounds.request_bytes(), 0);
    }

    #[tokio::test]
    async fn a_message_of_a_stream_holds_its_own_part_until_it_is_answered() {
        let bounds = Bounds::new(10, 100, 100);
        let stream = bounds.charge(&bounds.connection());
        stream.add(50).unwrap();
        let message = stream.split(30, 20);
        drop(stream);
        assert_eq!(bounds.request_bytes(), 30);
        drop(message);
        assert_eq!(bounds.request_bytes(), 0);

        // Of a message that takes more than it seems to no more stays behind than what came with its end.
        let stream = bounds.charge(&bounds.connection());
        stream.add(50).unwrap();
        let _message = stream.split(1, 20);
        drop(stream);
        assert_eq!(bounds.request_bytes(), 30);
    }

    #[tokio::test]
    async fn streams_that_wait_for_each_other_finish_one_after_the_other() {
        let bounds = Bounds::new(10, 100, 100);
        let connection = bounds.connection();
        let (one, other) = (bounds.charge(&connection), bounds.charge(&connection));
        one.add(50).unwrap();
        other.add(50).unwrap();
        one.add_when_free(30).await;
        assert!(one.is_beyond());
        let mut waiting = Box::pin(other.add_when_free(30));
        assert!(futures::poll!(&mut waiting).is_pending());
        let message = one.split(80, 0);
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(message);
        waiting.await;
        assert_eq!(bounds.request_bytes(), 80);
    }

    #[tokio::test]
    async fn a_try_that_fails_wakes_nobody() {
        let bounds = Bounds::new(10, 100, 100);
        let (full, beyond, waits) = (
            bounds.charge(&bounds.connection()),
            bounds.charge(&bounds.connection()),
            bounds.charge(&bounds.connection()),
        );
        full.add(100).unwrap();
        beyond.add_when_free(10).await;
        // Else this would not come back.
        assert!(futures::poll!(Box::pin(waits.add_when_free(10))).is_pending());
    }
}
