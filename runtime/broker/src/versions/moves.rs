//! What a move of a module makes of the pipelines that follow it.

use std::collections::BTreeSet;

use millstream_meta::{ModuleState, NewCurrent};

use super::guard::Watched;
use crate::{
    error::{BrokerError, Result},
    pipeline::{ChangeOptions, Follows, PipelineSpec, Side, StageSpec, Trial, TrialMode},
};

/// One move of a module.
#[derive(Clone, Debug)]
pub(super) struct Move {
    pub(super) module: String,
    pub(super) to: Target,
    pub(super) options: ChangeOptions,
    /// Whether a rollback leads back from it.
    pub(super) replaces: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Target {
    /// This version becomes current; nothing is tried any more.
    Current(u32),
    /// This version is tried; the current one stays.
    Trial(u32, TrialMode),
    /// Nothing is tried any more; the current version stays.
    NoTrial,
}

/// What a move finds about its module.
pub(super) struct Found {
    pub(super) state: ModuleState,
    /// The topics that follow it: their pipelines, and the versions of these.
    pub(super) followers: Vec<Follower>,
}

pub(super) struct Follower {
    pub(super) topic: String,
    pub(super) topic_id: uuid::Uuid,
    pub(super) version: u64,
    pub(super) spec: PipelineSpec,
}

impl Found {
    /// The versions that are being tried.
    pub(super) fn tried(&self, module: &str) -> BTreeSet<u32> {
        let stages = self.followers.iter().flat_map(|follower| stages(&follower.spec));
        let trials = stages.filter(|stage| follows(stage, module));
        trials.filter_map(|stage| Some(stage.trial.as_ref()?.version)).collect()
    }
}

impl Move {
    /// Fails for a trial that would try nothing.
    pub(super) fn check(&self, found: &Found) -> Result<()> {
        let Target::Trial(version, mode) = &self.to else {
            return Ok(());
        };
        let module = format!("{}@{version}", self.module);
        let refuse = |reason: &str| {
            Err(BrokerError::TrialRefused {
                module: module.clone(),
                reason: reason.to_owned(),
            })
        };
        if *version == found.state.current_version {
            return refuse("it is the current version");
        }
        if found.followers.is_empty() {
            return refuse("no stage follows the module: add one without a version first");
        }
        match mode {
            TrialMode::Canary(partitions) if partitions.is_empty() => refuse("name one partition at least"),
            _ => Ok(()),
        }
    }

    /// The version that it brings, where it brings one.
    pub(super) fn version(&self) -> Option<u32> {
        match self.to {
            Target::Current(version) | Target::Trial(version, _) => Some(version),
            Target::NoTrial => None,
        }
    }

    /// What becomes of a topic's pipeline.
    pub(super) fn apply(&self, spec: &PipelineSpec, partitions: u32) -> PipelineSpec {
        let mut next = spec.clone();
        let stages = next.produce.iter_mut().chain(&mut next.fetch);
        for stage in stages.filter(|stage| follows(stage, &self.module)) {
            match &self.to {
                Target::Current(version) => (stage.version, stage.trial) = (*version, None),
                Target::NoTrial => stage.trial = None,
                Target::Trial(version, mode) => {
                    let mode = on_partitions(mode, partitions);
                    let version = *version;
                    stage.trial = mode.map(|mode| Trial { version, mode });
                }
            }
        }
        next
    }

    pub(super) fn current(&self, state: &ModuleState) -> Option<NewCurrent> {
        match self.to {
            Target::Current(to) if to != state.current_version => Some(NewCurrent {
                module: self.module.clone(),
                from: state.current_version,
                to,
                followed: state.followed,
                replaces: self.replaces,
            }),
            _ => None,
        }
    }

