//! Where a member begins to read what its group gives it.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, stream};
use millstream_broker::{BrokerError, GroupCommit, GroupOffset, Offset, TopicPartition};

use super::{
    super::{LED_ELSEWHERE, Refusal, Start},
    Shared,
};

/// Partitions whose beginnings are looked for at once.
const PARTITIONS_AT_ONCE: usize = 16;

/// Where to begin reading a partition.
struct Beginning {
    at: TopicPartition,
    offset: Offset,
    /// Whether it was found because nothing that can be read is committed; not where an error is to be told instead.
    is_new: bool,
}

impl Shared {
    /// Where to begin reading these, as far as it can be found now.
    ///
    /// # Errors
    /// Why it is not known what the group has committed.
    pub(super) async fn beginnings(
        &self,
        taken: Vec<TopicPartition>,
    ) -> Result<Vec<(TopicPartition, Offset)>, Refusal> {
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let committed = match self.broker.group_offsets(&self.group, &taken).await {
            Ok(committed) => committed.into_iter(),
            Err(error) if error.retry_after_ms().is_some() => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let committed: HashMap<TopicPartition, Offset> = committed
            .map(|offset| ((offset.topic, offset.partition), offset.offset))
            .collect();
        let found = taken.into_iter().map(|at| {
            let committed = committed.get(&at).copied();
            self.beginning(at, committed)
        });
        let found: Vec<Option<Beginning>> = stream::iter(found).buffered(PARTITIONS_AT_ONCE).collect().await;
        let is_remembered = |beginning: &Beginning| beginning.is_new && matches!(self.start, Start::Latest);
        let (new, known): (Vec<_>, Vec<_>) = found.into_iter().flatten().partition(is_remembered);
        let known = known.into_iter().map(|beginning| (beginning.at, beginning.offset));
        Ok(known.chain(self.remember(new).await).collect())
    }

    /// Commits where the group begins with the latest; those of which that is stored. Else what comes before the first commit
    /// would be left out where a partition goes to another member.
    async fn remember(&self, new: Vec<Beginning>) -> Vec<(TopicPartition, Offset)> {
        if new.is_empty() {
            return Vec::new();
        }
        let offsets = new.iter().map(|beginning| GroupOffset {
            topic: beginning.at.0.clone(),
            partition: beginning.at.1,
            offset: beginning.offset,
            metadata: String::new(),
            committed_at_ms: 0,
        });
        let commit = GroupCommit {
            group: self.group.clone(),
            member_id: self.member_id.clone(),
            generation: self.state().holding.generation(),
            offsets: offsets.collect(),
        };
        // What is not stored now is looked for anew.
        let Ok(failures) = self.broker.group_commit(commit).await else {
            return Vec::new();
        };
        let failed: HashSet<TopicPartition> = failures
            .into_iter()
            .map(|failure| (failure.topic, failure.partition))
            .collect();
        let stored = new.into_iter().filter(|beginning| !failed.contains(&beginning.at));
        stored.map(|beginning| (beginning.at, beginning.offset)).collect()
    }

    /// Where to begin; nothing where that is to be asked again later.
    async fn beginning(&self, at: TopicPartition, committed: Option<Offset>) -> Option<Beginning> {
        let (offset, is_new) = match self.first_offset(&at, committed).await {
            Ok(offset) => (offset, committed != Some(offset)),
            Err(error) if error.retry_after_ms().is_some() => return None,
            // Whoever begins to read there is told what is wrong.
            Err(_) => (committed.unwrap_or(Offset(0)), false),
        };
        Some(Beginning { at, offset, is_new })
    }

    /// What is committed, where that can be read; else where the call says.
    async fn first_offset(
        &self,
        (topic, partition): &TopicPartition,
        committed: Option<Offset>,
    ) -> Result<Offset, BrokerError> {
        let (start, end) = match self.broker.offsets(topic, *partition).await {
            Ok(offsets) => offsets,
            // Whoever reads there is told who leads it, or waits until this agent does. What is committed may lie beyond what
            // is known here.
            Err(error) if error.reason() == LED_ELSEWHERE => {
                let (start, end) = self.broker.stored_offsets(topic, *partition).await?;
                (start, committed.map_or(end, |committed| committed.max(end)))
            }
            Err(error) => return Err(error),
        };
        // It may have been deleted meanwhile.
        let readable = committed.filter(|committed| (start..=end).contains(committed));
        // A member begins at nothing but the first or the latest.
        Ok(readable.unwrap_or(match self.start {
            Start::Latest => end,
            _ => start,
        }))
    }
}
