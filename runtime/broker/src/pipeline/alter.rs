//! Changing a stage in its place: one pipeline version in which it is as it was, but for what is named, so that no record goes
//! by it meanwhile.
//!
//! A stage that tries another version of its module is altered with it: parameters, policy, limits and breaker hold for
//! both, and both are configured and called on recent records before anything changes. Only its version stays until the trial
//! is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millstream_meta::MetaError;

use super::{
    ChangeOptions, Changed, Follows, OnError, PipelineSpec, Side, StageLimits, StageSpec,
    change::{TRIES_MAX, no_stage},
};
use crate::{
    broker::Broker,
    error::{BrokerError, Result},
    names::nearest,
};

/// What becomes of a stage. What is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageChange {
    /// Parameters that are set, in place of those of the same names.
    pub set_params: BTreeMap<String, String>,
    /// Parameters that go back to what the module has as their default.
    pub unset_params: BTreeSet<String>,
    /// What happens to a record it fails on.
    pub on_error: Option<OnError>,
    /// Where dead letters go; empty for `TOPIC.dead-letter`.
    pub dead_letter: Option<String>,
    /// All limits are the agent's, but for those that are named here.
    pub default_limits: bool,
    /// Limits that are set.
    pub limits: StageLimits,
    /// Failed batches in a row that open its breaker; 0 for never.
    pub breaker_failures: Option<u32>,
    /// How long that stays open before a batch is tried.
    pub breaker_cooldown_ms: Option<u64>,
    /// The version that runs; 0 for the module's current one, which it follows from then on.
    pub version: Option<u32>,
    /// The position that it stands at then, 0 for the first.
    pub move_to: Option<u32>,
}

impl Broker {
    /// Alters the stage at a position, 0 for the first, and moves it where that is asked for: all of it between two batches,
    /// or nothing. Where it is like that already there is no new version of the pipeline, and it only asks for the agents that
    /// have not switched. What others change beside it is kept; where they moved the stage it is still the one that stood
    /// there first.
    pub async fn alter_stage(
        self: &Arc<Self>,
        topic: &str,
        side: Side,
        position: u32,
        change: StageChange,
        options: ChangeOptions,
    ) -> Result<Changed> {
        if change == StageChange::default() {
            return Err(refused("it names nothing to change"));
        }
        let (mut id, mut tries) = (None, 1);
        loop {
            let (version, spec) = self.pipeline(topic).await?;
            options.check_expected(topic, version)?;
            let stages = spec.side(side);
            let at = match id {
                None => position as usize,
                Some(id) => stages.iter().position(|stage| stage.id == id).unwrap_or(usize::MAX),
            };
            let Some(stage) = stages.get(at) else {
                return Err(no_stage(topic, side, stages.len(), position));
            };
            id = Some(stage.id);
            let reason = format!("{side} stage {} at {at} altered: {}", stage.module, change.names());
            let to = change.move_to.map_or(at, |to| to as usize);
            if to >= stages.len() {
                return Err(no_stage(topic, side, stages.len(), to as u32));
            }
            let altered = change.apply(stage, side)?;
            if to == at && altered == *stage {
                let others = self.others_of(topic, version).await?;
                return Ok(Changed { version, spec, others });
            }
            altered.check_params()?;
            altered.limits.check(self.shared().settings.module_guest_memory_bytes)?;
            self.prepare_stage(topic, side, &altered).await?;
            let place = move |spec: &mut PipelineSpec| {
                let stages = spec.side_mut(side);
                stages.remove(at);
                stages.insert(to, altered);
                Ok(())
            };
            let on_this = ChangeOptions {
                expected_version: Some(version),
                ..options
            };
            match self.change_pipeline(topic, reason, on_this, place).await {
                Err(BrokerError::Meta(MetaError::Conflict { .. }) | BrokerError::PipelineChanged { .. })
                    if tries < TRIES_MAX =>
                {
                    tries += 1;
                }
                done => return done,
            }
        }
    }
}

