//! What a stage may ask for: its limits and its parameters are held to bounds before it is stored or run.

use millstream_wasm::Limits;

use super::{StageLimits, StageSpec, logs::LINES_PER_SECOND};
use crate::error::{BrokerError, Result};

/// The longest deadline of one call, in milliseconds: a thread that runs modules is taken for as long.
const CPU_MS_MAX: u64 = 300_000;
/// Most bytes that one batch may become: four times the largest that is stored, and what is read of a compressed one.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;
/// Most records that one batch may become: as many of the smallest fit in its bytes.
const OUTPUT_RECORDS_MAX: u64 = 10_000_000;
/// Beyond this the bytes are what bounds it.
const OUTPUT_GROWTH_MAX: u64 = 65_536;
/// Most log lines a second.
const LOG_LINES_MAX: u64 = 10_000;
/// Most bytes of a stage's parameters, names and values together: they are stored with every version of a pipeline, and are
/// part of what readers ask for.
const PARAMS_BYTES_MAX: usize = 64 << 10;

impl StageSpec {
    /// Refuses parameters that are too large.
    pub(crate) fn check_params(&self) -> Result<()> {
        let bytes = self.params.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes <= PARAMS_BYTES_MAX {
            return Ok(());
        }
        Err(BrokerError::ParamsTooLarge {
            module: self.module.clone(),
            bytes,
            bytes_max: PARAMS_BYTES_MAX,
        })
    }
}

impl StageLimits {
    /// Refuses what no stage can work with, and what one stage must not take from all others.
    pub(crate) fn check(&self, guest_memory_bytes: usize) -> Result<()> {
        let memory_bytes_max = guest_memory_bytes as u64;
        let log_lines = self.log_lines_per_second.map(u64::from);
        let set = [
            ("cpu_ms", self.cpu_ms, 1, CPU_MS_MAX),
            ("memory_bytes", self.memory_bytes, 1, memory_bytes_max),
            ("output_bytes", self.output_bytes, 1, OUTPUT_BYTES_MAX),
            ("output_records", self.output_records, 1, OUTPUT_RECORDS_MAX),
            ("output_growth", self.output_growth, 1, OUTPUT_GROWTH_MAX),
            // A module may be kept from logging.
            ("log_lines_per_second", log_lines, 0, LOG_LINES_MAX),
        ];
        for (name, value, least, most) in set {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                return Err(BrokerError::StageLimit {
                    name,
                    value,
                    least,
                    most,
                });
            }
        }
        Ok(())
    }

    /// The same, and nothing above the agent's: what a reader asks for runs on a machine that is not the reader's.
    pub(crate) fn within(&self, agent: &Limits) -> StageLimits {
        let at_most = |set: Option<u64>, agent: u64| set.map(|set| set.min(agent));
        let cpu_ms = u64::try_from(agent.cpu_deadline.as_millis()).unwrap_or(u64::MAX).max(1);
        StageLimits {
            cpu_ms: at_most(self.cpu_ms, cpu_ms),
            memory_bytes: at_most(self.memory_bytes, agent.memory_bytes as u64),
            output_bytes: at_most(self.output_bytes, agent.output_bytes_max as u64),
            output_records: at_most(self.output_records, agent.output_records_max as u64),
            output_growth: at_most(self.output_growth, agent.output_growth_max as u64),
            log_lines_per_second: self.log_lines_per_second.map(|set| set.min(LINES_PER_SECOND)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST_MEMORY: usize = 1 << 30;

    fn all(set: u64) -> [(&'static str, StageLimits); 6] {
        let none = StageLimits::default;
        let log_lines = Some(u32::try_from(set).unwrap_or(u32::MAX));
        [
            (
                "cpu_ms",
                StageLimits {
                    cpu_ms: Some(set),
                    ..none()
                },
            ),
            (
                "memory_bytes",
                StageLimits {
                    memory_bytes: Some(set),
                    ..none()
                },
            ),
            (
                "output_bytes",
                StageLimits {
                    output_bytes: Some(set),
                    ..none()
                },
            ),
            (
                "output_records",
                StageLimits {
                    output_records: Some(set),
                    ..none()
                },
            ),
            (
                "output_growth",
                StageLimits {
                    output_growth: Some(set),
                    ..none()
                },
            ),
            (
                "log_lines_per_second",
                StageLimits {
                    log_lines_per_second: log_lines,
                    ..none()
                },
            ),
        ]
    }

    #[test]
    fn a_limit_above_its_bound_is_refused_by_name_and_so_is_nothing_at_all() {
        StageLimits::default().check(GUEST_MEMORY).unwrap();
        for (name, limits) in all(u64::MAX) {
            let refused = limits.check(GUEST_MEMORY).unwrap_err().to_string();
            assert!(refused.contains(name), "{refused}");
        }
        for (name, limits) in all(0) {
            let allowed = limits.check(GUEST_MEMORY).is_ok();
            assert_eq!(allowed, name == "log_lines_per_second", "{name}");
        }
        for (name, limits) in all(1) {
            assert!(limits.check(GUEST_MEMORY).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_a_reader_asks_for_lowers_the_agents_limits_and_never_raises_them() {
        let agent = Limits::default();
        let agents = StageLimits {
            cpu_ms: Some(100),
            memory_bytes: Some(agent.memory_bytes as u64),
            output_bytes: Some(agent.output_bytes_max as u64),
            output_records: Some(agent.output_records_max as u64),
            output_growth: Some(agent.output_growth_max as u64),
            log_lines_per_second: Some(LINES_PER_SECOND),
        };
        let every = |set: u64| StageLimits {
            cpu_ms: Some(set),
            memory_bytes: Some(set),
            output_bytes: Some(set),
            output_records: Some(set),
            output_growth: Some(set),
            log_lines_per_second: Some(u32::try_from(set).unwrap_or(u32::MAX)),
        };
        assert_eq!(every(u64::MAX).within(&agent), agents);
        assert_eq!(every(7).within(&agent), every(7));
        assert_eq!(StageLimits::default().within(&agent), StageLimits::default());
    }

    #[test]
    fn parameters_are_bounded_names_and_values_together() {
        let mut stage = StageSpec::new("m", 1);
        stage.params.insert("n".repeat(1 << 10), "v".repeat(63 << 10));
        stage.check_params().unwrap();
        stage.params.insert("n".to_owned(), String::new());
        let refused = stage.check_params().unwrap_err().to_string();
        assert!(refused.contains("65537 bytes"), "{refused}");
    }
}
