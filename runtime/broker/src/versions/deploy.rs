//! Deploy, promote, roll back: which version becomes current, and what the stages that follow it become.

use std::sync::Arc;

use bytes::Bytes;
use millstream_meta::{MetaError, ModuleVersion};
use millstream_wasm::Level;

use super::{
    Activation, Others, Plan, PlannedTopic,
    moves::{Follower, Found, Move, Target, follows, stages},
    plan::read_form,
};
use crate::{
    broker::{Broker, to_the_end},
    error::{BrokerError, Result},
    pipeline::{ChangeOptions, TrialMode},
};

/// How often a move is made ready anew because pipelines changed beside it.
const TRIES_MAX: u32 = 8;

/// How a module is deployed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeployOptions {
    /// Tries the version in the stages that follow the module; the current one stays. `None`: it becomes current.
    pub trial: Option<TrialMode>,
    /// Leaves out the trial call on recent records of each topic.
    pub no_trial_call: bool,
    /// Does not wait for other agents: they switch by themselves.
    pub no_wait: bool,
}

/// What became of a deployment, a promotion or a rollback.
#[derive(Clone, Debug)]
pub struct Deployed {
    /// The version that was deployed, or is current now.
    pub module: ModuleVersion,
    /// Whether it is a new one.
    pub created: bool,
    /// The topics whose pipelines changed; their open partitions on this agent have switched, and on others as each says.
    pub switches: Vec<PipelineSwitch>,
}

/// A topic whose pipeline changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineSwitch {
    /// The topic.
    pub topic: String,
    /// The pipeline version that is in force now.
    pub pipeline_version: u64,
    /// Which other agents run it.
    pub others: Others,
}

impl Broker {
    /// Stores a component as the next version of a module; where these bytes had a version already it is that one. Then it
    /// becomes the current version, and every stage that follows the module switches to it; or it is tried there.
    ///
    /// 1. Every topic that follows the module is made ready before any switches: where one refuses, nothing has changed but
    ///    that the version exists, and the error names the topic and the cause.
    /// 2. It answers once every open partition has switched, each between two batches; and those on another agent that has
    ///    not are named, once it was waited for as long as the settings say.
    /// 3. What is current already stays as it is.
    pub async fn deploy_module(
        self: &Arc<Self>,
        name: &str,
        component: Bytes,
        options: DeployOptions,
    ) -> Result<Deployed> {
        let (version, created) = self.module_store().deploy(name, component).await?;
        let to = match options.trial {
            None => Target::Current(version.version),
            Some(mode) => Target::Trial(version.version, mode),
        };
        let no_wait = options.no_wait;
        let options = ChangeOptions {
            no_trial_call: options.no_trial_call,
            ..ChangeOptions::default()
        };
        let (module, replaces) = (name.to_owned(), true);
        let activation = self
            .carry_out_move(
                Move {
                    module,
                    to,
                    options,
                    replaces,
                },
                |_, _| Ok("deployed".to_owned()),
            )
            .await?;
        let switches = match no_wait {
            true => activation.unawaited(),
            false => self.await_others(activation).await,
        };
        let module = self.module_store().version(name, Some(version.version)).await?;
        Ok(Deployed {
            module,
            created,
            switches,
        })
    }

    /// Whether this content was ever the current version under the name, or is older than one that was. A version that
    /// exists only, since its deployment failed or was cut off, is not known where none came into force after it.
    pub async fn knows_module(&self, name: &str, sha256: &str) -> Result<bool> {
        let modules = self.shared().metadata.modules().await?;
        let versions: Vec<_> = modules.iter().filter(|module| module.name == name).collect();
        let Some(known) = versions.iter().find(|module| module.sha256 == sha256) else {
            return Ok(false);
        };
        let mut since = versions.iter().filter(|module| module.version >= known.version);
        Ok(since.any(|module| module.was_current))
    }

    /// Says something about a module to those who read its log.
    pub fn tell_module_log(&self, name: &str, text: &str) {
        self.shared().monitors.say(name, 0, Level::Error, text);
    }

    /// A version of a module, the current one where none is named, and its component.
    pub async fn module_component(&self, name: &str, version: Option<u32>) -> Result<(ModuleVersion, Bytes)> {
        let version = self.module_store().version(name, version).await?;
        let component = self.module_store().component(&version).await?;
        Ok((version, component))
    }

