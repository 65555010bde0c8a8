//! Pipelines as they are told.

use millstream_broker::{
    Changed, Follows, OnError, Others, PipelineSpec, Side, StageLimits, StageSpec, StageStatus, TrialMode,
};
use millstream_proto::v1;

/// A pipeline as it stands.
pub(super) fn pipeline_message(version: u64, spec: PipelineSpec) -> v1::Pipeline {
    let stages = |stages: Vec<StageSpec>, side| stages.into_iter().map(|stage| stage_message(stage, side)).collect();
    v1::Pipeline {
        version,
        produce: stages(spec.produce, Side::Produce),
        fetch: stages(spec.fetch, Side::Fetch),
        paused: spec.paused.into_iter().map(|side| side_message(side).into()).collect(),
        ..v1::Pipeline::default()
    }
}

/// A pipeline that was changed, with the agents that have not switched.
pub(super) fn changed_message(changed: Changed) -> v1::Pipeline {
    v1::Pipeline {
        others_unknown: changed.others.unknown,
        not_switched: not_switched(changed.others),
        ..pipeline_message(changed.version, changed.spec)
    }
}

pub(super) fn not_switched(others: Others) -> Vec<v1::NotSwitched> {
    let behind = others.not_switched.into_iter().map(|behind| v1::NotSwitched {
        agent: behind.agent,
        address: behind.address,
        lease_over: behind.lease_over,
    });
    behind.collect()
}

fn stage_message(stage: StageSpec, side: Side) -> v1::Stage {
    let on_error = match stage.on_error(side) {
        OnError::Reject => v1::OnError::Reject,
        OnError::Skip => v1::OnError::Skip,
        OnError::DeadLetter => v1::OnError::DeadLetter,
        OnError::Pass => v1::OnError::Pass,
        OnError::Halt => v1::OnError::Halt,
    };
    let (trial_version, canary_partitions, shadow) = match stage.trial {
        None => (0, Vec::new(), false),
        Some(trial) => match trial.mode {
            TrialMode::Canary(partitions) => (trial.version, partitions, false),
            TrialMode::Shadow => (trial.version, Vec::new(), true),
        },
    };
    v1::Stage {
        module: stage.module,
        version: stage.version,
        params: stage.params.into_iter().collect(),
        on_error: on_error.into(),
        dead_letter_topic: stage.dead_letter.unwrap_or_default(),
        limits: limits_message(&stage.limits),
        breaker: Some(v1::Breaker {
            failures: stage.breaker.failures,
            cooldown_ms: stage.breaker.cooldown_ms,
        }),
        follows_latest: stage.follows == Follows::Latest,
        trial_version,
        canary_partitions,
        shadow,
        id: stage.id,
    }
}

fn limits_message(limits: &StageLimits) -> Option<v1::StageLimits> {
    (*limits != StageLimits::default()).then_some(v1::StageLimits {
        cpu_ms: limits.cpu_ms,
        memory_bytes: limits.memory_bytes,
        output_bytes: limits.output_bytes,
        output_records: limits.output_records,
        output_growth: limits.output_growth,
        log_lines_per_second: limits.log_lines_per_second,
    })
}

/// How a stage fares.
pub(super) fn status_message(status: StageStatus) -> v1::StageStatus {
    let figures = status.figures;
    let breakers = figures.breakers.into_iter().map(|breaker| v1::BreakerState {
        partition: breaker.partition,
        retry_in_ms: breaker.retry_in.as_millis() as u64,
        cause: breaker.cause,
    });
    let halts = status.halts.into_iter().map(|halt| v1::PartitionHalt {
        partition: halt.partition,
        cause: halt.cause,
    });
    v1::StageStatus {
        side: side_message(figures.side).into(),
        position: status.position,
        version: figures.version,
        batches: figures.batches,
        records_in: figures.records_in,
        records_out: figures.records_out,
        rejected: figures.rejected,
        failed: figures.failed,
        skipped: figures.skipped,
        dead_lettered: figures.dead_lettered,
        passed: figures.passed,
        shadow_differences: figures.shadow_differences,
        cpu_seconds: figures.cpu.as_secs_f64(),
        breakers: breakers.collect(),
        halts: halts.collect(),
        counters: figures.counters.into_iter().collect(),
    }
}

fn side_message(side: Side) -> v1::PipelineSide {
    match side {
        Side::Produce => v1::PipelineSide::Produce,
        Side::Fetch => v1::PipelineSide::Fetch,
    }
}
