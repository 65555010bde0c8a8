//! What no answer may be, whatever was asked.

use std::fmt::Write as _;

use millstream_tests::raw::{Body, Ending};
use prost_reflect::{DynamicMessage, MethodDescriptor, ReflectMessage as _, Value};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Bytes of a body that are shown.
const SHOWN_BYTES: usize = 2_000;
/// Codes that say that the agent is at fault.
const DEFECTS: [Code; 3] = [Code::Internal, Code::Unknown, Code::DataLoss];

/// Holds an ending to what every answer promises.
///
/// # Panics
/// Where it breaks that, with all that is needed to see it again.
pub fn check(method: &MethodDescriptor, ending: &Ending, body: &Body, place: &str) {
    let found = match ending {
        Ending::Answered { status, messages } => fault_of(status).or_else(|| {
            messages.iter().find_map(|message| {
                let message = DynamicMessage::decode(method.output(), message.clone());
                message.map_or_else(|error| Some(error.to_string()), |message| fault_within(&message))
            })
        }),
        Ending::Silent if super::may_wait(method) => None,
        Ending::Silent => Some("there is no answer".to_owned()),
        Ending::Broken(why) => Some(why.clone()),
    };
    let Some(found) = found else { return };
    panic!("{place}: {found}\n{:?} {}", body.encoding, shown(body));
}

/// The stable word of a refusal.
pub fn reason(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == "millstream.v1").then_some(info.reason)
}

fn fault_of(status: &Status) -> Option<String> {
    let is_told = status.code() == Code::Ok || reason(status).is_some_and(|reason| !reason.is_empty());
    match DEFECTS.contains(&status.code()) || !is_told {
        true => Some(format!("{status:?}")),
        false => None,
    }
}

/// What is wrong with the errors that an answer has in it.
fn fault_within(message: &DynamicMessage) -> Option<String> {
    if message.descriptor().full_name() == "millstream.v1.Error" {
        let code = message.get_field_by_name("code").and_then(|code| code.as_i32());
        let code = Code::from_i32(code.unwrap_or_default());
        let reason = message.get_field_by_name("reason");
        let has_reason = reason.is_some_and(|reason| reason.as_str().is_some_and(|reason| !reason.is_empty()));
        if code == Code::Ok || DEFECTS.contains(&code) || !has_reason {
            return Some(format!("{message:?}"));
        }
    }
    message.fields().find_map(|(_, value)| fault_in(value))
}

fn fault_in(value: &Value) -> Option<String> {
    match value {
        Value::Message(message) => fault_within(message),
        Value::List(values) => values.iter().find_map(fault_in),
        Value::Map(values) => values.values().find_map(fault_in),
        _ => None,
    }
}

fn shown(body: &Body) -> String {
    let mut text = String::new();
    for byte in body.pieces.iter().flatten().take(SHOWN_BYTES) {
        write!(text, "{byte:02x}").expect("a text takes everything");
    }
    text
}
