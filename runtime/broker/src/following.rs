//! Following what other agents change: topics that they make, alter and delete, and pipelines that they activate.
//!
//! Every request looks its topic up through the metadata's cache, which costs next to nothing and asks the database now and
//! then. Where the answer differs from what is served, the metadata itself is asked, under the lock of all topic changes:
//! what was read a moment ago may be older than a change made here since. A database that does not answer changes nothing:
//! what is known goes on being served, and a partition of a deleted topic is fenced anyway.
//!
//! Pipelines need not wait for a request: [`crate::activations`] follows them too.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::join_all;
use millstream_meta::{PipelineRow, Topic};
use tokio::time::timeout;

use crate::{
    broker::{Broker, NOT_POISONED},
    error::{BrokerError, Result},
    topic::LiveTopic,
};

/// How long a request waits for news of a topic that is known.
const NEWS_PATIENCE: Duration = Duration::from_millis(500);
/// How long nobody asks for news of a topic afterwards.
const NEWS_PAUSE: Duration = Duration::from_secs(5);
/// How long nobody looks again for partitions of a topic that were not there.
const MORE_PAUSE: Duration = Duration::from_millis(200);
/// Characters of a name that an error repeats.
const NAME_SHOWN_MAX: usize = 300;

impl Broker {
    /// The topic of that name, as the metadata has it.
    pub(crate) async fn live(&self, name: &str) -> Result<Arc<LiveTopic>> {
        let Some(known) = self.known(name) else {
            return match self.shared().metadata.cached().topic(name).await? {
                None => Err(unknown(name)),
                Some(_) => self.take_up(name).await?.ok_or_else(|| unknown(name)),
            };
        };
        if known.news.is_paused() {
            return Ok(known);
        }
        match timeout(NEWS_PATIENCE, self.news(&known)).await {
            Ok(live) => live?.ok_or_else(|| unknown(name)),
            Err(_) => {
                known.news.pause(NEWS_PAUSE);
                Ok(known)
            }
        }
    }

    /// The topic of that name, as it is served.
    pub(crate) fn known(&self, name: &str) -> Option<Arc<LiveTopic>> {
        self.topics.read().expect(NOT_POISONED).get(name).cloned()
    }

    /// What is to be served in place of a topic that is served.
    async fn news(&self, known: &Arc<LiveTopic>) -> Result<Option<Arc<LiveTopic>>> {
        let (cached, topic) = (self.shared().metadata.cached(), known.topic());
        let live = match cached.topic(&topic.name).await {
            Ok(Some(stored)) if *stored == *topic => known.clone(),
            Ok(Some(stored)) if stored.id == topic.id => {
                self.in_background(known, News::Settings);
                known.clone()
            }
            Ok(_) => return self.take_up(&topic.name).await,
            Err(error) => {
                tracing::debug!(topic = topic.name, %error, "no news of a topic");
                known.clone()
            }
        };
        let version = live.pipeline_version();
        if version.is_some()
            && let Ok(Some(stored)) = cached.pipeline(topic.id).await
            && Some(stored.version) > version
        {
            self.in_background(&live, News::Pipeline(stored));
        }
        Ok(Some(live))
    }

    /// Serves what the metadata has under a name now, and lets go of what it no longer has.
    pub(crate) async fn take_up(&self, name: &str) -> Result<Option<Arc<LiveTopic>>> {
        let alone = self.topic_changes.lock().await;
        // Read under the lock: every change that was made here is in it.
        let stored = match self.shared().metadata.topic(name).await {
            Ok(stored) => stored,
            Err(error) => return self.known(name).map(Some).ok_or_else(|| error.into()),
        };
        let mut changes = Changes::default();
        self.adopt(name, stored.as_ref(), &mut changes);
        drop(alone);
        self.spread(changes);
        Ok(self.known(name))
    }

    /// Takes up partitions that another agent may have added since the topic was read; `None` where that was done just now.
    pub(crate) async fn look_for_more(&self, live: &LiveTopic) -> Option<()> {
        if !live.news.may_look_for_more(MORE_PAUSE) {
            return None;
        }
        timeout(NEWS_PATIENCE, self.take_up(&live.topic().name))
            .await
            .ok()?
            .ok()?;
        Some(())
    }

    /// As [`Broker::take_up`] for all topics.
    pub(crate) async fn take_up_all(&self) -> Result<()> {
        let alone = self.topic_changes.lock().await;
        let stored = self.shared().metadata.topics().await?;
        let mut changes = Changes::default();
        // Databases differ about the order of names.
        let names: HashSet<&str> = stored.iter().map(|topic| topic.name.as_str()).collect();
        for live in self.live_topics() {
            let name = &live.topic().name;
            if !names.contains(name.as_str()) {
                self.adopt(name, None, &mut changes);
            }
        }
        for topic in &stored {
            self.adopt(&topic.name, Some(topic), &mut changes);
        }
        drop(alone);
        self.spread(changes);
        Ok(())
    }

