//! Topics: made, shown, altered, truncated and deleted.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, future::join_all, stream};
use millstream_batch::{Compression, Offset};
use millstream_meta::{Acks, MetaError, TimestampType, Topic, TopicConfig};
use tokio::time::timeout;

use crate::{
    broker::{Broker, NOT_POISONED, PARTITIONS_AT_ONCE, to_the_end},
    error::{BrokerError, Result},
    names::{check_partitions, check_topic_name},
    partition::PartitionStatus,
    topic::LiveTopic,
};

/// Greatest record size that a topic may allow.
const RECORD_BYTES_MAX: u32 = 16 << 20;
/// Least and greatest size of a topic's segments.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 30;

/// How long a list of topics waits for what other agents changed.
const LIST_PATIENCE: Duration = Duration::from_millis(500);
/// How often a change of settings is made anew because others changed them too.
const ALTER_TRIES_MAX: u32 = 8;

/// A topic to be made.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// 1 to 249 characters of `[a-zA-Z0-9._-]`.
    pub name: String,
    /// 1 to 100,000.
    pub partitions: u32,
    /// Its settings.
    pub config: TopicConfig,
}

/// What is to change about a topic; `None` leaves it as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct TopicChange {
    /// As in [`TopicConfig`].
    pub retention_ms: Option<Option<u64>>,
    /// As in [`TopicConfig`].
    pub retention_bytes: Option<Option<u64>>,
    /// As in [`TopicConfig`].
    pub compression: Option<Compression>,
    /// As in [`TopicConfig`].
    pub segment_bytes: Option<u64>,
    /// As in [`TopicConfig`].
    pub segment_age_ms: Option<u64>,
    /// As in [`TopicConfig`].
    pub record_bytes_max: Option<u32>,
    /// As in [`TopicConfig`]. What is stored already keeps its timestamps.
    pub timestamp_type: Option<TimestampType>,
    /// As in [`TopicConfig`].
    pub default_acks: Option<Acks>,
    /// How many partitions there are afterwards, no fewer than before.
    pub partitions: Option<u32>,
}

impl TopicChange {
    /// Changes settings; the number of partitions is none of them.
    pub fn apply(self, config: &mut TopicConfig) {
        let TopicConfig {
            retention_ms,
            retention_bytes,
            compression,
            record_bytes_max,
            segment_bytes,
            segment_age_ms,
            block_bytes: _,
            timestamp_type,
            default_acks,
        } = config;
        *retention_ms = self.retention_ms.unwrap_or(*retention_ms);
        *retention_bytes = self.retention_bytes.unwrap_or(*retention_bytes);
        *compression = self.compression.unwrap_or(*compression);
        *record_bytes_max = self.record_bytes_max.unwrap_or(*record_bytes_max);
        *segment_bytes = self.segment_bytes.unwrap_or(*segment_bytes);
        *segment_age_ms = self.segment_age_ms.unwrap_or(*segment_age_ms);
        *timestamp_type = self.timestamp_type.unwrap_or(*timestamp_type);
        *default_acks = self.default_acks.unwrap_or(*default_acks);
    }
}

impl Broker {
    /// Makes a topic.
    pub async fn create_topic(self: &Arc<Self>, new: NewTopic) -> Result<Topic> {
        let broker = self.clone();
        to_the_end("creating a topic", async move { broker.make_topic(new).await }).await
    }

    async fn make_topic(&self, new: NewTopic) -> Result<Topic> {
        check_topic_name(&new.name)?;
        check_partitions(new.partitions)?;
        check_config(&new.config)?;
        let (clock, metadata) = (&self.shared().clock, &self.shared().metadata);
        let id = uuid::Builder::from_random_bytes(clock.random_id().to_be_bytes()).into_uuid();
        let alone = self.topic_changes.lock().await;
        let created = metadata
            .create_topic(id, &new.name, new.partitions, &new.config, clock.now_ms())
            .await;
        let topic = match created {
            Ok(topic) => topic,
            // The answer may have been lost behind a change that happened, now or when nobody asked again: then what is
            // stored is served from now on.
            Err(error) => match metadata.topic(&new.name).await {
                Ok(Some(topic)) => topic,
                _ => return Err(error.into()),
            },
        };
        let replaced = self.serve(&topic);
        drop(alone);
        if let Some(replaced) = replaced {
            self.let_go_of(&replaced).await;
        }
        if topic.id != id {
            return Err(BrokerError::TopicExists { name: new.name });
        }
        Ok(topic)
    }

