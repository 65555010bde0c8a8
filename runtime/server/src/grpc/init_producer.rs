//! `InitProducer`.

use millstream_proto::v1;
use tonic::Status;

use super::{Api, status::Refusal};

/// Makes an idempotent producer.
pub(super) async fn init(_: &Api, _: v1::InitProducerRequest) -> Result<v1::InitProducerResponse, Status> {
    Err(Refusal::not_offered("InitProducer").into())
}
