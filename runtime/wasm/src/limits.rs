//! What a module may use and hand back.

use std::time::Duration;

/// Greatest component accepted, in bytes.
pub const COMPONENT_BYTES_MAX: usize = 64 << 20;

/// Code of a component, in bytes: what is compiled.
pub(crate) const CODE_BYTES_MAX: usize = 16 << 20;
/// Code of one function, in bytes. The time to compile a function grows faster than its length.
pub(crate) const FUNCTION_BYTES_MAX: usize = 1 << 20;
/// Records are handed to a module in pieces of about this many bytes, which stay in the processor's cache.
pub(crate) const PIECE_BYTES: usize = 128 << 10;
/// An instance that grew by more than this while it processed is not used again.
pub(crate) const MEMORY_GROWTH_BYTES_MAX: usize = 16 << 20;
/// Native stack a module may use, in bytes; recursion beyond it traps.
pub(crate) const STACK_BYTES: usize = 512 << 10;
/// Elements all tables of an instance may hold together.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 1 << 17;
/// Tables of an instance.
pub(crate) const TABLES_MAX: usize = 64;
/// Linear memories of an instance; they share [`Limits::memory_bytes`].
pub(crate) const MEMORIES_MAX: usize = 16;
/// Core instances a component may consist of.
pub(crate) const CORE_INSTANCES_MAX: usize = 256;
/// What a module may hand over while it describes or configures itself, in bytes.
pub(crate) const SETUP_BYTES_MAX: usize = 256 << 10;
/// Output every piece may have, however small its input, in bytes.
pub(crate) const OUTPUT_FLOOR_BYTES: usize = 1 << 20;
/// Room for the verdict of one record beside its bytes (count, reject, reason).
pub(crate) const VERDICT_BYTES: usize = 128;
/// A reject's reason is cut to this many bytes.
pub(crate) const REASON_BYTES_MAX: usize = 1 << 10;
/// Different reasons of one input that are kept.
pub(crate) const REASONS_MAX: usize = 1_000;
/// Different counters an instance may have; more are ignored.
pub(crate) const COUNTERS_MAX: usize = 64;
/// Longest name of a counter, in bytes; longer ones are ignored.
pub(crate) const COUNTER_NAME_BYTES_MAX: usize = 64;

/// The limits of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of the instance, in bytes, all its memories together.
    pub memory_bytes: usize,
    /// CPU time of one call, in which one piece of about 128 KiB is processed. Time the thread spends waiting for a
    /// processor does not count.
    pub cpu_deadline: Duration,
    /// Rewritten records one [`Instance::process`](crate::Instance::process) may put out, in bytes.
    pub output_bytes_max: usize,
    /// Rewritten records one [`Instance::process`](crate::Instance::process) may put out.
    pub output_records_max: usize,
    /// How many times its input a piece's rewritten records may be, in bytes; 1 MiB is always allowed.
    pub output_growth_max: usize,
    /// Log lines of one call; more are dropped and counted.
    pub log_lines_max: u32,
    /// A log line is cut to this many bytes.
    pub log_line_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memory_bytes: 64 << 20,
            cpu_deadline: Duration::from_millis(100),
            output_bytes_max: 16 << 20,
            output_records_max: 1_000_000,
            output_growth_max: 64,
            log_lines_max: 100,
            log_line_bytes_max: 2 << 10,
        }
    }
}