    /// Changes the settings of a topic; returns once every open partition goes by them.
    pub async fn alter_topic(self: &Arc<Self>, name: &str, change: TopicChange) -> Result<Topic> {
        let (broker, name) = (self.clone(), name.to_owned());
        to_the_end(
            "altering a topic",
            async move { broker.change_topic(&name, change).await },
        )
        .await
    }

    async fn change_topic(&self, name: &str, change: TopicChange) -> Result<Topic> {
        // What another agent has altered is not undone by what this one remembers.
        let live = self.take_up(name).await?;
        let live = live.ok_or_else(|| BrokerError::UnknownTopic { name: name.to_owned() })?;
        // Held while the change spreads, so that no partition opens with the settings of before, and the next change of
        // this topic comes behind it. Others go on: a partition whose log is stuck takes long to hear of it.
        let _no_opening = live.pipeline.write().await;
        let alone = self.topic_changes.lock().await;
        self.check_same(&live)?;
        let topic = self.alter_stored(&live.topic(), change).await?;
        let altered = Arc::new(topic.clone());
        live.set(altered.clone());
        drop(alone);
        let open = live.open_partitions();
        // A partition that is closed goes by nothing; whoever opens it next takes these settings.
        join_all(open.iter().map(|partition| partition.set_topic(altered.clone()))).await;
        self.manifest_due.notify_one();
        Ok(topic)
    }

    /// Changes what is stored about a topic, on top of what others change beside it.
    async fn alter_stored(&self, known: &Topic, change: TopicChange) -> Result<Topic> {
        let metadata = &self.shared().metadata;
        let (mut based_on, mut tries) = (known.clone(), 0);
        loop {
            let mut config = based_on.config.clone();
            change.apply(&mut config);
            check_config(&config)?;
            change
                .partitions
                .map_or(Ok(()), |asked| check_grows(&based_on, asked))?;
            let wanted = change.partitions.unwrap_or(based_on.partitions);
            let altered = metadata
                .alter_topic(known.id, &based_on.config, &config, change.partitions)
                .await;
            let error = match altered {
                Ok(topic) => return Ok(topic),
                Err(error) => error,
            };
            let is_ours = |topic: &Topic| topic.config == config && topic.partitions == wanted;
            match (metadata.topic(&known.name).await, &error) {
                // The answer may have been lost behind a change that happened: then what is stored is ours.
                (Ok(Some(topic)), _) if topic.id == known.id && is_ours(&topic) => return Ok(topic),
                (Ok(Some(topic)), MetaError::SettingsChanged { .. } | MetaError::Invalid { .. })
                    if topic.id == known.id && tries < ALTER_TRIES_MAX =>
                {
                    based_on = topic;
                    tries += 1;
                }
                _ => return Err(error.into()),
            }
        }
    }

    /// What holds for a new topic that says nothing else.
    pub fn topic_defaults(&self) -> &TopicConfig {
        &self.shared().settings.topic_defaults
    }

    /// All topics in order of name; those that are known while the database does not answer.
    pub async fn topics(&self) -> Vec<Topic> {
        match timeout(LIST_PATIENCE, self.take_up_all()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what other agents changed about topics is not known now"),
            Err(_) => tracing::warn!("the database does not tell in time what other agents changed about topics"),
        }
        self.live_topics().iter().map(|live| (*live.topic()).clone()).collect()
    }

    /// One topic. Of one that is known the database is not waited for.
    pub async fn describe(&self, name: &str) -> Result<Topic> {
        Ok((*self.live(name).await?.topic()).clone())
    }

    /// One topic and its partitions. With `flush` everything durable becomes segments first.
    pub async fn topic(&self, name: &str, flush: bool) -> Result<(Topic, Vec<PartitionStatus>)> {
        let live = self.live(name).await?;
        if flush {
            self.flush_all(&live).await?;
        }
        let totals = self.shared().metadata.partition_totals(live.topic().id).await?;
        let statuses = totals.into_iter().map(|total| {
            let place = live.used_place(total.partition);
            let (log_start, high_watermark, committed_end) = match place.as_ref().and_then(|place| place.seen()) {
                Some(partition) => partition.offsets(),
                // One that nobody opened since the start has nothing beyond its segments but what is left of it.
                None => {
                    let left_end = place.map_or(Offset(0), |place| place.left_end());
                    let end = total.committed_end;
                    (total.log_start, left_end.max(end), end)
                }
            };
            PartitionStatus {
                partition: total.partition,
                log_start,
                high_watermark,
                committed_end,
                segment_count: total.segment_count,
                raw_bytes: total.raw_bytes,
                stored_bytes: total.stored_bytes,
            }
        });
        Ok(((*live.topic()).clone(), statuses.collect()))
    }

