//! One of the clients: an agent that does things at random, and believes whatever lease it sees.

use std::time::Duration;

use millstream_batch::Offset;
use millstream_meta::{CommitOutcome, Lease, MetaError, Metadata, NewIncarnation, NewSegment, TopicConfig, WalKind};
use uuid::Uuid;

use super::history::{Event, Partition};
use super::{Board, PARTITIONS};
use crate::{NOW_MS, new_segment};

/// The topic that stays.
pub(super) const KEPT: &str = "kept";
/// The topic that is deleted and made again.
pub(super) const DOOMED: &str = "doomed";

/// So short that leases run out on their own while others wait for them.
const LEASE: Duration = Duration::from_millis(40);

pub(super) struct Client {
    metadata: Metadata,
    agent: String,
    incarnation: Uuid,
    random: fastrand::Rng,
    board: Board,
    /// Numbers its keys.
    keys: u32,
    events: Vec<Event>,
}

impl Client {
    pub(super) async fn new(metadata: Metadata, number: u64, random: fastrand::Rng, board: Board) -> Client {
        let mut client = Client {
            metadata,
            agent: format!("agent-{number}"),
            incarnation: Uuid::nil(),
            random,
            board,
            keys: 0,
            events: Vec::new(),
        };
        client.start_again().await;
        client
    }

    pub(super) async fn run(mut self, steps: u32) -> Vec<Event> {
        for _ in 0..steps {
            match self.random.u32(0..100) {
                0..30 => self.acquire().await,
                30..70 => self.commit().await,
                70..80 => self.merge().await,
                80..85 => self.expire().await,
                85..90 => self.truncate().await,
                90..94 => self.release().await,
                94..96 => self.start_again().await,
                96..98 => self.leave().await,
                _ => self.make_again().await,
            }
        }
        self.events
    }

    async fn acquire(&mut self) {
        let Some((topic_id, partition)) = self.any_partition().await else {
            return;
        };
        let acquired = self.metadata.acquire_lease(topic_id, partition, self.incarnation).await;
        let Some(lease) = self.unless_refused(acquired) else {
            return;
        };
        self.events.push(Event::Acquired {
            partition: (topic_id, partition),
            epoch: lease.epoch,
            committed_end: lease.committed_end,
        });
        let mut board = self.board.lock().unwrap();
        board.insert((topic_id, partition), lease);
    }

    async fn commit(&mut self) {
        let Some((lease, end, _)) = self.any_lease().await else {
            return;
        };
        // Some do not know where the end is.
        let base = end.0 + u64::from(self.random.u8(..) < 16);
        let end = base + self.random.u64(1..20);
        let segment = self.segment(base, end);
        let committed = self.metadata.commit_segment(&lease, &segment).await;
        let Some(outcome) = self.unless_refused(committed) else {
            return;
        };
        assert_eq!(outcome, CommitOutcome::Committed, "its key is new");
        if self.random.bool() {
            let again = self.metadata.commit_segment(&lease, &segment).await.unwrap();
            assert_eq!(again, CommitOutcome::AlreadyCommitted);
        }
        self.events.push(Event::Committed {
            partition: (lease.topic_id, lease.partition),
            epoch: lease.epoch,
            segment,
        });
    }

    async fn merge(&mut self) {
        let Some((lease, _, log_start)) = self.any_lease().await else {
            return;
        };
        let rows = self
            .metadata
            .segments(lease.topic_id, lease.partition, log_start, 50)
            .await
            .unwrap();
        if rows.len() < 2 {
            return;
        }
        let first = self.random.usize(..rows.len() - 1);
        let last = self.random.usize(first + 1..rows.len().min(first + 5));
        let sources: Vec<Offset> = rows[first..=last].iter().map(|row| row.base_offset).collect();
        let merged = self.segment(rows[first].base_offset.0, rows[last].end_offset.0);
        let outcome = self.metadata.merge_segments(&lease, &sources, &merged, NOW_MS).await;
        let Some(outcome) = self.unless_refused(outcome) else {
            return;
        };
        assert_eq!(outcome, CommitOutcome::Committed, "its key is new");
        self.events.push(Event::Merged {
            partition: (lease.topic_id, lease.partition),
            epoch: lease.epoch,
            segment: merged,
        });
    }

