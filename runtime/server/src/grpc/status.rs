//! Where an error of the broker becomes what clients are told, and nowhere else: a gRPC status, or an [`v1::Error`] in an
//! answer that speaks of several things. Both carry the same facts.

use std::time::Duration;

use millstream_broker::{BrokerError, Kind, RejectedRecord};
use millstream_proto::v1;
use tonic::{Code, Status, codegen::http};
use tonic_types::{ErrorDetails, StatusExt as _};

/// How long one should wait who met a bound of this floor.
const RETRY_MS: u32 = 500;

/// Bound on a message as it travels: in a header, where every byte that is no plain ASCII takes three. Clients refuse
/// headers of more than 8 KiB in all.
const MESSAGE_BYTES_MAX: usize = 3 << 10;

/// Bound on the text of the rejected records listed in the details, which travel in a header too.
const REJECTS_BYTES_MAX: usize = 2 << 10;

/// The same in a message, which has more room.
const MESSAGE_REJECTS_BYTES_MAX: usize = 64 << 10;

/// Bound on one reason in the details.
const REASON_CHARS_MAX: usize = 300;

/// Bound on one fact in the details.
const FACT_CHARS_MAX: usize = 256;

/// What every `ErrorInfo` names as its domain.
const DOMAIN: &str = "millstream.v1";

/// A fact of a refusal of records: the message without the records' reasons.
const SUMMARY: &str = "summary";

/// The reason of a request for a partition that another agent leads, and the fact that says where that is.
pub(super) const LED_ELSEWHERE: &str = "LED_ELSEWHERE";
const ADDRESS: &str = "address";

/// Why something was not done.
#[derive(Debug)]
pub(super) struct Refusal {
    code: Code,
    reason: &'static str,
    message: String,
    retry_after_ms: Option<u32>,
    facts: Vec<(&'static str, String)>,
    rejects: Vec<RejectedRecord>,
}

impl Refusal {
    /// A request that is wrong; the same one fails again.
    pub(super) fn invalid(reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal::new(Code::InvalidArgument, reason, message)
    }

    pub(super) fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal {
            code,
            reason,
            message: message.into(),
            retry_after_ms: None,
            facts: Vec::new(),
            rejects: Vec::new(),
        }
    }

    /// A request that met a bound: nothing of it was done, and it may come again.
    pub(super) fn exhausted(reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal::new(Code::ResourceExhausted, reason, message).retry_after(RETRY_MS)
    }

    pub(super) fn retry_after(self, ms: u32) -> Refusal {
        Refusal {
            retry_after_ms: Some(ms),
            ..self
        }
    }

    /// A request that does not say what it should.
    pub(super) fn missing(what: &str) -> Refusal {
        Refusal::invalid("FIELD_MISSING", format!("the request has no {what}"))
    }

    /// Whether some bound was met.
    pub(super) fn is_exhausted(&self) -> bool {
        self.code == Code::ResourceExhausted
    }

    /// As a part of an answer.
    pub(super) fn message(self) -> v1::Error {
        let mut bytes = 0;
        let rejected = self.rejects.iter().map(|reject| v1::RejectedRecord {
            index: reject.index,
            reason: reject.reason.chars().take(REASON_CHARS_MAX).collect(),
        });
        let rejected = rejected.take_while(|reject| {
            bytes += reject.reason.len() + size_of::<u64>();
            bytes <= MESSAGE_REJECTS_BYTES_MAX
        });
        let is_elsewhere = self.reason == LED_ELSEWHERE;
        let leader = self.facts.iter().find(|(name, _)| is_elsewhere && *name == ADDRESS);
        let leader = leader.map(|(_, address)| address.clone()).unwrap_or_default();
        // The records' reasons stand beside it.
        let summary = self.facts.into_iter().find(|(name, _)| *name == SUMMARY);
        let message = summary.map_or(self.message, |(_, summary)| summary);
        v1::Error {
            code: self.code.into(),
            reason: self.reason.to_owned(),
            rejected: rejected.collect(),
            message: shorten(message),
            retry_after_ms: self.retry_after_ms,
            leader,
        }
    }
}

