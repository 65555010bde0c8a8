//! The way back to a producer, and what holds the batches of one stream together.

use std::{
    any::Any,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::sync::oneshot;

use super::{Partition, Receipt};
use crate::error::{BrokerError, Result};

/// The batches that one stream sends to one partition: they are stored in their order, and behind one that has to be tried
/// again none is stored any more. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct StreamOrder {
    broken: Arc<AtomicBool>,
}

impl StreamOrder {
    /// Fails behind a batch that has to be tried again.
    pub fn check(&self) -> Result<()> {
        match self.broken.load(Ordering::Acquire) {
            true => Err(BrokerError::StreamBroken),
            false => Ok(()),
        }
    }

    /// Lets nothing more through where the error says that its batch may be tried again.
    pub(crate) fn heed(&self, error: &BrokerError) {
        if error.retry_after_ms().is_some() {
            self.break_off();
        }
    }

    /// Lets nothing more through: a batch has to be tried again.
    pub fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
    }
}

/// What a request holds until it is answered; it is dropped then, whether somebody waits for the answer or not.
pub type Held = Arc<dyn Any + Send + Sync>;

/// Answers one batch.
pub(crate) struct Reply {
    sender: Option<oneshot::Sender<Result<Receipt>>>,
    order: Option<StreamOrder>,
    _held: Option<Held>,
}

impl Reply {
    /// A reply, and where its answer comes out.
    pub(crate) fn new(order: Option<StreamOrder>, held: Option<Held>) -> (Reply, oneshot::Receiver<Result<Receipt>>) {
        let (sender, receiver) = oneshot::channel();
        let reply = Reply {
            sender: Some(sender),
            order,
            _held: held,
        };
        (reply, receiver)
    }

    /// Fails where a batch before this one on its stream has to be tried again.
    pub(crate) fn check(&self) -> Result<()> {
        self.order.as_ref().map_or(Ok(()), StreamOrder::check)
    }

    /// A producer that went away does not mind.
    pub(crate) fn answer(mut self, result: Result<Receipt>) {
        if let (Some(order), Err(error)) = (&self.order, &result) {
            order.heed(error);
        }
        if let Some(sender) = self.sender.take() {
            let _ = sender.send(result);
        }
    }
}

impl Drop for Reply {
    /// Without an answer nobody knows what became of the batch.
    fn drop(&mut self) {
        if let (Some(_), Some(order)) = (&self.sender, &self.order) {
            order.break_off();
        }
    }
}

/// A batch on its way through its partition; resolves to what became of it, also where this is dropped meanwhile.
pub struct Submitted {
    pub(super) partition: Partition,
    pub(super) answer: oneshot::Receiver<Result<Receipt>>,
    pub(super) told: Option<Told>,
}

/// Hears of an answer.
pub(super) type Told = Box<dyn FnOnce(&Result<Receipt>) + Send>;

impl Submitted {
    /// The same, and somebody else hears of the answer too.
    pub(crate) fn told(self, told: impl FnOnce(&Result<Receipt>) + Send + 'static) -> Submitted {
        Submitted {
            told: Some(Box::new(told)),
            ..self
        }
    }
}

impl Future for Submitted {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Receipt>> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        let result = answer.unwrap_or_else(|_| Err(self.partition.closed()));
        if let Some(told) = self.told.take() {
            told(&result);
        }
        Poll::Ready(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOPPING: BrokerError = BrokerError::Stopping;

    #[tokio::test]
    async fn behind_a_batch_that_has_to_be_tried_again_none_goes_through() {
        let order = StreamOrder::default();
        let (first, answer) = Reply::new(Some(order.clone()), None);
        let (second, _) = Reply::new(Some(order.clone()), None);
        let (other, _) = Reply::new(Some(StreamOrder::default()), None);
        second.check().unwrap();
        first.answer(Err(STOPPING));
        assert!(matches!(second.check(), Err(BrokerError::StreamBroken)));
        assert!(matches!(answer.await, Ok(Err(BrokerError::Stopping))));
        other.check().unwrap();
    }

    #[test]
    fn one_that_is_refused_for_good_keeps_none_from_going_through() {
        let order = StreamOrder::default();
        let (refused, _) = Reply::new(Some(order.clone()), None);
        refused.answer(Err(BrokerError::UnknownTopic { name: String::new() }));
        order.check().unwrap();
    }

    #[test]
    fn one_that_gets_no_answer_counts_as_one_to_be_tried_again() {
        let order = StreamOrder::default();
        let held: Held = Arc::new(());
        let (lost, _) = Reply::new(Some(order.clone()), Some(held.clone()));
        assert_eq!(Arc::strong_count(&held), 2);
        drop(lost);
        order.check().unwrap_err();
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
