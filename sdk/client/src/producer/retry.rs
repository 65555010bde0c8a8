//! What to do about a batch that was not stored.

use std::time::Duration;

use tonic::Code;

use crate::ClientError;

/// Reasons of errors behind which nothing of the batch can have been stored.
const NOT_STORED: [&str; 5] = [
    "STREAM_BROKEN",
    "LEASE_LAPSED",
    "LED_ELSEWHERE",
    "WAL_ELSEWHERE",
    "BREAKER_OPEN",
];

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Send it again, as it is, after so long at the least.
    Again(Duration),
    /// Send it again under a greater epoch: what came before it will never be stored.
    Renumber,
    /// Tell who waits for it.
    Tell,
    /// Tell everybody: a later start of the same producer has taken over.
    End,
}

/// What to do about a batch that came back with an error.
pub(super) fn remedy(error: &ClientError, idempotent: bool) -> Remedy {
    match error {
        ClientError::Refused { reason, .. } if reason == "PRODUCER_FENCED" => Remedy::End,
        ClientError::Refused { reason, .. }
            if idempotent && matches!(reason.as_str(), "SEQUENCE_OUT_OF_ORDER" | "PRODUCER_UNKNOWN") =>
        {
            Remedy::Renumber
        }
        ClientError::Refused {
            code,
            reason,
            retry_after,
            ..
        } => {
            let not_stored = *code == Code::ResourceExhausted || NOT_STORED.contains(&reason.as_str());
            let helps = retry_after.is_some() || *code == Code::ResourceExhausted;
            match helps && (idempotent || not_stored) {
                true => Remedy::Again(retry_after.unwrap_or_default()),
                false => Remedy::Tell,
            }
        }
        // Whether it was stored is not known: only an idempotent producer can ask.
        ClientError::ConnectionLost { .. } | ClientError::Unreachable { .. } if idempotent => {
            Remedy::Again(Duration::ZERO)
        }
        _ => Remedy::Tell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code, reason: &str, retry_after: Option<Duration>) -> ClientError {
        ClientError::Refused {
            code,
            reason: reason.to_owned(),
            message: Box::default(),
            summary: None,
            rejects: Vec::new(),
            retry_after,
            leader: None,
        }
    }

    #[test]
    fn without_idempotence_only_what_was_not_stored_is_sent_again() {
        let wait = Some(Duration::from_millis(250));
        let full = refused(Code::ResourceExhausted, "TAIL_FULL", wait);
        assert_eq!(remedy(&full, false), Remedy::Again(Duration::from_millis(250)));
        let broken = refused(Code::Aborted, "STREAM_BROKEN", Some(Duration::ZERO));
        assert_eq!(remedy(&broken, false), Remedy::Again(Duration::ZERO));
        let unknown = refused(Code::Unavailable, "APPEND_FAILED", wait);
        assert_eq!(remedy(&unknown, false), Remedy::Tell);
        assert_eq!(remedy(&unknown, true), Remedy::Again(Duration::from_millis(250)));
        let lost = ClientError::ConnectionLost {
            url: String::new(),
            reason: String::new(),
        };
        assert_eq!(remedy(&lost, false), Remedy::Tell);
        assert_eq!(remedy(&lost, true), Remedy::Again(Duration::ZERO));
    }

    #[test]
    fn a_refusal_for_good_is_told() {
        let wrong = refused(Code::InvalidArgument, "RECORDS_REJECTED", None);
        assert_eq!(remedy(&wrong, true), Remedy::Tell);
        let fenced = refused(Code::FailedPrecondition, "PRODUCER_FENCED", None);
        assert_eq!(remedy(&fenced, true), Remedy::End);
        let gap = refused(Code::Aborted, "SEQUENCE_OUT_OF_ORDER", None);
        assert_eq!(remedy(&gap, true), Remedy::Renumber);
    }
}