    /// Flushes every partition that has anything in memory; one that stepped down is opened again for it. One that fails
    /// keeps none of the others from it.
    async fn flush_all(&self, live: &LiveTopic) -> Result<()> {
        let numbers = live.used_partitions().await;
        let flush = async |number: &u32| self.partition(live, *number).await?.flush().await;
        let flushes = stream::iter(&numbers).map(flush).buffered(PARTITIONS_AT_ONCE);
        let flushed: Vec<Result<()>> = flushes.collect().await;
        let failed = numbers.iter().zip(flushed);
        let mut failed = failed.filter_map(|(number, flushed)| Some((*number, flushed.err()?)));
        let Some((partition, source)) = failed.next() else {
            return Ok(());
        };
        Err(BrokerError::FlushFailed {
            topic: live.topic().name.clone(),
            partition,
            others: failed.count(),
            source: Box::new(source),
        })
    }

    /// Moves the log start of a partition up to `before`, which is at most the high watermark; where it is then. What
    /// lies below goes. A log start that is beyond it already stays.
    pub async fn truncate(&self, topic: &str, partition: u32, before: Offset) -> Result<Offset> {
        let live = self.live(topic).await?;
        self.partition(&live, partition).await?.truncate(before).await
    }

    /// Deletes a topic. Its objects go after the grace period.
    pub async fn delete_topic(self: &Arc<Self>, name: &str) -> Result<()> {
        let (broker, live) = (self.clone(), self.live(name).await?);
        to_the_end("deleting a topic", async move { broker.drop_topic(&live).await }).await
    }

    async fn drop_topic(&self, live: &LiveTopic) -> Result<()> {
        let topic = live.topic();
        let alone = self.topic_changes.lock().await;
        self.check_same(live)?;
        let (metadata, now_ms) = (&self.shared().metadata, self.shared().clock.now_ms());
        match metadata.delete_topic(topic.id, now_ms).await {
            // Where the answer to an earlier try got lost there is nothing more to delete but what is in memory.
            Ok(_) | Err(MetaError::NotFound { .. }) => {}
            // So it is where the answer to this one did.
            Err(error) => match metadata.topic(&topic.name).await {
                Ok(found) if found.as_ref().is_none_or(|found| found.id != topic.id) => {}
                _ => return Err(error.into()),
            },
        }
        self.topics.write().expect(NOT_POISONED).remove(&topic.name);
        live.set_deleted();
        drop(alone);
        self.let_go_of(live).await;
        Ok(())
    }

    /// Fails where the topic was deleted meanwhile, whatever has its name now.
    fn check_same(&self, live: &LiveTopic) -> Result<()> {
        let topic = live.topic();
        if self
            .known(&topic.name)
            .is_some_and(|known| known.topic().id == topic.id)
        {
            return Ok(());
        }
        let name = topic.name.clone();
        Err(BrokerError::UnknownTopic { name })
    }

    /// Gives back what a deleted topic takes.
    pub(crate) async fn let_go_of(&self, live: &LiveTopic) {
        let places = live.all_places().into_iter();
        join_all(places.map(|(_, place)| async move {
            // One that is just being opened is waited for.
            let mut left = place.left.lock().await;
            *left = None;
            if let Some(partition) = place.seen() {
                partition.abandon();
            }
        }))
        .await;
        self.shared().wal.forget_topic(live.topic().id);
        self.shared().monitors.forget(live.topic().id);
    }
}

fn check_config(config: &TopicConfig) -> Result<()> {
    let refuse = |name, value: u64, allowed| {
        let value = value.to_string();
        Err(BrokerError::InvalidSetting { name, value, allowed })
    };
    if !(1..=RECORD_BYTES_MAX).contains(&config.record_bytes_max) {
        let value = config.record_bytes_max.into();
        return refuse("record_bytes_max", value, "1 to 16,777,216");
    }
    if !SEGMENT_BYTES.contains(&config.segment_bytes) {
        return refuse("segment_bytes", config.segment_bytes, "1,024 to 1,073,741,824");
    }
    if config.segment_age_ms == 0 {
        return refuse("segment_age_ms", 0, "1 or more");
    }
    Ok(())
}

/// Whether a topic can have so many partitions from now on.
fn check_grows(topic: &Topic, asked: u32) -> Result<()> {
    check_partitions(asked)?;
    if asked < topic.partitions {
        let (topic, partitions) = (topic.name.clone(), topic.partitions);
        return Err(BrokerError::FewerPartitions {
            topic,
            partitions,
            asked,
        });
    }
    Ok(())
}
