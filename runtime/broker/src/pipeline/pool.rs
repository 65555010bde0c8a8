//! The CPU threads on which modules run, so that a module that spins never holds an async worker, and the slow lane for
//! those that use up their deadlines.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::error::{BrokerError, Result};

/// What the thread of the slow lane is to the scheduler: it runs on what others leave.
const SLOW_NICE: i32 = 19;

/// Where a chain runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lane {
    /// On any thread of the pool.
    #[default]
    Fast,
    /// On the one thread of the lowest priority.
    Slow,
}

/// A bounded pool of threads for synchronous work. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    fast: Arc<rayon::ThreadPool>,
    /// `None` where everything goes one way.
    slow: Option<Arc<rayon::ThreadPool>>,
}

impl Pool {
    /// Threads that are alike.
    pub(crate) fn new(threads: usize) -> Pool {
        let fast = threads_of("module", threads).build();
        Pool {
            fast: Arc::new(fast.expect("the operating system gives the threads of the module pool at start")),
            slow: None,
        }
    }

    /// With a slow lane beside.
    pub(crate) fn with_slow_lane(threads: usize) -> Pool {
        let slow = threads_of("module-slow", 1).start_handler(|_| {
            // Of this thread alone, on Linux. Where it is refused the lane is still one thread only.
            if let Err(error) = rustix::process::setpriority_process(None, SLOW_NICE) {
                tracing::warn!(%error, "the thread for slow modules keeps its priority");
            }
        });
        let slow = slow.build();
        Pool {
            slow: Some(Arc::new(
                slow.expect("the operating system gives the threads of the module pool at start"),
            )),
            ..Pool::new(threads)
        }
    }

    /// Runs `task` on the pool. A panic in it becomes an error here.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.run_in(Lane::Fast, what, task).await
    }

    /// The same in a lane.
    pub(crate) async fn run_in<T: Send + 'static>(
        &self,
        lane: Lane,
        what: &'static str,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        self.start(lane, move || {
            // The caller may have gone away; then nobody wants the result.
            let _ = sender.send(task());
        });
        receiver.await.map_err(|_| BrokerError::Panicked { what })
    }

    /// Begins what nobody waits for.
    pub(crate) fn start(&self, lane: Lane, task: impl FnOnce() + Send + 'static) {
        match (lane, &self.slow) {
            (Lane::Slow, Some(slow)) => slow.spawn(task),
            _ => self.fast.spawn(task),
        }
    }
}

fn threads_of(name: &'static str, threads: usize) -> rayon::ThreadPoolBuilder {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(move |n| format!("{name}-{n}"))
        .panic_handler(|_| tracing::error!("a task of the module pool panicked; its request fails"))
}