impl From<BrokerError> for Refusal {
    /// The message says what was wrong and what to do; defects and damage are logged here, once.
    fn from(error: BrokerError) -> Refusal {
        let code = code(error.kind());
        if matches!(code, Code::Internal | Code::DataLoss) {
            tracing::error!(%error, "a request failed");
        }
        let mut facts = error.facts();
        // For who shows the records' reasons by themselves.
        facts.extend(error.without_reasons().map(|summary| (SUMMARY, summary)));
        Refusal {
            code,
            reason: error.reason(),
            message: error.to_string(),
            retry_after_ms: error.retry_after_ms(),
            facts,
            rejects: match error {
                BrokerError::Rejected { rejects, .. } => rejects,
                _ => Vec::new(),
            },
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let mut details = rejected(&refusal.rejects);
        let facts = refusal.facts.into_iter();
        let facts = facts.map(|(name, fact)| (name.to_owned(), fact.chars().take(FACT_CHARS_MAX).collect::<String>()));
        details.set_error_info(
            refusal.reason,
            DOMAIN,
            facts.collect::<std::collections::HashMap<_, _>>(),
        );
        if let Some(ms) = refusal.retry_after_ms {
            details.set_retry_info(Some(Duration::from_millis(u64::from(ms))));
        }
        Status::with_error_details(refusal.code, shorten(refusal.message), details)
    }
}

/// The status for an error.
pub(super) fn status(error: BrokerError) -> Status {
    Refusal::from(error).into()
}

/// The status for a request that met a bound of this floor: nothing of it was done, and it may come again.
pub(super) fn exhausted(reason: &'static str, message: &str) -> Status {
    Refusal::exhausted(reason, message).into()
}

/// The status for a request that does not say what it should.
pub(super) fn missing(what: &str) -> Status {
    Refusal::missing(what).into()
}

/// What the transport says of a message that it cannot take, in this contract's words. A status that has its details
/// stays as it is.
pub(super) fn of_transport(status: Status) -> Status {
    if !status.details().is_empty() {
        return status;
    }
    let said = status.message();
    let refusal = match status.code() {
        // It calls what does not decode a defect of its own.
        Code::Internal => Refusal::invalid("MESSAGE_MALFORMED", said),
        // RESOURCE_EXHAUSTED would say that the same may come again.
        Code::OutOfRange | Code::ResourceExhausted => Refusal::invalid("MESSAGE_TOO_LARGE", said),
        Code::Unimplemented => Refusal::new(Code::Unimplemented, "ENCODING_UNKNOWN", said),
        code => Refusal::new(code, "TRANSPORT", said),
    };
    let mut told = Status::from(refusal);
    // Which encodings are understood, for one.
    *told.metadata_mut() = status.metadata().clone();
    told
}

/// Refuses a call of what there is not.
pub(super) fn unknown(reason: &'static str, what: &str, uri: &http::Uri) -> Refusal {
    let message = format!("there is no {what} at {}; reflection lists those there are", uri.path());
    Refusal::new(Code::Unimplemented, reason, message)
}

fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::OutOfRange => Code::OutOfRange,
        Kind::NotFound => Code::NotFound,
        Kind::Exists => Code::AlreadyExists,
        Kind::Conflict | Kind::Module => Code::Aborted,
        Kind::Fenced | Kind::Unavailable => Code::Unavailable,
        Kind::Precondition => Code::FailedPrecondition,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Corrupt => Code::DataLoss,
        Kind::Internal => Code::Internal,
    }
}

fn rejected(rejects: &[RejectedRecord]) -> ErrorDetails {
    let mut details = ErrorDetails::new();
    let mut bytes = 0;
    for reject in rejects {
        let field = format!("records[{}]", reject.index);
        let reason: String = reject.reason.chars().take(REASON_CHARS_MAX).collect();
        bytes += field.len() + reason.len();
        if bytes > REJECTS_BYTES_MAX {
            break;
        }
        details.add_bad_request_violation(field, reason);
    }
    details
}

