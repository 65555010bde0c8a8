//! Time and randomness, handed in from outside so that tests can drive them.

/// Where the broker learns the time and draws random ids.
///
/// Each implementation guarantees:
/// 1. `now_ms` is wall time; it may jump, so nothing that must be ordered relies on it.
/// 2. `random_id` does not repeat, not even after a restart.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;

    /// 128 random bits.
    fn random_id(&self) -> u128;
}
