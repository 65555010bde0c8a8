//! What can go wrong between a client and its agent, in words for people.

use std::{error::Error, io, time::Duration};

use millstream_proto::v1;
use thiserror::Error;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A failed call, with the facts that are needed to act on it.
#[derive(Clone, Debug, Error)]
pub enum ClientError {
    /// The address cannot be used.
    #[error("{url:?} is no server address: {reason}; give one like http://127.0.0.1:7070")]
    Url {
        /// The address as it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing accepts connections there.
    #[error("no agent answers at {url} ({reason}); start one with `millstream serve`")]
    Unreachable {
        /// The agent's address.
        url: String,
        /// What the operating system said.
        reason: String,
    },
    /// The connection broke under a request, which may or may not have been carried out.
    #[error("the connection to {url} broke ({reason}); whether the request was carried out is not known")]
    ConnectionLost {
        /// The agent's address.
        url: String,
        /// What the transport said.
        reason: String,
    },
    /// The agent refused the request or failed at it.
    #[error("{message}")]
    Refused {
        /// The gRPC code.
        code: Code,
        /// A stable word for it, in UPPER_SNAKE_CASE; empty where the agent gives none.
        reason: String,
        /// The agent's own words.
        message: Box<str>,
        /// The message without the reasons of `rejects`, where there are any.
        summary: Option<Box<str>>,
        /// Records of the request that a module rejected.
        rejects: Vec<Reject>,
        /// How long the agent asks to wait before another try.
        retry_after: Option<Duration>,
        /// HOST:PORT of the agent that leads the partition, where that is another one.
        leader: Option<Box<str>>,
    },
    /// The group has not given it the partition.
    #[error("partition {partition} of topic {topic:?} is not this member's to read now")]
    NotAssigned {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: u32,
    },
    /// The topic has fewer partitions.
    #[error("topic {topic:?} has no partition {partition}: it has {partitions}, counted from 0")]
    NoSuchPartition {
        /// The topic's name.
        topic: String,
        /// The partition asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// The offset lies outside of what can be read.
    #[error(
        "offset {offset} is out of range: partition {partition} of topic {topic:?} can be read from \
         {log_start_offset} to {high_watermark}"
    )]
    OutOfRange {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: u64,
        /// First offset that can be read.
        log_start_offset: u64,
        /// One past the last offset that can be read.
        high_watermark: u64,
    },
    /// A record that fits into no batch.
    #[error("a record of {bytes} bytes is above the limit of {bytes_max} bytes for a whole batch")]
    RecordTooLarge {
        /// Bytes of key, value and headers.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The partitions that are to be read are led by more agents than a consumer reads from.
    #[error("the partitions are led by more agents than one consumer reads from")]
    TooManyAgents,
    /// The producer or consumer went away before.
    #[error("it was given up before it was answered")]
    Abandoned,
    /// The agent's answer breaks the protocol.
    #[error("the agent's answer cannot be used: {reason}")]
    BadAnswer {
        /// What is wrong with it.
        reason: String,
    },
}

/// A record that a module rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Its position in the request, counted from 0.
    pub index: u64,
    /// The module's reason.
    pub reason: String,
}

