//! Values of enums. The wire takes any number for them; one that has no name is refused, and never taken for the default.

use millstream_broker::{Acks, BrokerError, OnError, Side};
use millstream_proto::v1;

use super::status::Refusal;

const ACKS: &str = "1 (durable), 2 (memory), and 0 for the default";
const FORMATS: &str = "1 (batches), 2 (records), and 0 for batches";
const ON_ERRORS: &str = "1 (reject), 2 (skip), 3 (dead letter), 4 (pass), 5 (halt), and 0 for the default or as it is";
const SIDES: &str = "1 (produce), 2 (fetch)";

/// The value that a field has.
pub(super) fn known<T: TryFrom<i32>>(value: i32, name: &'static str, allowed: &'static str) -> Result<T, Refusal> {
    T::try_from(value).map_err(|_| {
        let value = value.to_string();
        BrokerError::InvalidSetting { name, value, allowed }.into()
    })
}

/// When a producer is answered, where that is said.
pub(super) fn acks(value: i32, name: &'static str) -> Result<Option<Acks>, Refusal> {
    Ok(match known(value, name, ACKS)? {
        v1::Acks::Unspecified => None,
        v1::Acks::Durable => Some(Acks::Durable),
        v1::Acks::Memory => Some(Acks::Memory),
    })
}

/// Whether a fetch is answered in plain records.
pub(super) fn is_plain(format: i32) -> Result<bool, Refusal> {
    Ok(match known(format, "format", FORMATS)? {
        v1::FetchFormat::Unspecified | v1::FetchFormat::Batches => false,
        v1::FetchFormat::Records => true,
    })
}

/// What happens to a record that a stage fails on, where that is said.
pub(super) fn on_error(value: i32) -> Result<Option<OnError>, Refusal> {
    Ok(match known(value, "on_error", ON_ERRORS)? {
        v1::OnError::Unspecified => None,
        v1::OnError::Reject => Some(OnError::Reject),
        v1::OnError::Skip => Some(OnError::Skip),
        v1::OnError::DeadLetter => Some(OnError::DeadLetter),
        v1::OnError::Pass => Some(OnError::Pass),
        v1::OnError::Halt => Some(OnError::Halt),
    })
}

/// The one side that a request names.
pub(super) fn side(value: i32) -> Result<Side, Refusal> {
    match sides(value)? {
        [side] => Ok(*side),
        _ => Err(Refusal::missing("side; it is PRODUCE or FETCH")),
    }
}

/// The side that a request names, both where it names none.
pub(super) fn sides(value: i32) -> Result<&'static [Side], Refusal> {
    Ok(match known(value, "side", SIDES)? {
        v1::PipelineSide::Unspecified => &[Side::Produce, Side::Fetch],
        v1::PipelineSide::Produce => &[Side::Produce],
        v1::PipelineSide::Fetch => &[Side::Fetch],
    })
}
