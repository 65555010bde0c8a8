//! What a module says, as a stream.

use std::sync::Arc;

use futures::{StreamExt as _, future, stream, stream::BoxStream};
use millstream_broker::LogLine;
use millstream_proto::v1;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tonic::Status;

use super::{Api, stopping};

/// The last lines, then where that is asked for all that come, until the agent stops or the reader goes away.
pub(super) async fn stream(
    api: &Api,
    request: v1::ModuleLogsRequest,
) -> Result<BoxStream<'static, Result<v1::ModuleLogsResponse, Status>>, Status> {
    let logs = api.broker.module_logs(&request.name).await;
    let logs = api.told(logs).await?;
    let (last, later) = logs.follow();
    let last = stream::iter(last.into_iter().map(Item::Line));
    let items = match request.follow {
        false => last.boxed(),
        true => last.chain(lines(later)).take_until(stopping(api.stop.clone())).boxed(),
    };
    let topic = request.topic;
    let wanted = items.filter_map(move |item| {
        let response = match item {
            Item::Line(line) if topic.is_empty() || line.topic == topic => Some(message(&line)),
            Item::Line(_) => None,
            Item::Missed(count) => Some(missed(count)),
        };
        future::ready(response.map(Ok))
    });
    Ok(wanted.boxed())
}

enum Item {
    Line(Arc<LogLine>),
    /// The reader was too slow for so many lines.
    Missed(u64),
}

fn lines(receiver: Receiver<Arc<LogLine>>) -> BoxStream<'static, Item> {
    let next = |mut receiver: Receiver<Arc<LogLine>>| async move {
        let item = match receiver.recv().await {
            Ok(line) => Item::Line(line),
            Err(RecvError::Lagged(count)) => Item::Missed(count),
            Err(RecvError::Closed) => return None,
        };
        Some((item, receiver))
    };
    stream::unfold(receiver, next).boxed()
}

fn message(line: &LogLine) -> v1::ModuleLogsResponse {
    v1::ModuleLogsResponse {
        timestamp_ms: line.timestamp_ms,
        level: line.level.to_owned(),
        topic: line.topic.clone(),
        partition: line.partition,
        version: line.version,
        text: line.text.clone(),
    }
}

fn missed(count: u64) -> v1::ModuleLogsResponse {
    v1::ModuleLogsResponse {
        level: "warn".to_owned(),
        text: format!("{count} lines came too fast to be sent here"),
        ..v1::ModuleLogsResponse::default()
    }
}