/// Cuts a message that is too long for a header.
fn shorten(message: String) -> String {
    let mut bytes = 0;
    let end = message.char_indices().find(|(_, c)| {
        bytes += if c.is_ascii_graphic() || *c == ' ' {
            1
        } else {
            3 * c.len_utf8()
        };
        bytes > MESSAGE_BYTES_MAX
    });
    match end {
        None => message,
        Some((end, _)) => format!("{} ...", &message[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_records_are_named_in_the_details() {
        let rejects = vec![RejectedRecord {
            index: 7,
            reason: "no such field".into(),
            failed: false,
        }];
        let error = BrokerError::Rejected {
            module: "m".to_owned(),
            version: 2,
            count: 9,
            rejects,
        };
        let status = status(error);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("m@2 rejected 1 of 9"), "{}", status.message());
        let request = status.get_error_details().bad_request().unwrap().clone();
        assert_eq!(request.field_violations[0].field, "records[7]");
        assert_eq!(request.field_violations[0].description, "no such field");
        let info = status.get_error_details().error_info().unwrap().clone();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("RECORDS_REJECTED", DOMAIN)
        );
        assert_eq!(
            (info.metadata["module"].as_str(), info.metadata["version"].as_str()),
            ("m", "2")
        );
        assert_eq!(
            info.metadata[SUMMARY],
            "module m@2 rejected 1 of 9 records, nothing was stored"
        );
    }

    #[test]
    fn a_message_and_its_details_fit_in_a_header() {
        let reason = "ü".repeat(5_000);
        let rejects = (0..1_000)
            .map(|index| RejectedRecord {
                index,
                reason: reason.as_str().into(),
                failed: false,
            })
            .collect();
        let error = BrokerError::Rejected {
            module: "m".to_owned(),
            version: 2,
            count: 1_000,
            rejects,
        };
        let status = status(error);
        assert!(status.message().len() < MESSAGE_BYTES_MAX && status.message().ends_with("ü ..."));
        assert!(
            status.details().len() < 2 * REJECTS_BYTES_MAX,
            "{}",
            status.details().len()
        );
        assert!(
            !status
                .get_error_details()
                .bad_request()
                .unwrap()
                .field_violations
                .is_empty()
        );
        assert_eq!(shorten("short".to_owned()), "short");
    }

    #[test]
    fn a_full_tail_says_when_to_come_again() {
        let status = status(BrokerError::TailFull {
            bytes: 10,
            bytes_max: 5,
        });
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        assert!(details.retry_info().unwrap().retry_delay.is_some());
        assert_eq!(details.error_info().unwrap().reason, "TAIL_FULL");
    }

    #[test]
    fn a_status_and_a_part_of_an_answer_carry_the_same_facts() {
        let error = || BrokerError::TailFull {
            bytes: 10,
            bytes_max: 5,
        };
        let (message, status) = (Refusal::from(error()).message(), status(error()));
        assert_eq!(
            (message.code, message.message.as_str()),
            (status.code().into(), status.message())
        );
        let details = status.get_error_details();
        assert_eq!(message.reason, details.error_info().unwrap().reason);
        let delay = details.retry_info().unwrap().retry_delay.unwrap();
        assert_eq!(u128::from(message.retry_after_ms.unwrap()), delay.as_millis());
    }

    #[test]
    fn a_part_of_an_answer_names_the_leader_of_what_is_led_elsewhere_alone() {
        let (topic, agent, address) = ("t".to_owned(), "b".to_owned(), "host:7070".to_owned());
        let led = BrokerError::LedElsewhere {
            topic: topic.clone(),
            partition: 1,
            agent: agent.clone(),
            address: address.clone(),
        };
        let left = BrokerError::WalOfAnotherAgent {
            topic,
            partition: 1,
            wal: Default::default(),
            agent,
            address,
        };
        assert_eq!(Refusal::from(led).message().leader, "host:7070");
        assert_eq!(Refusal::from(left).message().leader, "");
    }

    #[test]
    fn what_does_not_decode_is_the_clients_fault() {
        let status = of_transport(Status::internal("failed to decode Protobuf message"));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(
            status.get_error_details().error_info().unwrap().reason,
            "MESSAGE_MALFORMED"
        );
        let large = of_transport(Status::out_of_range("decoded message length too large"));
        assert_eq!(large.code(), Code::InvalidArgument);
        let ours = of_transport(exhausted("CONNECTION_FULL", "full"));
        assert_eq!(ours.code(), Code::ResourceExhausted);
    }
}
