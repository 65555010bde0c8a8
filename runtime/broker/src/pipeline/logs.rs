//! What modules say: the last lines of each, for whoever asks, and the lines to come for whoever follows.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use millstream_wasm::Level;
use tokio::{sync::broadcast, time::Instant};

/// Lines kept of one module.
const LINES_MAX: usize = 200;
/// Bytes of text kept of one module.
const TEXT_BYTES_MAX: usize = 256 << 10;
/// Lines that somebody who follows may be behind before some are lost to him.
const BEHIND_MAX: usize = 256;
/// Lines that a stage may log a second, where it does not say.
pub(super) const LINES_PER_SECOND: u32 = 100;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// "error", "warn", "info", "debug" or "trace".
    pub level: &'static str,
    /// The topic that the module worked for.
    pub topic: String,
    /// The partition; `None` where the agent says something about the module.
    pub partition: Option<u32>,
    /// The module's version.
    pub version: u32,
    /// The line.
    pub text: String,
}

/// What one module has logged lately.
#[derive(Debug)]
pub struct ModuleLogs {
    ring: Mutex<Ring>,
    /// When the last line came, in ms since the epoch.
    last_ms: AtomicI64,
    lines: broadcast::Sender<Arc<LogLine>>,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Arc<LogLine>>,
    text_bytes: usize,
}

impl Default for ModuleLogs {
    fn default() -> ModuleLogs {
        ModuleLogs {
            ring: Mutex::default(),
            last_ms: AtomicI64::new(i64::MIN),
            lines: broadcast::channel(BEHIND_MAX).0,
        }
    }
}

impl ModuleLogs {
    /// The last lines, and all that come after them: none is in both, none in neither.
    pub fn follow(&self) -> (Vec<Arc<LogLine>>, broadcast::Receiver<Arc<LogLine>>) {
        let ring = self.ring();
        (ring.lines.iter().cloned().collect(), self.lines.subscribe())
    }

    pub(super) fn push(&self, line: LogLine) {
        self.last_ms.store(line.timestamp_ms, Ordering::Relaxed);
        let line = Arc::new(line);
        let mut ring = self.ring();
        ring.text_bytes += line.text.len();
        ring.lines.push_back(line.clone());
        while ring.lines.len() > LINES_MAX || ring.text_bytes > TEXT_BYTES_MAX {
            let Some(oldest) = ring.lines.pop_front() else { break };
            ring.text_bytes -= oldest.text.len();
        }
        // Nobody may follow.
        let _ = self.lines.send(line);
    }

    /// When the last line came, in ms since the epoch.
    pub(super) fn last_ms(&self) -> i64 {
        self.last_ms.load(Ordering::Relaxed)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics while it holds this lock, and what it guards is whole between any two statements.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets so many lines a second through, and as many at once.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: f64,
    at: Instant,
    dropped: u64,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// It goes through, the first after so many that did not.
    Through {
        dropped_before: u64,
    },
    Dropped,
}

impl Bucket {
    pub(super) fn new(now: Instant) -> Bucket {
        Bucket {
            // The first line fills it: how much goes in is said with each line.
            tokens: f64::INFINITY,
            at: now,
            dropped: 0,
        }
    }

    pub(super) fn take(&mut self, per_second: u32, now: Instant) -> Passage {
        let most = f64::from(per_second);
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + since * most).min(most);
        self.at = now;
        if self.tokens < 1.0 {
            self.dropped += 1;
            return Passage::Dropped;
        }
        self.tokens -= 1.0;
        Passage::Through {
            dropped_before: std::mem::take(&mut self.dropped),
        }
    }
}

/// For the agent's own log.
pub(super) fn tracing_level(level: Level) -> tracing::Level {
    match level {
        Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
        Level::Trace => tracing::Level::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(text: String) -> LogLine {
        LogLine {
            timestamp_ms: 5,
            level: "info",
            topic: "t".to_owned(),
            partition: Some(0),
            version: 1,
            text,
        }
    }

    #[test]
    fn the_last_lines_are_kept_within_bounds_and_later_ones_follow() {
        let logs = ModuleLogs::default();
        (0..1_000).for_each(|n| logs.push(line(n.to_string())));
        let (kept, mut later) = logs.follow();
        assert_eq!((kept.len(), &*kept[0].text), (LINES_MAX, "800"));
        logs.push(line("next".to_owned()));
        assert_eq!(later.try_recv().unwrap().text, "next");
        (0..1_000).for_each(|_| logs.push(line("x".repeat(10_000))));
        assert!(logs.follow().0.len() * 10_000 <= TEXT_BYTES_MAX);
    }

    #[test]
    fn more_lines_than_allowed_are_dropped_and_counted() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let through = |bucket: &mut Bucket, at| bucket.take(3, at) != Passage::Dropped;
        let at_once = (0..10).filter(|_| through(&mut bucket, start)).count();
        assert_eq!(at_once, 3);
        let later = start + Duration::from_secs(1);
        assert_eq!(bucket.take(3, later), Passage::Through { dropped_before: 7 });
        assert_eq!(bucket.take(3, later), Passage::Through { dropped_before: 0 });
        assert_eq!(bucket.take(0, later), Passage::Dropped);
    }
}
