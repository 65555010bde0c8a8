//! One `Subscribe` call.

use std::task::{Context, Poll, ready};

use futures::{StreamExt, stream};
use millstream_proto::v1::{self, subscribe_request::Message};
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::{ClientError, Connection};

/// Part of the credits that is gathered before it is given back.
const GIVEN_BACK_PART: u32 = 4;

/// A call as it goes on.
pub(super) struct Call {
    connection: Connection,
    requests: mpsc::UnboundedSender<v1::SubscribeRequest>,
    answers: Streaming<v1::SubscribeResponse>,
    /// All credits that the agent has at most.
    credits: u32,
    /// Those that it has used and not got back.
    used: u32,
}

impl Call {
    pub(super) async fn open(connection: Connection, start: v1::SubscribeStart) -> Result<Call, ClientError> {
        // A few bytes for each change that the consumer makes.
        let (requests, queue) = mpsc::unbounded_channel();
        let credits = start.credit_bytes;
        let _ = requests.send(request(Message::Start(start)));
        let next = |mut queue: mpsc::UnboundedReceiver<_>| async move {
            let request = queue.recv().await?;
            Some((request, queue))
        };
        let answers = connection.consumer().subscribe(stream::unfold(queue, next)).await;
        let answers = answers.map_err(|status| connection.error(status))?.into_inner();
        Ok(Call {
            connection,
            requests,
            answers,
            credits,
            used: 0,
        })
    }

    /// The next answer; an error where there will be none.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<v1::FetchedPartition, ClientError>> {
        let answer = match ready!(self.answers.poll_next_unpin(cx)) {
            Some(Ok(answer)) => answer,
            Some(Err(status)) => return Poll::Ready(Err(self.connection.error(status))),
            None => {
                return Poll::Ready(Err(ClientError::ConnectionLost {
                    url: self.connection.url().to_owned(),
                    reason: "the agent ended the call".to_owned(),
                }));
            }
        };
        self.used = self.used.saturating_add(answer.credit_bytes);
        if self.used >= (self.credits / GIVEN_BACK_PART).max(1) {
            let used = std::mem::take(&mut self.used);
            self.ask(Message::CreditBytes(used));
        }
        Poll::Ready(answer.fetched.ok_or_else(|| ClientError::BadAnswer {
            reason: "it has no part of a partition".to_owned(),
        }))
    }

    /// Sends a change. Where the call has ended, its answers say so.
    pub(super) fn ask(&self, message: Message) {
        let _ = self.requests.send(request(message));
    }
}

fn request(message: Message) -> v1::SubscribeRequest {
    v1::SubscribeRequest { message: Some(message) }
}
