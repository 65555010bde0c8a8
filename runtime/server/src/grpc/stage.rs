//! Stages, and changes of stages, as they are asked for.

use millstream_broker::{BreakerSpec, Follows, StageChange, StageLimits, StageSpec};
use millstream_proto::v1;
use tonic::Status;

use super::{enums::on_error, status::missing};

/// The stage that a request asks for; version 0 means the module's current one.
pub(super) fn stage_spec(stage: v1::Stage) -> Result<StageSpec, Status> {
    if stage.module.is_empty() {
        return Err(missing("module in its stage"));
    }
    let on_error = on_error(stage.on_error)?;
    let breaker = stage.breaker.map(|breaker| BreakerSpec {
        failures: breaker.failures,
        cooldown_ms: breaker.cooldown_ms,
    });
    Ok(StageSpec {
        follows: match stage.version {
            0 => Follows::Latest,
            _ => Follows::Pinned,
        },
        params: stage.params.into_iter().collect(),
        on_error,
        dead_letter: (!stage.dead_letter_topic.is_empty()).then_some(stage.dead_letter_topic),
        limits: limits(stage.limits),
        breaker: breaker.unwrap_or_default(),
        ..StageSpec::new(stage.module, stage.version)
    })
}

/// The change of a stage that a request asks for.
pub(super) fn stage_change(change: v1::StageChange) -> Result<StageChange, Status> {
    Ok(StageChange {
        on_error: on_error(change.on_error)?,
        set_params: change.set_params.into_iter().collect(),
        unset_params: change.unset_params.into_iter().collect(),
        dead_letter: change.dead_letter_topic,
        default_limits: change.default_limits,
        limits: limits(change.limits),
        breaker_failures: change.breaker_failures,
        breaker_cooldown_ms: change.breaker_cooldown_ms,
        version: change.version,
        move_to: change.move_to,
    })
}

fn limits(limits: Option<v1::StageLimits>) -> StageLimits {
    let limits = limits.unwrap_or_default();
    StageLimits {
        cpu_ms: limits.cpu_ms,
        memory_bytes: limits.memory_bytes,
        output_bytes: limits.output_bytes,
        output_records: limits.output_records,
        output_growth: limits.output_growth,
        log_lines_per_second: limits.log_lines_per_second,
    }
}
