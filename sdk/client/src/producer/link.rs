//! One `ProduceStream` call.

use std::collections::VecDeque;

use futures::stream;
use millstream_proto::v1::{
    self, produce_stream_response::Result as Answer, producer_service_client::ProducerServiceClient,
};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::wire::{Queued, Request};
use crate::{ClientError, Connection};

/// A call as it goes on.
pub(super) struct Link {
    connection: Connection,
    requests: mpsc::UnboundedSender<Request>,
    answers: Streaming<v1::ProduceStreamResponse>,
    /// The partitions of the requests that are not answered, in their order.
    sent: VecDeque<u32>,
    answered: u64,
}

/// What a call says next.
pub(super) enum News {
    /// The oldest request of this partition is answered.
    Answered(u32, Result<v1::ProduceResponse, ClientError>),
    /// The oldest request of this partition will not be answered: its call has ended. Whether it was stored is not known.
    Lost(u32, ClientError),
    /// A call has ended.
    Ended(ClientError),
}

impl Link {
    pub(super) async fn open(connection: Connection) -> Result<Link, ClientError> {
        // What is in it is bounded by the producer's buffer.
        let (requests, queue) = mpsc::unbounded_channel();
        let queued = Queued::new(connection.channel(), queue);
        let answers = ProducerServiceClient::new(queued).produce_stream(stream::empty()).await;
        let answers = answers.map_err(|status| connection.error(status))?.into_inner();
        Ok(Link {
            connection,
            requests,
            answers,
            sent: VecDeque::new(),
            answered: 0,
        })
    }

    pub(super) fn send(&mut self, request: Request) {
        self.sent.push_back(request.partition);
        // Where the call has ended, its answers say so.
        let _ = self.requests.send(request);
    }

    /// The partitions of what was not answered, one for each request.
    pub(super) fn unanswered(self) -> Vec<u32> {
        self.sent.into()
    }

    /// Whether everything sent is answered.
    pub(super) fn is_idle(&self) -> bool {
        self.sent.is_empty()
    }

    /// Waits for what it says next.
    pub(super) async fn news(&mut self) -> News {
        let answer = match self.answers.message().await {
            Err(status) => return News::Ended(self.connection.error(status)),
            Ok(None) => {
                return News::Ended(ClientError::ConnectionLost {
                    url: self.connection.url().to_owned(),
                    reason: "the agent ended the call".to_owned(),
                });
            }
            Ok(Some(answer)) => answer,
        };
        let bad = |reason: String| News::Ended(ClientError::BadAnswer { reason });
        if answer.request_index != self.answered {
            return bad(format!(
                "request {} of a produce stream is answered, expected {}",
                answer.request_index, self.answered
            ));
        }
        let Some(partition) = self.sent.pop_front() else {
            return bad("a produce stream answers more than was sent".to_owned());
        };
        self.answered += 1;
        match answer.result {
            Some(Answer::Produced(produced)) => News::Answered(partition, Ok(produced)),
            Some(Answer::Error(error)) => News::Answered(partition, Err(ClientError::from_message(error))),
            None => {
                self.sent.push_front(partition);
                bad("an answer of a produce stream is empty".to_owned())
            }
        }
    }
}