    /// Makes the version current that is being tried.
    pub async fn promote_module(self: &Arc<Self>, name: &str) -> Result<Deployed> {
        let found = self.find_module(name).await?;
        let tried = found.tried(name);
        let version = match tried.iter().collect::<Vec<_>>()[..] {
            [version] => *version,
            _ => {
                return Err(BrokerError::NoTrial {
                    module: name.to_owned(),
                });
            }
        };
        let options = ChangeOptions::default();
        let (module, to, replaces) = (name.to_owned(), Target::Current(version), true);
        let promotion = Move {
            module,
            to,
            options,
            replaces,
        };
        // Whoever tried another one meanwhile did not mean this.
        let still_tried = move |found: &Found, module: &str| match found.tried(module).contains(&version) {
            true => Ok("promoted".to_owned()),
            false => Err(BrokerError::NoTrial {
                module: module.to_owned(),
            }),
        };
        let activation = self.carry_out_move(promotion, still_tried).await?;
        let switches = self.await_others(activation).await;
        self.moved(name, version, switches).await
    }

    /// Makes the version current that the current one replaced, or `version`, and ends what is being tried. Without a
    /// version, where another one is being tried, that is what is taken back, and the current one stays.
    pub async fn rollback_module(self: &Arc<Self>, name: &str, version: Option<u32>) -> Result<Deployed> {
        let (now, activation) = self.roll_back(name, version, None, "rolled back").await?;
        let switches = self.await_others(activation).await;
        self.moved(name, now, switches).await
    }

    /// As [`Broker::rollback_module`], only where the current version is `only_from`, and without waiting for other agents; the
    /// version that is current now.
    pub(crate) async fn roll_back(
        self: &Arc<Self>,
        name: &str,
        version: Option<u32>,
        only_from: Option<u32>,
        reason: &str,
    ) -> Result<(u32, Activation)> {
        let found = self.find_module(name).await?;
        let current = self.module_store().version(name, None).await?;
        let is_tried = !found.tried(name).is_empty();
        let to = match version {
            None if is_tried && only_from.is_none() => Target::NoTrial,
            Some(version) if version == current.version && is_tried => Target::NoTrial,
            Some(version) if version == current.version => {
                let module = format!("{name}@{version}");
                return Err(BrokerError::AlreadyCurrent { module });
            }
            Some(version) => Target::Current(self.module_store().version(name, Some(version)).await?.version),
            None => match current.replaces {
                Some(replaced) => Target::Current(replaced),
                None => {
                    let module = format!("{name}@{}", current.version);
                    return Err(BrokerError::NothingReplaced { module });
                }
            },
        };
        let now = match to {
            Target::Current(version) => version,
            _ => current.version,
        };
        let back = Move {
            module: name.to_owned(),
            to,
            // What ran before needs no trial; and whoever goes back is in a hurry.
            options: ChangeOptions {
                no_trial_call: true,
                ..ChangeOptions::default()
            },
            replaces: false,
        };
        let (from, reason) = (current.version, reason.to_owned());
        let unmoved = move |found: &Found, _: &str| match found.state.current_version {
            // Somebody else was quicker: what is current now is not what was to be taken back.
            current if current != from || only_from.is_some_and(|only| only != current) => {
                Err(BrokerError::Meta(MetaError::Conflict {
                    what: "the current version of a module that was to be rolled back",
                    expected: u64::from(from),
                    found: u64::from(found.state.current_version),
                }))
            }
            _ => Ok(reason.clone()),
        };
        Ok((now, self.carry_out_move(back, unmoved).await?))
    }

    /// Ends the trial of a version, where it is still tried, without waiting for other agents.
    pub(crate) async fn end_trial(self: &Arc<Self>, name: &str, version: u32, reason: &str) -> Result<()> {
        let end = Move {
            module: name.to_owned(),
            to: Target::NoTrial,
            options: ChangeOptions {
                no_trial_call: true,
                ..ChangeOptions::default()
            },
            replaces: false,
        };
        let reason = reason.to_owned();
        let still_tried = move |found: &Found, module: &str| match found.tried(module).contains(&version) {
            true => Ok(reason.clone()),
            false => Err(BrokerError::NoTrial {
                module: module.to_owned(),
            }),
        };
        self.carry_out_move(end, still_tried).await.map(drop)
    }

