//! A member of a group.

use std::sync::Arc;
use std::time::Duration;

use millstream_proto::v1;
use tokio::task::JoinHandle;

use super::TopicPartition;
use super::keeper::Common;
use super::share::Change;
use crate::{ClientError, Connection};

/// How a member takes part.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// What to call it in lists, 249 bytes at most.
    pub client_id: String,
    /// How long after its last heartbeat it is taken for dead: 1 s to 10 min.
    pub session_timeout: Duration,
    /// A member that asks for nothing for so long hangs: it is not kept alive any more.
    pub max_poll_interval: Duration,
}

impl Default for GroupSettings {
    fn default() -> GroupSettings {
        GroupSettings {
            client_id: String::new(),
            session_timeout: Duration::from_secs(30),
            max_poll_interval: Duration::from_secs(5 * 60),
        }
    }
}

/// Takes part in a consumer group: heartbeats are sent in the background, as long as it asks for [changes](Self::take_change)
/// or [says](Self::poll) that it is at work. Dropped without [`leave`](Self::leave) it is replaced once its session is over.
#[derive(Debug)]
pub struct GroupMember {
    common: Arc<Common>,
    keeper: JoinHandle<()>,
}

impl GroupMember {
    /// Joins a group.
    ///
    /// # Errors
    /// What the first heartbeat is answered.
    pub async fn join(
        connection: &Connection,
        group: &str,
        topics: Vec<String>,
        settings: GroupSettings,
    ) -> Result<GroupMember, ClientError> {
        let common = Common::new(connection, group, topics, settings);
        common.beat().await?;
        let keeper = tokio::spawn(common.clone().keep());
        Ok(GroupMember { common, keeper })
    }

    /// Its id; empty while it joins anew.
    pub fn id(&self) -> String {
        self.common.state().share.member_id.clone()
    }

    /// The generation that it was told last.
    pub fn generation(&self) -> u64 {
        self.common.state().share.generation
    }

    /// Whether it was given this one and has not given it up.
    pub fn owns(&self, at: &TopicPartition) -> bool {
        self.common.state().share.owned().contains(at)
    }

    /// Says that it is at work.
    pub fn poll(&self) {
        self.common.poll();
    }

    /// What is to be done now, if anything. It says that the member is at work.
    ///
    /// # Errors
    /// Why it can be a member no longer.
    pub fn take_change(&self) -> Result<Option<Change>, ClientError> {
        self.common.poll();
        let mut state = self.common.state();
        if let Some(change) = state.share.change() {
            drop(state);
            // What it owns is told at once.
            self.common.wake.notify_one();
            return Ok(Some(change));
        }
        match &state.share.failed {
            Some(error) => Err(error.clone()),
            None => Ok(None),
        }
    }

    /// Waits until there is something to do, or it can be a member no longer. It does not say that the member is at work.
    pub async fn changed(&self) {
        self.common.wait_for(|share| share.has_change()).await;
    }

    /// Says that it reads these no longer, and has committed what it will.
    pub fn give_up(&self, partitions: &[TopicPartition]) {
        self.common.state().share.give_up(partitions);
        self.common.wake.notify_one();
    }

    /// Stores how far the group has read partitions that it owns; which were not stored, and why. Where agents share the
    /// partitions, the leader of each is given its offset.
    ///
    /// # Errors
    /// Where no agent answers for any of them, and with the reason `MEMBER_UNKNOWN` where its session is over. What is stored is
    /// not known then.
    pub async fn commit(&self, offsets: Vec<v1::CommittedOffset>) -> Result<Vec<v1::CommitFailure>, ClientError> {
        self.common.commit(offsets).await
    }

    /// What the group has committed of these partitions.
    ///
    /// # Errors
    /// What the agent answers.
    pub async fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<v1::CommittedOffset>, ClientError> {
        self.common.committed(partitions).await
    }

    /// What it shares with its heartbeats, for work that goes on beside it.
    pub(super) fn common(&self) -> &Arc<Common> {
        &self.common
    }

    /// Leaves the group, so that others need not wait for its session to end.
    ///
    /// # Errors
    /// What the agent answers; a session that is over already is none.
    pub async fn leave(self) -> Result<(), ClientError> {
        self.keeper.abort();
        let request = v1::LeaveGroupRequest {
            group: self.common.group.clone(),
            member_id: self.id(),
        };
        match self.common.connection.groups().leave_group(request).await {
            Ok(_) => Ok(()),
            Err(status) => match self.common.connection.error(status) {
                error if error.reason() == Some("MEMBER_UNKNOWN") => Ok(()),
                error => Err(error),
            },
        }
    }
}

impl Drop for GroupMember {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}
