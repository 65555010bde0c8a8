//! The host's side of one instance: what it offers the module (log, count) and what it holds it to (CPU, memory).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{ResourceLimiter, UpdateDeadline};

use crate::bindings;
use crate::engine::TICK;
use crate::guest_memory::Share;
use crate::limits::{
    CORE_INSTANCES_MAX, COUNTER_NAME_BYTES_MAX, COUNTERS_MAX, Limits, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX,
};
use crate::observer::{Level, Observer};

/// The longest until a running call is asked again: few enough ticks that no count of them ever overflows.
const TICKS_MAX: u64 = 1 << 32;

/// The limit that stopped a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    #[error("CPU deadline")]
    Deadline,
    #[error("memory limit")]
    Memory { wanted: usize },
    #[error("memory limit of the agent")]
    AgentMemory { wanted: usize },
    #[error("table limit")]
    Tables { wanted: usize },
}

/// What the store of an instance carries.
pub struct HostState {
    limits: Limits,
    observer: Arc<dyn Observer>,
    share: Share,
    memory_bytes: usize,
    table_elements: usize,
    cpu_at_first_tick: Option<Duration>,
    stop: Option<Stop>,
    lines: u32,
    lines_dropped: u64,
    last_error: Option<String>,
    /// What was counted in this call, by name; a name once used stays, with 0.
    counters: BTreeMap<String, u64>,
}

impl HostState {
    pub fn new(limits: &Limits, observer: Arc<dyn Observer>, share: Share) -> HostState {
        HostState {
            limits: limits.clone(),
            observer,
            share,
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

    /// Sets what the next calls may use of the CPU.
    pub fn set_cpu_deadline(&mut self, deadline: Duration) {
        self.limits.cpu_deadline = deadline;
    }

    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    pub fn agent_bytes_max(&self) -> usize {
        self.share.bytes_max()
    }

    pub fn begin_call(&mut self) {
        self.cpu_at_first_tick = None;
        self.lines = 0;
        self.lines_dropped = 0;
        self.last_error = None;
    }

    /// Ends a call: tells what was counted and how many lines were dropped, and gives what stopped it and its last
    /// words.
    pub fn end_call(&mut self) -> (Option<Stop>, Option<String>) {
        if self.lines_dropped > 0 {
            let (dropped, limit) = (self.lines_dropped, self.limits.log_lines_max);
            let line = format!("{dropped} lines were dropped: the module logged more than {limit} in one call");
            self.observer.log(Level::Warn, &line);
        }
        for (name, by) in &mut self.counters {
            if *by > 0 {
                self.observer.count(name, std::mem::take(by));
            }
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
        let ticks = u64::try_from(ticks).unwrap_or(TICKS_MAX).min(TICKS_MAX);
        Ok(UpdateDeadline::Continue(ticks))
    }

    fn stopped_by(&mut self, stop: Stop) -> wasmtime::Error {
        self.stop = Some(stop);
        stop.into()
    }
}

impl bindings::host::Host for HostState {
    fn log(&mut self, level: u8, text: String) {
        if self.lines >= self.limits.log_lines_max {
            self.lines_dropped += 1;
            return;
        }
        self.lines += 1;
        let line = bounded_line(&text, self.limits.log_line_bytes_max);
        let level = Level::of_contract(level);
        self.observer.log(level, &line);
        if level == Level::Error {
            self.last_error = Some(line);
        }
    }

    fn count(&mut self, name: String, by: u64) {
        if let Some(total) = self.counters.get_mut(&name) {
            *total = total.saturating_add(by);
        } else if self.counters.len() < COUNTERS_MAX && is_counter_name(&name) {
            self.counters.insert(name, by);
        }
    }
}

fn is_counter_name(name: &str) -> bool {
    (1..=COUNTER_NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
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
        let more = desired.saturating_sub(current);
        if !self.share.grow(more) {
            return Err(self.stopped_by(Stop::AgentMemory { wanted: more }));
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
        let more = desired.saturating_sub(current).saturating_mul(size_of::<usize>());
        if !self.share.grow(more) {
            return Err(self.stopped_by(Stop::AgentMemory { wanted: more }));
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

/// At most `bytes_max` bytes of `text`, as one line: a module cannot write lines in another's name.
fn bounded_line(text: &str, bytes_max: usize) -> String {
    let cut = &text[..text.floor_char_boundary(bytes_max)];
    cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// CPU time the calling thread has used.
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::bindings::host::Host;
    use crate::guest_memory::GuestMemory;
    use crate::observer::Unheard;

    #[test]
    fn a_line_is_cut_between_characters_and_stays_one_line() {
        assert_eq!(bounded_line("äöü", 3), "ä");
        assert_eq!(bounded_line("a\nERROR b\x1b[0m", 100), "a ERROR b [0m");
    }

    /// Sums what was counted.
    #[derive(Default)]
    struct Counted(Mutex<BTreeMap<String, u64>>);

    impl Observer for Counted {
        fn log(&self, _: Level, _: &str) {}
        fn count(&self, name: &str, by: u64) {
            *self.0.lock().unwrap().entry(name.to_owned()).or_default() += by;
        }
    }

    fn state(observer: Arc<dyn Observer>) -> HostState {
        let memory = Arc::new(GuestMemory::new(1 << 20, 1));
        HostState::new(&Limits::default(), observer, memory.admit().unwrap())
    }

    #[test]
    fn counters_are_bounded_in_number_and_name_and_told_once_a_call() {
        let counted = Arc::new(Counted::default());
        let mut state = state(counted.clone());
        state.count("x".repeat(COUNTER_NAME_BYTES_MAX + 1), 1);
        state.count("new\nline".into(), 1);
        for i in 0..2 * COUNTERS_MAX {
            state.count(format!("c{i}"), 1);
        }
        assert!(counted.0.lock().unwrap().is_empty());
        state.end_call();
        state.count("c0".into(), 5);
        state.count("late".into(), 5);
        state.end_call();
        let counted = counted.0.lock().unwrap();
        assert_eq!((counted.len(), counted["c0"], counted["c1"]), (COUNTERS_MAX, 6, 1));
    }

    #[test]
    fn no_deadline_is_so_long_that_the_ticks_to_it_overflow() {
        let mut state = state(Arc::new(Unheard));
        for cpu_deadline in [Duration::from_millis(u64::MAX), Duration::MAX] {
            state.limits.cpu_deadline = cpu_deadline;
            assert!(matches!(state.on_tick(), Ok(UpdateDeadline::Continue(TICKS_MAX))));
        }
    }

    #[test]
    fn time_not_spent_on_a_processor_extends_the_deadline() {
        let mut state = state(Arc::new(Unheard));
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