    async fn moved(&self, name: &str, version: u32, switches: Vec<PipelineSwitch>) -> Result<Deployed> {
        Ok(Deployed {
            module: self.module_store().version(name, Some(version)).await?,
            created: false,
            switches,
        })
    }

    /// Finds who follows, makes all of them ready, and carries it out; again, where something changed beside it. `reason`
    /// looks at what was found, and says why the move is made or refuses it.
    async fn carry_out_move(
        self: &Arc<Self>,
        wanted: Move,
        reason: impl Fn(&Found, &str) -> Result<String>,
    ) -> Result<Activation> {
        let mut tries = 1;
        loop {
            let found = self.find_module(&wanted.module).await?;
            let why = reason(&found, &wanted.module)?;
            let Some(plan) = self.plan_move(&wanted, found, &why).await? else {
                return Ok(Activation::default());
            };
            let (broker, watched) = (self.clone(), wanted.watched());
            let done = to_the_end("moving a module", async move {
                // From before the first batch: what fails in it counts.
                let watch = watched.map(|watched| broker.guard().begin(&broker, watched));
                let done = broker.carry_out(plan).await;
                if let (Err(_), Some(watch)) = (&done, watch) {
                    broker.guard().take_back(watch);
                }
                done
            })
            .await;
            match done {
                Err(BrokerError::Meta(MetaError::Conflict { .. } | MetaError::NotFound { what: "topic", .. }))
                    if tries < TRIES_MAX =>
                {
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    async fn find_module(&self, name: &str) -> Result<Found> {
        let metadata = &self.shared().metadata;
        // Before the pipelines: whoever follows from now on is counted beyond it.
        let state = metadata.module_state(name).await?;
        let state = state.ok_or_else(|| BrokerError::UnknownModule { name: name.to_owned() })?;
        let mut followers = Vec::new();
        for in_force in metadata.pipelines_in_force().await? {
            let spec = read_form(&in_force.row.stages_json)?;
            if stages(&spec).any(|stage| follows(stage, name)) {
                followers.push(Follower {
                    topic: in_force.topic,
                    topic_id: in_force.topic_id,
                    version: in_force.row.version,
                    spec,
                });
            }
        }
        followers.sort_by(|a, b| a.topic.cmp(&b.topic));
        Ok(Found { state, followers })
    }

    /// Makes every topic that changes ready; `None` where nothing is to be done.
    async fn plan_move(&self, wanted: &Move, found: Found, why: &str) -> Result<Option<Plan>> {
        wanted.check(&found)?;
        let (mut topics, mut is_tried) = (Vec::new(), false);
        for follower in &found.followers {
            let live = match self.live(&follower.topic).await {
                Ok(live) if live.topic().id == follower.topic_id => live,
                // It was deleted since: the transaction finds out, or the next look does.
                Ok(_) | Err(BrokerError::UnknownTopic { .. }) => continue,
                Err(error) => return Err(error),
            };
            let spec = wanted.apply(&follower.spec, live.topic().partitions);
            is_tried |= stages(&spec).any(|stage| stage.trial.is_some());
            if spec == follower.spec {
                continue;
            }
            let before = (follower.version, &follower.spec);
            let planned: Result<PlannedTopic> = self.prepare(live, before, spec, wanted.options).await;
            topics.push(planned.map_err(|source| BrokerError::TopicRefuses {
                topic: follower.topic.clone(),
                kept: wanted.version().map(|version| format!("{}@{version}", wanted.module)),
                source: Box::new(source),
            })?);
        }
        if let (Target::Trial(version, _), false) = (&wanted.to, is_tried) {
            return Err(BrokerError::TrialRefused {
                module: format!("{}@{version}", wanted.module),
                reason: "no topic that follows it has such a partition".to_owned(),
            });
        }
        let current = wanted.current(&found.state);
        if topics.is_empty() && current.is_none() {
            return Ok(None);
        }
        Ok(Some(Plan {
            topics,
            follows: Vec::new(),
            current,
            reason: wanted.text(found.state.current_version, why),
        }))
    }
}
