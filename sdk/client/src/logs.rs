//! What modules say.

use millstream_proto::v1;
use tonic::Streaming;

use crate::{Admin, ClientError, Connection};

/// Lines of a module's log, one after the other.
#[derive(Debug)]
pub struct LogLines {
    connection: Connection,
    lines: Streaming<v1::ModuleLogsResponse>,
}

impl LogLines {
    /// The next line; `None` at the end. Where lines are followed it waits for one.
    ///
    /// # Errors
    /// The agent went away.
    pub async fn next(&mut self) -> Result<Option<v1::ModuleLogsResponse>, ClientError> {
        let line = self.lines.message().await;
        line.map_err(|status| self.connection.error(status))
    }
}

impl Admin {
    /// What a module has logged lately on the agent, about one topic where `topic` is not empty; with `follow` what it logs
    /// from then on too.
    pub async fn module_logs(&self, name: &str, topic: &str, follow: bool) -> Result<LogLines, ClientError> {
        let request = v1::ModuleLogsRequest {
            name: name.to_owned(),
            topic: topic.to_owned(),
            follow,
        };
        let answer = self.connection.modules().module_logs(request).await;
        Ok(LogLines {
            connection: self.connection.clone(),
            lines: answer.map_err(|status| self.error(status))?.into_inner(),
        })
    }
}