    /// Makes memory agree with what is stored under a name; the caller holds the lock on topic changes.
    fn adopt(&self, name: &str, stored: Option<&Topic>, changes: &mut Changes) {
        match (self.known(name), stored) {
            (Some(known), Some(stored)) if known.topic().id == stored.id => {
                if *known.topic() != *stored {
                    known.set(Arc::new(stored.clone()));
                    changes.altered.push(known);
                }
            }
            (_, Some(stored)) => changes.gone.extend(self.serve(stored)),
            (Some(known), None) => {
                self.topics.write().expect(NOT_POISONED).remove(name);
                known.set_deleted();
                changes.gone.push(known);
            }
            (None, None) => {}
        }
    }

    /// Serves a topic that the metadata has; one of that name which the metadata no longer has is the answer.
    pub(crate) fn serve(&self, topic: &Topic) -> Option<Arc<LiveTopic>> {
        let mut topics = self.topics.write().expect(NOT_POISONED);
        if topics.get(&topic.name).is_some_and(|live| live.topic().id == topic.id) {
            return None;
        }
        let replaced = topics.insert(topic.name.clone(), Arc::new(LiveTopic::new(topic.clone())));
        self.manifest_due.notify_one();
        replaced.inspect(|replaced| replaced.set_deleted())
    }

    /// Tells the partitions, in the background: one whose log is stuck takes long to hear of it.
    fn spread(&self, changes: Changes) {
        let Some(broker) = self.me.upgrade() else { return };
        if changes.altered.is_empty() && changes.gone.is_empty() {
            return;
        }
        tokio::spawn(async move {
            for live in changes.altered {
                broker.spread_settings(&live).await;
            }
            for live in changes.gone {
                broker.let_go_of(&live).await;
            }
        });
    }

    /// Gives the open partitions the settings of their topic as they are now.
    async fn spread_settings(&self, live: &LiveTopic) {
        // Held while the change spreads, so that no partition opens with the settings of before.
        let _no_opening = live.pipeline.write().await;
        let open = live.open_partitions();
        join_all(open.iter().map(|partition| partition.set_topic(live.topic()))).await;
    }

    /// Switches every open partition to a pipeline that another agent has activated, each between two batches.
    pub(crate) async fn switch(&self, live: &LiveTopic, stored: &PipelineRow) -> Result<()> {
        // Loaded before anybody has to wait for it.
        let next = self.load_pipeline(Some(stored)).await?;
        let mut slot = live.pipeline.write().await;
        // Versions only grow; a greater one may have come meanwhile.
        if slot.as_ref().is_some_and(|current| current.version < next.version) {
            tracing::info!(
                topic = live.topic().name,
                version = next.version,
                "another agent changed the pipeline"
            );
            if let Some(before) = slot.as_ref() {
                self.guard().follow(self, before, &next);
            }
            live.switch(&mut slot, next).await;
            self.shared().monitors.close_breakers(live.topic().id);
        }
        Ok(())
    }

    /// Takes up what need not hold up a request. One such task a topic at a time: while it runs, every request sees the
    /// same news.
    pub(crate) fn in_background(&self, live: &Arc<LiveTopic>, news: News) {
        let Some(broker) = self.me.upgrade() else { return };
        if live.news.following.swap(true, Ordering::AcqRel) {
            return;
        }
        let live = live.clone();
        tokio::spawn(async move {
            let name = &live.topic().name;
            let taken_up = match news {
                News::Settings => broker.take_up(name).await.map(drop),
                News::Pipeline(stored) => broker.switch(&live, &stored).await,
            };
            match taken_up {
                Ok(()) => live.news.failing.store(false, Ordering::Relaxed),
                Err(error) => {
                    // Once: it is tried again and again.
                    if !live.news.failing.swap(true, Ordering::Relaxed) {
                        tracing::warn!(topic = name, %error, "what another agent changed cannot be taken up now");
                    }
                    live.news.pause(NEWS_PAUSE);
                }
            }
            live.news.following.store(false, Ordering::Release);
            broker.activations().look_again();
        });
    }
}

/// What another agent changed.
pub(crate) enum News {
    Settings,
    Pipeline(Arc<PipelineRow>),
}

/// What is to be told to partitions.
#[derive(Default)]
struct Changes {
    altered: Vec<Arc<LiveTopic>>,
    gone: Vec<Arc<LiveTopic>>,
}

fn unknown(name: &str) -> BrokerError {
    BrokerError::UnknownTopic {
        name: name.chars().take(NAME_SHOWN_MAX).collect(),
    }
}
