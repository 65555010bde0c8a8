//! One stage at work.

use std::sync::Arc;
use std::time::Duration;

use crate::check::OutputBudget;
use crate::guest_memory::{GuestMemory, Ticket};
use crate::host::thread_cpu_time;
use crate::instance::{Input, Instance, StageContext};
use crate::{Engine, Limits, Module, ModuleError, Observer, Outcome};

/// One stage at work. It makes its instance when it first needs one, makes it anew after an error and where its memory
/// grew above a mark, and may lose it between two calls when other stages of the engine need the memory.
pub struct Runner {
    memory: Arc<GuestMemory>,
    module: Module,
    limits: Limits,
    context: StageContext,
    params: Vec<(String, String)>,
    observer: Arc<dyn Observer>,
    idle: Option<Ticket>,
    cpu_used: Duration,
    memory_peak_bytes: usize,
}

impl Runner {
    /// A stage that has no instance yet. `engine` is the one that compiled the module.
    pub fn new(
        engine: &Engine,
        module: Module,
        limits: Limits,
        context: StageContext,
        params: Vec<(String, String)>,
        observer: Arc<dyn Observer>,
    ) -> Runner {
        Runner {
            memory: engine.memory().clone(),
            module,
            limits,
            context,
            params,
            observer,
            idle: None,
            cpu_used: Duration::ZERO,
            memory_peak_bytes: 0,
        }
    }

    /// Makes and configures the instance where there is none, so that the next call has no need to.
    ///
    /// # Errors
    /// [`ModuleError::Refused`] with the module's reason where it does not take the parameters, or what stopped it.
    pub fn prepare(&mut self) -> Result<(), ModuleError> {
        self.timed(|runner| {
            let instance = runner.instance()?;
            runner.keep(instance);
            Ok(())
        })
    }

    /// Processes records, in pieces of about 128 KiB, each under the CPU deadline.
    ///
    /// # Errors
    /// What the module did wrong, [`ModuleError::Input`], or that the agent has no room for an instance. Nothing of the
    /// input has an outcome then, and the next call gets a new instance.
    pub fn process(&mut self, input: Input<'_>) -> Result<Outcome, ModuleError> {
        let mut output = OutputBudget::new(&self.limits);
        self.attempt(&input, &mut output, self.limits.cpu_deadline)
    }

    /// CPU time of the calling threads in all calls, the making of instances included.
    pub fn cpu_used(&self) -> Duration {
        self.cpu_used
    }

    /// Linear memory of the instance that held most after a call, in bytes.
    pub fn memory_peak_bytes(&self) -> usize {
        self.memory_peak_bytes
    }

    /// Whether there is an instance, so that the next call needs to make none.
    pub fn has_instance(&self) -> bool {
        self.idle.as_ref().is_some_and(|ticket| self.memory.is_kept(ticket))
    }

    /// The limits it runs under.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// As [`Runner::process`], with another deadline, and what is put out counts against `output`.
    pub(crate) fn attempt(
        &mut self,
        input: &Input<'_>,
        output: &mut OutputBudget,
        deadline: Duration,
    ) -> Result<Outcome, ModuleError> {
        self.timed(|runner| {
            let mut instance = runner.instance()?;
            instance.set_cpu_deadline(deadline);
            let outcome = instance.process_within(input, output);
            runner.keep(instance);
            outcome
        })
    }

    fn instance(&mut self) -> Result<Instance, ModuleError> {
        let idle = self.idle.take().and_then(|ticket| self.memory.take(ticket));
        idle.map_or_else(
            || {
                Instance::observed(
                    &self.module,
                    &self.limits,
                    &self.context,
                    &self.params,
                    self.observer.clone(),
                )
            },
            Ok,
        )
    }

    fn keep(&mut self, instance: Instance) {
        self.memory_peak_bytes = self.memory_peak_bytes.max(instance.memory_bytes());
        if !instance.is_dead() && !instance.is_above_mark() {
            self.idle = Some(self.memory.keep(instance));
        }
    }

    fn timed<R>(&mut self, work: impl FnOnce(&mut Runner) -> R) -> R {
        let before = thread_cpu_time();
        let result = work(self);
        self.cpu_used += thread_cpu_time().saturating_sub(before);
        result
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        drop(self.idle.take().and_then(|ticket| self.memory.take(ticket)));
    }
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("module", &self.module)
            .field("context", &self.context)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
