//! The CPU threads on which modules run, so that a module that spins never holds an async worker.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::error::{BrokerError, Result};

/// A bounded pool of threads for synchronous work. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    threads: Arc<rayon::ThreadPool>,
}

impl Pool {
    pub(crate) fn new(threads: usize) -> Pool {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|n| format!("module-{n}"))
            .panic_handler(|_| tracing::error!("a task of the module pool panicked; its request fails"))
            .build()
            .expect("the operating system gives the threads of the module pool at start");
        Pool {
            threads: Arc::new(threads),
        }
    }

    /// Runs `task` on the pool. A panic in it becomes an error here.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        self.threads.spawn(move || {
            // The caller may have gone away; then nobody wants the result.
            let _ = sender.send(task());
        });
        receiver.await.map_err(|_| BrokerError::Panicked { what })
    }
}