    /// What the guard looks at afterwards; nothing after a rollback: what one goes back to is not to be left again.
    pub(super) fn watched(&self) -> Option<Watched> {
        let module = self.module.clone();
        match self.to {
            Target::Current(version) if self.replaces => Some(Watched::current(module, version)),
            Target::Trial(version, _) => Some(Watched::trial(module, version)),
            _ => None,
        }
    }

    /// For the history.
    pub(super) fn text(&self, from: u32, why: &str) -> String {
        let module = &self.module;
        match &self.to {
            Target::Current(to) if *to == from => format!("{module} {to}: {why}"),
            Target::Current(to) => format!("{module} {from} -> {to}: {why}"),
            Target::NoTrial => format!("{module} {from}: trial ended, {why}"),
            Target::Trial(version, TrialMode::Shadow) => format!("{module} {version}: {why} as shadow of {from}"),
            Target::Trial(version, TrialMode::Canary(partitions)) => {
                let partitions: Vec<String> = partitions.iter().map(u32::to_string).collect();
                format!(
                    "{module} {version}: {why} as canary on partitions {}",
                    partitions.join(",")
                )
            }
        }
    }
}

/// A canary runs on the partitions that a topic has; on none of them there is none.
fn on_partitions(mode: &TrialMode, count: u32) -> Option<TrialMode> {
    let TrialMode::Canary(partitions) = mode else {
        return Some(mode.clone());
    };
    let there: BTreeSet<u32> = partitions.iter().copied().filter(|number| *number < count).collect();
    (!there.is_empty()).then(|| TrialMode::Canary(there.into_iter().collect()))
}

pub(super) fn stages(spec: &PipelineSpec) -> impl Iterator<Item = &StageSpec> {
    spec.side(Side::Produce).iter().chain(spec.side(Side::Fetch))
}

pub(super) fn follows(stage: &StageSpec, module: &str) -> bool {
    stage.follows == Follows::Latest && stage.module == module
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versions::plan::{read_form, stored_form};

    fn spec(version: u32, trial: Option<Trial>) -> PipelineSpec {
        let follower = StageSpec {
            follows: Follows::Latest,
            trial,
            ..StageSpec::new("redact", version)
        };
        PipelineSpec {
            produce: vec![follower, StageSpec::new("redact", 1), StageSpec::new("split", 7)],
            ..PipelineSpec::default()
        }
    }

    fn to(to: Target) -> Move {
        Move {
            module: "redact".to_owned(),
            to,
            options: ChangeOptions::default(),
            replaces: true,
        }
    }

    #[test]
    fn only_stages_that_follow_move() {
        let trial = Trial {
            version: 3,
            mode: TrialMode::Shadow,
        };
        let moved = to(Target::Current(3)).apply(&spec(2, Some(trial)), 4);
        assert_eq!(moved, spec(3, None));
        assert_eq!(read_form(&stored_form(&moved)).unwrap(), moved);
    }

    #[test]
    fn a_canary_is_there_only_where_its_partitions_are() {
        let canary = to(Target::Trial(3, TrialMode::Canary(vec![5, 1, 1])));
        let trial = |partitions| Trial {
            version: 3,
            mode: TrialMode::Canary(partitions),
        };
        assert_eq!(canary.apply(&spec(2, None), 8), spec(2, Some(trial(vec![1, 5]))));
        assert_eq!(canary.apply(&spec(2, None), 2), spec(2, Some(trial(vec![1]))));
        assert_eq!(canary.apply(&spec(2, None), 1), spec(2, None));
    }

    #[test]
    fn the_history_says_what_happened() {
        assert_eq!(to(Target::Current(4)).text(3, "deployed"), "redact 3 -> 4: deployed");
        assert_eq!(
            to(Target::Trial(4, TrialMode::Canary(vec![0, 2]))).text(3, "deployed"),
            "redact 4: deployed as canary on partitions 0,2"
        );
        assert_eq!(
            to(Target::NoTrial).text(3, "rolled back"),
            "redact 3: trial ended, rolled back"
        );
    }
}
