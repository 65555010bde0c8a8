//! The CPU threads on which modules run, so that a module that spins never holds an async worker, and the slow lane for
//! those that use up their deadlines, and one thread for what nobody waits for.

use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use crate::error::{BrokerError, Result};

/// Comparisons that wait or run at once. Each holds a batch, and what was made of it.
const COMPARISONS_MAX: usize = 2;

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
    /// For comparisons, so that no batch waits behind one; `None` where everything goes one way.
    beside: Option<Arc<rayon::ThreadPool>>,
    comparisons: Arc<Semaphore>,
}

impl Pool {
    /// Threads that are alike.
    pub(crate) fn new(threads: usize) -> Pool {
        let fast = threads_of("module", threads).build();
        Pool {
            fast: Arc::new(fast.expect("the operating system gives the threads of the module pool at start")),
            slow: None,
            beside: None,
            comparisons: Arc::new(Semaphore::new(COMPARISONS_MAX)),
        }
    }

    /// With a slow lane beside.
    pub(crate) fn with_slow_lane(threads: usize) -> Pool {
        Pool {
            slow: Some(Arc::new(thread_of_low_priority("module-slow"))),
            beside: Some(Arc::new(thread_of_low_priority("module-beside"))),
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

    /// Begins a comparison, if there are not enough of them already.
    pub(crate) fn compare(&self, task: impl FnOnce() + Send + 'static) {
        let Ok(permit) = self.comparisons.clone().try_acquire_owned() else {
            return;
        };
        self.beside.as_ref().unwrap_or(&self.fast).spawn(move || {
            task();
            drop(permit);
        });
    }

    fn start(&self, lane: Lane, task: impl FnOnce() + Send + 'static) {
        match (lane, &self.slow) {
            (Lane::Slow, Some(slow)) => slow.spawn(task),
            _ => self.fast.spawn(task),
        }
    }
}

fn thread_of_low_priority(name: &'static str) -> rayon::ThreadPool {
    let thread = threads_of(name, 1).start_handler(move |_| {
        // Of this thread alone, on Linux. Where it is refused the lane is still one thread only.
        if let Err(error) = rustix::process::setpriority_process(None, SLOW_NICE) {
            tracing::warn!(%error, thread = name, "a thread for modules keeps its priority");
        }
    });
    let thread = thread.build();
    thread.expect("the operating system gives the threads of the module pool at start")
}

fn threads_of(name: &'static str, threads: usize) -> rayon::ThreadPoolBuilder {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(move |n| format!("{name}-{n}"))
        .panic_handler(|_| tracing::error!("a task of the module pool panicked; its request fails"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn comparisons_do_not_pile_up_and_no_batch_waits_behind_one() {
        let pool = Pool::with_slow_lane(1);
        let ((ran, runs), (go, gate)) = (mpsc::channel(), mpsc::channel::<()>());
        let gate = Arc::new(std::sync::Mutex::new(gate));
        for _ in 0..100 {
            let (ran, gate) = (ran.clone(), gate.clone());
            pool.compare(move || {
                let _ = gate.lock().map(|gate| gate.recv());
                let _ = ran.send(());
            });
        }
        assert_eq!(pool.run_in(Lane::Slow, "a batch", || 7).await.unwrap(), 7);
        drop((ran, go));
        assert_eq!(runs.iter().count(), COMPARISONS_MAX);
    }
}
