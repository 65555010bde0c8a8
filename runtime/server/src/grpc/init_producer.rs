//! `InitProducer`, and what of an idempotent batch's answer is of its producer alone.

use millstream_broker::{Fate, InitProducer, Outcome};
use millstream_proto::v1;
use tonic::Status;

use super::{Api, status::Refusal};

/// Gives a producer its id and an epoch.
pub(super) async fn init(api: &Api, request: v1::InitProducerRequest) -> Result<v1::InitProducerResponse, Status> {
    let who = match (request.producer_name, request.producer_id, request.producer_epoch) {
        (name, None, _) if name.is_empty() => InitProducer::New,
        (name, Some(id), Some(epoch)) if name.is_empty() => InitProducer::Again { id, epoch },
        (name, Some(_), None) if name.is_empty() => {
            return Err(Refusal::missing("producer_epoch; give it with producer_id").into());
        }
        (_, Some(_), _) => {
            let message = "the request has producer_name and producer_id: give one of them".to_owned();
            return Err(Refusal::invalid("FIELDS_CONTRADICT", message).into());
        }
        (name, None, _) => InitProducer::Named(name),
    };
    let identity = api.broker.init_producer(who).await.map_err(Refusal::from)?;
    Ok(v1::InitProducerResponse {
        producer_id: identity.id,
        producer_epoch: identity.epoch.into(),
    })
}

/// What became of each record, as runs.
pub(super) fn results(outcome: &Outcome) -> Vec<v1::RecordRun> {
    let runs = outcome.runs().iter().map(|run| v1::RecordRun {
        record_count: run.length,
        stored_each: run.emitted,
        fate: fate(run.fate).into(),
    });
    runs.collect()
}

fn fate(fate: Fate) -> v1::RecordFate {
    match fate {
        Fate::Pipeline => v1::RecordFate::Pipeline,
        Fate::Skipped => v1::RecordFate::Skipped,
        Fate::DeadLettered => v1::RecordFate::DeadLettered,
        Fate::Passed => v1::RecordFate::Passed,
    }
}
