//! Values of enums. The wire takes any number for them; one that has no name is refused, and never taken for the default.

use millstream_broker::{Acks, BrokerError};
use millstream_proto::v1;

use super::status::Refusal;

const ACKS: &str = "1 (durable), 2 (memory), and 0 for the default";

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