    async fn expire(&mut self) {
        let Some((lease, ..)) = self.any_lease().await else {
            return;
        };
        let bytes_max = self.random.u64(20..200);
        let expired = self
            .metadata
            .expire_segments(&lease, None, Some(bytes_max), NOW_MS)
            .await;
        if let Some(Some(expired)) = self.unless_refused(expired) {
            self.taken(&lease, expired.log_start);
        }
    }

    async fn truncate(&mut self) {
        let Some((lease, end, log_start)) = self.any_lease().await else {
            return;
        };
        let before = Offset(self.random.u64(log_start.0..=end.0));
        let truncated = self.metadata.truncate(&lease, before, NOW_MS).await;
        if let Some(truncated) = self.unless_refused(truncated) {
            self.taken(&lease, truncated.log_start);
        }
    }

    fn taken(&mut self, lease: &Lease, log_start: Offset) {
        let partition = (lease.topic_id, lease.partition);
        self.events.push(Event::Taken { partition, log_start });
    }

    async fn release(&mut self) {
        let Some((lease, end, _)) = self.any_lease().await else {
            return;
        };
        let released = self.metadata.release_leases(&[(lease.clone(), end)]).await;
        if self.unless_refused(released) == Some(vec![true]) {
            self.events.push(Event::Released {
                partition: (lease.topic_id, lease.partition),
                epoch: lease.epoch,
            });
        }
    }

    /// Becomes a new incarnation of its agent.
    async fn start_again(&mut self) {
        self.incarnation = Uuid::from_u128(self.random.u128(..));
        let new = NewIncarnation {
            agent_name: &self.agent,
            address: "host:7070",
            incarnation: self.incarnation,
            wal_kind: WalKind::Object,
            lease: LEASE,
        };
        self.metadata.register_incarnation(&new, NOW_MS).await.unwrap();
    }

    /// Leaves, and comes back as a new incarnation.
    async fn leave(&mut self) {
        self.metadata.leave(self.incarnation).await.unwrap();
        self.start_again().await;
    }

    /// Deletes the doomed topic, and makes it again.
    async fn make_again(&mut self) {
        if let Some(topic) = self.metadata.topic(DOOMED).await.unwrap() {
            let deleted = self.metadata.delete_topic(topic.id, NOW_MS).await;
            assert!(
                matches!(deleted, Ok(_) | Err(MetaError::NotFound { .. })),
                "{deleted:?}"
            );
        }
        let id = Uuid::from_u128(self.random.u128(..));
        let made = self
            .metadata
            .create_topic(id, DOOMED, 1, &TopicConfig::default(), NOW_MS)
            .await;
        assert!(matches!(made, Ok(_) | Err(MetaError::AlreadyExists { .. })), "{made:?}");
    }

    async fn any_partition(&mut self) -> Option<Partition> {
        let number = self.random.u32(..=PARTITIONS);
        let (name, partition) = match number {
            PARTITIONS => (DOOMED, 0),
            kept => (KEPT, kept),
        };
        let topic = self.metadata.topic(name).await.unwrap()?;
        Some((topic.id, partition))
    }

    /// The last lease that anybody was given for some partition, with its committed end and its log start.
    async fn any_lease(&mut self) -> Option<(Lease, Offset, Offset)> {
        let partition = self.any_partition().await?;
        let lease = self.board.lock().unwrap().get(&partition)?.clone();
        let row = self.metadata.partition(partition.0, partition.1).await.unwrap()?;
        Some((lease, row.committed_end, row.log_start))
    }

    fn segment(&mut self, base: u64, end: u64) -> NewSegment {
        self.keys += 1;
        new_segment(&format!("{}-{}", self.agent, self.keys), base, end)
    }

    /// What was answered, unless it is one of the refusals that a race explains.
    fn unless_refused<T>(&mut self, answer: Result<T, MetaError>) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(
                MetaError::Fenced { .. }
                | MetaError::Conflict { .. }
                | MetaError::LeaseHeld { .. }
                | MetaError::NotFound { .. },
            ) => {
                self.events.push(Event::Refused);
                None
            }
            Err(error) => panic!("{}: {error}", self.agent),
        }
    }
}
