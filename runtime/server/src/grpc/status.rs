//! Where an error of the broker becomes a gRPC status, and nowhere else.

use std::time::Duration;

use millstream_broker::{BrokerError, Kind, RejectedRecord};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// How long a producer that met a bound should wait.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Rejected records listed in a status; its details travel in a header, which has to stay small.
const REJECTS_LISTED_MAX: usize = 50;

/// Bound on one reason in the details.
const REASON_CHARS_MAX: usize = 100;

/// The status for an error. The message says what was wrong and what to do; defects and damage are logged here, once.
pub(super) fn status(error: BrokerError) -> Status {
    let code = code(error.kind());
    if matches!(code, Code::Internal | Code::DataLoss) {
        tracing::error!(%error, "a request failed");
    }
    let message = error.to_string();
    match &error {
        BrokerError::Rejected { rejects, .. } => Status::with_error_details(code, message, rejected(rejects)),
        BrokerError::TailFull { .. } => {
            Status::with_error_details(code, message, ErrorDetails::with_retry_info(Some(RETRY_DELAY)))
        }
        _ => Status::new(code, message),
    }
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
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Corrupt => Code::DataLoss,
        Kind::Internal => Code::Internal,
    }
}

fn rejected(rejects: &[RejectedRecord]) -> ErrorDetails {
    let mut details = ErrorDetails::new();
    for reject in rejects.iter().take(REJECTS_LISTED_MAX) {
        let reason: String = reject.reason.chars().take(REASON_CHARS_MAX).collect();
        details.add_bad_request_violation(format!("records[{}]", reject.index), reason);
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_records_are_named_in_the_details() {
        let rejects = vec![RejectedRecord {
            index: 7,
            reason: "no such field".to_owned(),
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
