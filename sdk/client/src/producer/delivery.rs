//! What becomes of a record, told once its batch is answered.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    sync::{Arc, OnceLock},
};

use millstream_proto::v1;
use tokio::sync::Notify;

use crate::ClientError;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The partition that it went to.
    pub partition: u32,
    /// The offset of the first record that it became; `None` where the pipeline left none of it.
    pub offset: Option<u64>,
    /// How many stored records it became: 1, where nothing in the pipeline dropped or multiplied it.
    pub stored: u32,
    /// Who decided that.
    pub fate: v1::RecordFate,
}

/// Resolves to what became of one record. Dropping it changes nothing about the record.
#[derive(Debug)]
pub struct Delivery {
    outcome: Arc<Outcome>,
    index: u32,
}

/// Resolves to what became of one batch.
#[derive(Debug)]
pub struct BatchDelivery {
    outcome: Arc<Outcome>,
}

impl Delivery {
    pub(super) fn new(outcome: &Arc<Outcome>, index: u32) -> Delivery {
        Delivery {
            outcome: outcome.clone(),
            index,
        }
    }
}

impl BatchDelivery {
    pub(super) fn new(outcome: &Arc<Outcome>) -> BatchDelivery {
        BatchDelivery {
            outcome: outcome.clone(),
        }
    }
}

type Told<T> = Pin<Box<dyn Future<Output = Result<T, ClientError>> + Send>>;

impl IntoFuture for Delivery {
    type Output = Result<Delivered, ClientError>;
    type IntoFuture = Told<Delivered>;

    fn into_future(self) -> Told<Delivered> {
        Box::pin(async move {
            let answer = self.outcome.told().await?;
            Ok(delivered(answer, self.outcome.partition, self.index))
        })
    }
}

impl IntoFuture for BatchDelivery {
    type Output = Result<v1::ProduceResponse, ClientError>;
    type IntoFuture = Told<v1::ProduceResponse>;

    fn into_future(self) -> Told<v1::ProduceResponse> {
        Box::pin(async move { self.outcome.told().await.cloned() })
    }
}

/// What became of a batch, shared by all who wait for it.
#[derive(Debug)]
pub(super) struct Outcome {
    partition: u32,
    told: OnceLock<Result<v1::ProduceResponse, ClientError>>,
    news: Notify,
}

impl Outcome {
    /// Waits until it is told.
    pub(super) async fn told(&self) -> Result<&v1::ProduceResponse, ClientError> {
        loop {
            let news = self.news.notified();
            if let Some(told) = self.told.get() {
                return told.as_ref().map_err(Clone::clone);
            }
            news.await;
        }
    }
}

/// Tells what became of a batch. Where it is dropped before, that is told.
#[derive(Debug)]
pub(super) struct Teller(Arc<Outcome>);

impl Teller {
    pub(super) fn new(partition: u32) -> Teller {
        Teller(Arc::new(Outcome {
            partition,
            told: OnceLock::new(),
            news: Notify::new(),
        }))
    }

    pub(super) fn outcome(&self) -> &Arc<Outcome> {
        &self.0
    }

    pub(super) fn tell(&self, result: Result<v1::ProduceResponse, ClientError>) {
        // The first to tell it is right.
        let _ = self.0.told.set(result);
        self.0.news.notify_waiters();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if self.0.told.get().is_none() {
            self.tell(Err(ClientError::Abandoned));
        }
    }
}

/// What an answer says about the record at `index` of its batch.
fn delivered(answer: &v1::ProduceResponse, partition: u32, index: u32) -> Delivered {
    let (mut before, mut stored) = (0_u64, 0_u64);
    for run in &answer.results {
        let (count, each) = (u64::from(run.record_count), u64::from(run.stored_each));
        if u64::from(index) < before + count {
            let offset = answer.base_offset + stored + (u64::from(index) - before) * each;
            return Delivered {
                partition,
                offset: (each > 0).then_some(offset),
                stored: run.stored_each,
                fate: run.fate(),
            };
        }
        before += count;
        stored += count * each;
    }
    // Where nothing is said every record became one.
    Delivered {
        partition,
        offset: Some(answer.base_offset + u64::from(index)),
        stored: 1,
        fate: v1::RecordFate::Pipeline,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(record_count: u32, stored_each: u32, fate: v1::RecordFate) -> v1::RecordRun {
        v1::RecordRun {
            record_count,
            stored_each,
            fate: fate.into(),
        }
    }

    #[test]
    fn the_offset_of_a_record_counts_what_those_before_it_became() {
        let answer = v1::ProduceResponse {
            base_offset: 100,
            results: vec![
                run(2, 1, v1::RecordFate::Pipeline),
                run(1, 0, v1::RecordFate::Skipped),
                run(2, 3, v1::RecordFate::Pipeline),
                run(1, 1, v1::RecordFate::Passed),
            ],
            ..Default::default()
        };
        let offsets = (0..6).map(|index| delivered(&answer, 7, index).offset);
        assert_eq!(
            offsets.collect::<Vec<_>>(),
            [Some(100), Some(101), None, Some(102), Some(105), Some(108)]
        );
        let skipped = delivered(&answer, 7, 2);
        assert_eq!(
            (skipped.partition, skipped.stored, skipped.fate),
            (7, 0, v1::RecordFate::Skipped)
        );
        assert_eq!(delivered(&answer, 7, 5).fate, v1::RecordFate::Passed);
    }

    #[test]
    fn without_results_every_record_became_one() {
        let answer = v1::ProduceResponse {
            base_offset: 5,
            ..Default::default()
        };
        assert_eq!(delivered(&answer, 0, 3).offset, Some(8));
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_a_batch_that_is_given_up() {
        let teller = Teller::new(0);
        let delivery = Delivery::new(teller.outcome(), 0);
        drop(teller);
        assert!(matches!(delivery.await, Err(ClientError::Abandoned)));
    }
}
