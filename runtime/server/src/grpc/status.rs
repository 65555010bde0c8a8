//! Where an error of the broker becomes a gRPC status, and nowhere else.

use std::{collections::HashMap, time::Duration};

use millstream_broker::{BrokerError, Kind, RejectedRecord};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// How long a producer that met a bound should wait.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Bound on a message as it travels: in a header, where every byte that is no plain ASCII takes three. Clients refuse
/// headers of more than 8 KiB in all.
const MESSAGE_BYTES_MAX: usize = 3 << 10;

/// Bound on the text of the rejected records listed in the details, which travel in a header too.
const REJECTS_BYTES_MAX: usize = 2 << 10;

/// Bound on one reason in the details.
const REASON_CHARS_MAX: usize = 300;

/// What names a refusal of records in the details, and what stands beside it: the message without the records' reasons.
const REJECTED: &str = "RECORDS_REJECTED";
const DOMAIN: &str = "millstream.v1";
const SUMMARY: &str = "summary";

/// The status for an error. The message says what was wrong and what to do; defects and damage are logged here, once.
pub(super) fn status(error: BrokerError) -> Status {
    let code = code(error.kind());
    if matches!(code, Code::Internal | Code::DataLoss) {
        tracing::error!(%error, "a request failed");
    }
    let message = shorten(error.to_string());
    match &error {
        BrokerError::Rejected { rejects, .. } => {
            let mut details = rejected(rejects);
            // For who shows the records' reasons by themselves.
            let summary = error.without_reasons().map(|summary| (SUMMARY.to_owned(), summary));
            details.set_error_info(REJECTED, DOMAIN, summary.into_iter().collect::<HashMap<_, _>>());
            Status::with_error_details(code, message, details)
        }
        _ if code == Code::ResourceExhausted => exhausted(&message),
        _ => Status::new(code, message),
    }
}

/// The status for a request that met a bound: nothing of it was done, and it may come again.
pub(super) fn exhausted(message: &str) -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY_DELAY));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// The status for a request that does not say what it should.
pub(super) fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("the request has no {what}"))
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
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (REJECTED, DOMAIN));
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
        assert_eq!(
            status.get_error_details().retry_info().unwrap().retry_delay,
            Some(RETRY_DELAY)
        );
    }
}
