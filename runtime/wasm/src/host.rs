//! The host's side of one instance: what it offers the module (log, count) and what it holds it to (CPU, memory).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::Level;
use wasmtime::{ResourceLimiter, UpdateDeadline};

use crate::bindings;
use crate::engine::TICK;
use crate::limits::{
    CORE_INSTANCES_MAX, COUNTER_NAME_BYTES_MAX, COUNTERS_MAX, Limits, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX,
};

/// The limit that stopped a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    #[error("CPU deadline")]
    Deadline,
    #[error("memory limit")]
    Memory { wanted: usize },
    #[error("table limit")]
    Tables { wanted: usize },
}

/// What the store of an instance carries.
pub struct HostState {
    module: Arc<str>,
    topic: Arc<str>,
    limits: Limits,
    memory_bytes: usize,
    table_elements: usize,
    cpu_at_first_tick: Option<Duration>,
    stop: Option<Stop>,
    lines: u32,
    lines_dropped: u64,
    last_error: Option<String>,
    counters: BTreeMap<String, u64>,
}

impl HostState {
    pub fn new(module: &str, topic: &str, limits: &Limits) -> HostState {
        HostState {
            module: module.into(),
            topic: topic.into(),
            limits: limits.clone(),
            memory_bytes: 0,
            table_elements: 0,
            cpu_at_first_tick: None,
            stop: None,
            lines: 0,
            lines_dropped: 0,
            last_error: None,
            counters: BTreeMap::new(),
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn counters(&self) -> &BTreeMap<String, u64> {
        &self.counters
    }

    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    pub fn begin_call(&mut self) {
        self.cpu_at_first_tick = None;
        self.lines = 0;
        self.lines_dropped = 0;
        self.last_error = None;
    }

    /// Ends a call: says how many lines were dropped, and gives what stopped it and its last words.
    pub fn end_call(&mut self) -> (Option<Stop>, Option<String>) {
        if self.lines_dropped > 0 {
            tracing::warn!(
                target: LOG_TARGET, module = &*self.module, topic = &*self.topic, dropped = self.lines_dropped,
                "the module logged more than {} lines in one call", self.limits.log_lines_max
            );
        }
        (self.stop.take(), self.last_error.take())
    }

    /// Called at the first tick after a call began and then when its time may be up.
    ///
    /// CPU time is measured from the first tick on, so that calls shorter than a tick never pay for reading a clock.
    /// It is the thread's own time: on a busy machine a waiting module is extended, not stopped.
    pub fn on_tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        let now = thread_cpu_time();
        let used = now.saturating_sub(*self.cpu_at_first_tick.get_or_insert(now));
        let left = self.limits.cpu_deadline.saturating_sub(used);
        if left.is_zero() {
            return Err(self.stopped_by(Stop::Deadline));
        }
        let ticks = left.as_micros().div_ceil(TICK.as_micros());
        Ok(UpdateDeadline::Continue(u64::try_from(ticks).unwrap_or(u64::MAX / 2)))
    }

    fn stopped_by(&mut self, stop: Stop) -> wasmtime::Error {
        self.stop = Some(stop);
        stop.into()
    }
}

const LOG_TARGET: &str = "millstream::module";

impl bindings::host::Host for HostState {
    fn log(&mut self, level: u8, text: String) {
        if self.lines >= self.limits.log_lines_max {
            self.lines_dropped += 1;
            return;
        }
        self.lines += 1;
        let line = bounded_line(&text, self.limits.log_line_bytes_max);
        let (module, topic) = (&*self.module, &*self.topic);
        match log_level(level) {
            Level::ERROR => tracing::error!(target: LOG_TARGET, module, topic, "{line}"),
            Level::WARN => tracing::warn!(target: LOG_TARGET, module, topic, "{line}"),
            Level::INFO => tracing::info!(target: LOG_TARGET, module, topic, "{line}"),
            Level::DEBUG => tracing::debug!(target: LOG_TARGET, module, topic, "{line}"),
            Level::TRACE => tracing::trace!(target: LOG_TARGET, module, topic, "{line}"),
        }
        if level == 0 {
            self.last_error = Some(line);
        }
    }

    fn count(&mut self, name: String, by: u64) {
        let known = self.counters.contains_key(&name);
        if !known && (self.counters.len() >= COUNTERS_MAX || name.len() > COUNTER_NAME_BYTES_MAX) {
            tracing::debug!(target: LOG_TARGET, module = &*self.module, "counter ignored: too many, or its name too long");
            return;
        }
        tracing::debug!(target: LOG_TARGET, module = &*self.module, topic = &*self.topic, counter = name, by);
        let total = self.counters.entry(name).or_default();
        *total = total.saturating_add(by);
    }
}

/// The limits hold over all memories and all tables of the instance together. A module that declares a smaller maximum
/// itself sees its own growth fail, as WebAssembly says; ours stops it.
impl ResourceLimiter for HostState {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let wanted = self.memory_bytes.saturating_sub(current).saturating_add(desired);
        if wanted > self.limits.memory_bytes {
            return Err(self.stopped_by(Stop::Memory { wanted }));
        }
        self.memory_bytes = wanted;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let wanted = self.table_elements.saturating_sub(current).saturating_add(desired);
        if wanted > TABLE_ELEMENTS_MAX {
            return Err(self.stopped_by(Stop::Tables { wanted }));
        }
        self.table_elements = wanted;
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

fn log_level(level: u8) -> Level {
    match level {
        0 => Level::ERROR,
        1 => Level::WARN,
        2 => Level::INFO,
        3 => Level::DEBUG,
        _ => Level::TRACE,
    }
}

/// At most `bytes_max` bytes of `text`, as one line: a module cannot write lines in another's name.
fn bounded_line(text: &str, bytes_max: usize) -> String {
    let cut = &text[..text.floor_char_boundary(bytes_max)];
    cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::host::Host;

    #[test]
    fn a_line_is_cut_between_characters_and_stays_one_line() {
        assert_eq!(bounded_line("äöü", 3), "ä");
        assert_eq!(bounded_line("a\nERROR b\x1b[0m", 100), "a ERROR b [0m");
    }

    #[test]
    fn counters_are_bounded_in_number_and_name() {
        let mut state = HostState::new("m", "t", &Limits::default());
        for i in 0..2 * COUNTERS_MAX {
            state.count(format!("c{i}"), 1);
        }
        state.count("c0".into(), u64::MAX);
        state.count("x".repeat(COUNTER_NAME_BYTES_MAX + 1), 1);
        assert_eq!(state.counters().len(), COUNTERS_MAX);
        assert_eq!(state.counters()["c0"], u64::MAX);
    }

    #[test]
    fn time_not_spent_on_a_processor_extends_the_deadline() {
        let mut state = HostState::new("m", "t", &Limits::default());
        for _ in 0..1_000 {
            // Ticks without CPU time between them, as on a machine where others run.
            state.cpu_at_first_tick = Some(thread_cpu_time());
            assert!(matches!(state.on_tick(), Ok(UpdateDeadline::Continue(1..))));
        }
        state.cpu_at_first_tick = Some(Duration::ZERO);
        state.limits.cpu_deadline = thread_cpu_time();
        assert!(state.on_tick().is_err());
        assert_eq!(state.end_call().0, Some(Stop::Deadline));
    }
}