impl StageChange {
    /// What becomes of a stage, wherever it stands.
    fn apply(&self, stage: &StageSpec, side: Side) -> Result<StageSpec> {
        let mut altered = stage.clone();
        self.apply_version(&mut altered)?;
        self.apply_params(&mut altered)?;
        self.apply_policy(&mut altered, side)?;
        if self.default_limits {
            altered.limits = StageLimits::default();
        }
        altered.limits.set(&self.limits);
        let breaker = &mut altered.breaker;
        breaker.failures = self.breaker_failures.unwrap_or(breaker.failures);
        breaker.cooldown_ms = self.breaker_cooldown_ms.unwrap_or(breaker.cooldown_ms);
        Ok(altered)
    }

    fn apply_version(&self, stage: &mut StageSpec) -> Result<()> {
        let Some(version) = self.version else { return Ok(()) };
        if let Some(trial) = &stage.trial {
            return Err(BrokerError::StageOnTrial {
                module: stage.module.clone(),
                version: stage.version,
                trial: trial.version,
            });
        }
        (stage.version, stage.follows) = match version {
            // It is the current one.
            0 if stage.follows == Follows::Latest => return Ok(()),
            0 => (0, Follows::Latest),
            version => (version, Follows::Pinned),
        };
        Ok(())
    }

    fn apply_params(&self, stage: &mut StageSpec) -> Result<()> {
        for name in &self.unset_params {
            if self.set_params.contains_key(name) {
                return Err(refused(&format!("parameter {name:?} is set and unset at once")));
            }
            if stage.params.remove(name).is_none() {
                let hint = match nearest(name, stage.params.keys()) {
                    Some(nearest) => format!(", did you mean {nearest:?}?"),
                    None => String::new(),
                };
                return Err(refused(&format!("it sets no parameter {name:?}{hint}")));
            }
        }
        let set = self.set_params.iter();
        stage
            .params
            .extend(set.map(|(name, value)| (name.clone(), value.clone())));
        Ok(())
    }

    fn apply_policy(&self, stage: &mut StageSpec, side: Side) -> Result<()> {
        stage.on_error = self.on_error.or(stage.on_error);
        let has_letters = stage.on_error(side) == OnError::DeadLetter;
        match &self.dead_letter {
            Some(_) if !has_letters => {
                return Err(refused("a dead-letter topic goes with the policy dead-letter only"));
            }
            Some(topic) => stage.dead_letter = (!topic.is_empty()).then(|| topic.clone()),
            None if !has_letters => stage.dead_letter = None,
            None => {}
        }
        Ok(())
    }