impl ClientError {
    /// The gRPC code where the agent itself answered.
    pub fn code(&self) -> Option<Code> {
        match self {
            ClientError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The agent's word for it, where the agent itself answered.
    pub fn reason(&self) -> Option<&str> {
        match self {
            ClientError::Refused { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// HOST:PORT of the agent that leads the partition, where another one than the one that was asked does.
    pub fn leader(&self) -> Option<&str> {
        match self {
            ClientError::Refused { leader, .. } => leader.as_deref(),
            _ => None,
        }
    }

    /// Whether nobody answered: another try may find somebody.
    pub(crate) fn is_away(&self) -> bool {
        matches!(
            self,
            ClientError::ConnectionLost { .. } | ClientError::Unreachable { .. }
        )
    }

    /// Whether the same may be answered later.
    pub(crate) fn is_temporary(&self) -> bool {
        let code = self.code();
        self.is_away()
            || matches!(
                code,
                Some(Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded)
            )
    }

    /// Reads an error that stands in an answer about several things.
    pub(crate) fn from_message(error: v1::Error) -> ClientError {
        // Its message leaves out what stands beside it.
        let has_rejects = !error.rejected.is_empty();
        let rejects = error.rejected.into_iter().map(|rejected| Reject {
            index: u64::from(rejected.index),
            reason: rejected.reason,
        });
        ClientError::Refused {
            code: Code::from_i32(error.code),
            reason: error.reason,
            summary: has_rejects.then(|| error.message.as_str().into()),
            message: error.message.into(),
            rejects: rejects.collect(),
            retry_after: error.retry_after_ms.map(|ms| Duration::from_millis(u64::from(ms))),
            leader: Some(error.leader).filter(|leader| !leader.is_empty()).map(String::into),
        }
    }

    /// The same, for an answer that is put together from those of several agents.
    pub(crate) fn to_message(&self) -> v1::Error {
        let code = match self {
            ClientError::Refused { code, .. } => *code,
            error if error.is_away() => Code::Unavailable,
            _ => Code::Unknown,
        };
        v1::Error {
            code: code.into(),
            reason: self.reason().unwrap_or_default().to_owned(),
            message: self.to_string(),
            leader: self.leader().unwrap_or_default().to_owned(),
            ..v1::Error::default()
        }
    }

    /// Reads a failed call's status.
    pub(crate) fn from_status(status: Status, url: &str) -> ClientError {
        // Only what fails on this side of the wire has a source: what the agent sends is a code and a message.
        if let Some(source) = status.source() {
            return ClientError::from_transport(source, url);
        }
        let message = match status.message() {
            "" => format!("the agent answered {:?} without a reason", status.code()),
            message => message.to_owned(),
        };
        let info = status.get_details_error_info();
        let (reason, summary, address) = info.map_or_else(Default::default, |mut info| {
            let summary = info.metadata.remove("summary");
            (info.reason, summary, info.metadata.remove("address"))
        });
        // Other reasons name agents too, but none that answers.
        let leader = address.filter(|address| reason == "LED_ELSEWHERE" && !address.is_empty());
        ClientError::Refused {
            code: status.code(),
            reason,
            message: message.into(),
            summary: summary.map(String::into),
            rejects: rejects(&status),
            retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
            leader: leader.map(String::into),
        }
    }

    /// Tells a refused connection from a broken one.
    pub(crate) fn from_transport(error: &(dyn Error + 'static), url: &str) -> ClientError {
        let url = url.to_owned();
        let chain: Vec<&(dyn Error + 'static)> =
            std::iter::successors(Some(error), |error| (*error).source()).collect();
        let reason = chain.last().unwrap_or(&error).to_string();
        let refused = chain
            .iter()
            .filter_map(|error| error.downcast_ref::<io::Error>())
            .any(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        match refused {
            true => ClientError::Unreachable { url, reason },
            false => ClientError::ConnectionLost { url, reason },
        }
    }
}

/// The field violations `records[i]` of a refused produce request.
fn rejects(status: &Status) -> Vec<Reject> {
    let Some(bad_request) = status.get_details_bad_request() else {
        return Vec::new();
    };
    bad_request
        .field_violations
        .into_iter()
        .filter_map(|violation| {
            let index = violation
                .field
                .strip_prefix("records[")?
                .strip_suffix(']')?
                .parse()
                .ok()?;
            Some(Reject {
                index,
                reason: violation.description,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_status_keeps_its_message_its_rejects_and_its_retry_hint() {
        let mut details = ErrorDetails::with_bad_request_violation("records[3]", "no time");
        details.add_bad_request_violation("topic", "not a record");
        details.set_retry_info(Some(Duration::from_millis(250)));
        details.set_error_info(
            "RECORDS_REJECTED",
            "millstream.v1",
            [("summary".into(), "1 record".into())],
        );
        let status =
            Status::with_error_details(Code::InvalidArgument, "module access-log@1 rejected 1 record", details);

        let error = ClientError::from_status(status, "http://a:1");

        assert_eq!(error.to_string(), "module access-log@1 rejected 1 record");
        assert_eq!(error.code(), Some(Code::InvalidArgument));
        assert_eq!(error.reason(), Some("RECORDS_REJECTED"));
        let ClientError::Refused {
            summary,
            rejects,
            retry_after,
            ..
        } = error
        else {
            panic!("{error:?}")
        };
        assert_eq!(summary.as_deref(), Some("1 record"));
        assert_eq!(
            rejects,
            [Reject {
                index: 3,
                reason: "no time".to_owned()
            }]
        );
        assert_eq!(retry_after, Some(Duration::from_millis(250)));
    }

    #[test]
    fn the_leader_is_named_by_a_status_and_by_a_part_of_an_answer() {
        let status = |reason: &str| {
            let mut details = ErrorDetails::new();
            details.set_error_info(reason, "millstream.v1", [("address".into(), "b:7070".into())]);
            let status = Status::with_error_details(Code::Unavailable, "led by b", details);
            ClientError::from_status(status, "http://a:1")
        };
        assert_eq!(status("LED_ELSEWHERE").leader(), Some("b:7070"));
        assert_eq!(status("WAL_ELSEWHERE").leader(), None, "that agent is away");
        let part = |leader: &str| {
            ClientError::from_message(v1::Error {
                leader: leader.to_owned(),
                ..v1::Error::default()
            })
        };
        assert_eq!(part("b:7070").leader(), Some("b:7070"));
        assert_eq!(part("").leader(), None);
    }

    #[test]
    fn a_status_without_a_message_still_says_something() {
        let error = ClientError::from_status(Status::new(Code::Internal, ""), "http://a:1");
        assert_eq!(error.to_string(), "the agent answered Internal without a reason");
    }
}