    /// For the history: values may be secrets.
    fn names(&self) -> String {
        let StageChange {
            set_params,
            unset_params,
            on_error,
            dead_letter,
            default_limits,
            limits,
            breaker_failures,
            breaker_cooldown_ms,
            version,
            move_to,
        } = self;
        let named = [
            (!set_params.is_empty() || !unset_params.is_empty()).then(|| "parameters".to_owned()),
            on_error.map(|on_error| format!("on error {}", on_error.name())),
            dead_letter.as_ref().map(|_| "dead-letter topic".to_owned()),
            (*default_limits || *limits != StageLimits::default()).then(|| "limits".to_owned()),
            (breaker_failures.is_some() || breaker_cooldown_ms.is_some()).then(|| "breaker".to_owned()),
            version.map(|version| match version {
                0 => "it follows the current version".to_owned(),
                version => format!("version {version}"),
            }),
            move_to.map(|to| format!("moved to {to}")),
        ];
        named.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl StageLimits {
    /// Takes over what is set in others.
    fn set(&mut self, set: &StageLimits) {
        *self = StageLimits {
            cpu_ms: set.cpu_ms.or(self.cpu_ms),
            memory_bytes: set.memory_bytes.or(self.memory_bytes),
            output_bytes: set.output_bytes.or(self.output_bytes),
            output_records: set.output_records.or(self.output_records),
            output_growth: set.output_growth.or(self.output_growth),
            log_lines_per_second: set.log_lines_per_second.or(self.log_lines_per_second),
        };
    }
}

fn refused(reason: &str) -> BrokerError {
    BrokerError::StageChange {
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Kind,
        pipeline::{BreakerSpec, Trial, TrialMode},
    };

    fn stage() -> StageSpec {
        StageSpec {
            params: [("fields", "$.a"), ("with", "*")].map(owned).into(),
            limits: StageLimits {
                cpu_ms: Some(50),
                memory_bytes: Some(1 << 20),
                ..StageLimits::default()
            },
            ..StageSpec::new("redact", 2)
        }
    }

    fn owned((name, value): (&str, &str)) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    fn altered(change: StageChange) -> Result<StageSpec> {
        change.apply(&stage(), Side::Produce)
    }

    #[test]
    fn what_is_not_named_stays() {
        let change = StageChange {
            set_params: [("with", "#"), ("key", "mask")].map(owned).into(),
            unset_params: ["fields".to_owned()].into(),
            limits: StageLimits {
                cpu_ms: Some(70),
                ..StageLimits::default()
            },
            breaker_failures: Some(9),
            ..StageChange::default()
        };
        let expected = StageSpec {
            params: [("with", "#"), ("key", "mask")].map(owned).into(),
            limits: StageLimits {
                cpu_ms: Some(70),
                ..stage().limits
            },
            breaker: BreakerSpec {
                failures: 9,
                ..BreakerSpec::default()
            },
            ..stage()
        };
        assert_eq!(altered(change.clone()).unwrap(), expected);
        assert_eq!(change.names(), "parameters, limits, breaker");
        let to_the_agents = StageChange {
            default_limits: true,
            ..change
        };
        let limits = altered(to_the_agents).unwrap().limits;
        assert_eq!((limits.cpu_ms, limits.memory_bytes), (Some(70), None));
    }

    #[test]
    fn a_parameter_that_is_not_set_is_not_unset() {
        let unset = |name: &str| StageChange {
            unset_params: [name.to_owned()].into(),
            ..StageChange::default()
        };
        let error = altered(unset("feilds")).unwrap_err();
        assert!(error.to_string().ends_with("did you mean \"fields\"?"), "{error}");
        assert_eq!(error.kind(), Kind::Invalid);
        let both = StageChange {
            set_params: [owned(("with", "#"))].into(),
            ..unset("with")
        };
        assert!(altered(both).is_err());
    }

    #[test]
    fn the_dead_letter_topic_goes_with_its_policy() {
        let letters = |on_error, topic: Option<&str>| StageChange {
            on_error,
            dead_letter: topic.map(str::to_owned),
            ..StageChange::default()
        };
        altered(letters(None, Some("lost"))).unwrap_err();
        let with_letters = altered(letters(Some(OnError::DeadLetter), Some("lost"))).unwrap();
        assert_eq!(with_letters.dead_letter_topic("t").unwrap(), "lost");
        let own = letters(None, Some("")).apply(&with_letters, Side::Produce).unwrap();
        assert_eq!(own.dead_letter_topic("t").unwrap(), "t.dead-letter");
        let skips = letters(Some(OnError::Skip), None);
        assert_eq!(skips.apply(&with_letters, Side::Produce).unwrap().dead_letter, None);
    }

    #[test]
    fn the_version_of_a_stage_on_trial_stays() {
        let to = |version| StageChange {
            version: Some(version),
            set_params: [owned(("with", "#"))].into(),
            ..StageChange::default()
        };
        let follows = altered(to(0)).unwrap();
        assert_eq!((follows.version, follows.follows), (0, Follows::Latest));
        let mut on_trial = StageSpec {
            follows: Follows::Latest,
            ..stage()
        };
        assert_eq!(to(0).apply(&on_trial, Side::Produce).unwrap().version, 2);
        let pinned = to(1).apply(&on_trial, Side::Produce).unwrap();
        assert_eq!((pinned.version, pinned.follows), (1, Follows::Pinned));
        on_trial.trial = Some(Trial {
            version: 3,
            mode: TrialMode::Shadow,
        });
        for version in [0, 2, 3] {
            let refused = to(version).apply(&on_trial, Side::Produce).unwrap_err();
            assert_eq!(refused.kind(), Kind::Precondition);
            assert!(
                refused.to_string().contains("millstream module promote redact"),
                "{refused}"
            );
        }
        let params = StageChange { version: None, ..to(0) };
        let both = params.apply(&on_trial, Side::Produce).unwrap();
        assert_eq!((both.params["with"].as_str(), both.trial), ("#", on_trial.trial));
    }
}
