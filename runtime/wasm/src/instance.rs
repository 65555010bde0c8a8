//! A configured module at work.

use std::sync::Arc;
use std::time::Duration;

use crate::Module;
use crate::bindings::transform;
use crate::check::{OutputBudget, check};
use crate::error::{Call, ModuleError};
use crate::limits::{Limits, MEMORY_GROWTH_BYTES_MAX, SETUP_BYTES_MAX};
use crate::observer::{Observer, Unheard};
use crate::outcome::{Outcome, Piece, Reject, Verdict};
use crate::piece::{Slice, slices};
use crate::sandbox::Sandbox;

/// Where the stage that an instance serves stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageContext {
    /// The topic.
    pub topic: String,
    /// Whether it runs on fetch; otherwise it runs on produce.
    pub on_fetch: bool,
}

/// Records to process: `count` uncompressed records of Kafka's record batch version 2, without the batch header.
/// They come from a validated batch; what is not checked again is that `count` is right.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The partition.
    pub partition: u32,
    /// What the records' offset deltas count from; known on fetch only.
    pub first_offset: Option<u64>,
    /// When the records are or were appended, in ms since the epoch.
    pub append_time_ms: i64,
    /// What the records' timestamp deltas count from, in ms since the epoch.
    pub base_timestamp_ms: i64,
    /// How many records.
    pub count: u32,
    /// The records.
    pub records: &'a [u8],
}

/// A configured module in a sandbox of its own. Its memory is no state anyone may rely on: it may be dropped between
/// any two calls, and is of no use after an error.
pub struct Instance {
    sandbox: Sandbox,
    memory_bytes_mark: usize,
}

impl Instance {
    /// Instantiates and configures a module.
    ///
    /// # Errors
    /// [`ModuleError::Refused`] with the module's reason where it does not take the parameters, or what stopped it.
    pub fn new(
        module: &Module,
        limits: &Limits,
        context: &StageContext,
        params: &[(String, String)],
    ) -> Result<Instance, ModuleError> {
        Instance::observed(module, limits, context, params, Arc::new(Unheard))
    }

    /// As [`Instance::new`], and what the module says is heard.
    ///
    /// # Errors
    /// As [`Instance::new`].
    pub(crate) fn observed(
        module: &Module,
        limits: &Limits,
        context: &StageContext,
        params: &[(String, String)],
        observer: Arc<dyn Observer>,
    ) -> Result<Instance, ModuleError> {
        let mut sandbox = Sandbox::start(module.template(), module.memory(), limits, observer)?;
        let context = transform::Context {
            topic: &context.topic,
            on_fetch: context.on_fetch,
        };
        let params: Vec<(&str, &str)> = params.iter().map(|(name, value)| (&**name, &**value)).collect();
        sandbox
            .call(Call::Configure, SETUP_BYTES_MAX, |store, guest| {
                guest.call_configure(store, context, &params)
            })?
            .map_err(|reason| ModuleError::Refused { reason })?;
        let memory_bytes_mark = sandbox.state().memory_bytes() + MEMORY_GROWTH_BYTES_MAX;
        Ok(Instance {
            sandbox,
            memory_bytes_mark,
        })
    }

    /// Processes records, in pieces of about 128 KiB, each under the CPU deadline.
    ///
    /// # Errors
    /// What the module did wrong, or [`ModuleError::Input`]. Nothing of the input has an outcome then. The instance
    /// is dead, except after [`ModuleError::Input`].
    pub fn process(&mut self, input: Input<'_>) -> Result<Outcome, ModuleError> {
        let mut budget = OutputBudget::new(self.sandbox.state().limits());
        self.process_within(&input, &mut budget)
    }

    /// As [`Instance::process`], and what is put out counts against `budget`.
    pub(crate) fn process_within(
        &mut self,
        input: &Input<'_>,
        budget: &mut OutputBudget,
    ) -> Result<Outcome, ModuleError> {
        if self.is_dead() {
            return Err(ModuleError::Dead);
        }
        let slices = slices(input)?;
        let mut outcome = Outcome {
            pieces: Vec::with_capacity(slices.len()),
            rejects: Vec::new(),
        };
        for slice in slices {
            let (verdict, rejects) = self
                .process_slice(input, &slice, budget)
                .inspect_err(|_| self.sandbox.kill())?;
            let first_index = slice.first_index;
            outcome.rejects.extend(rejects.into_iter().map(|r| Reject {
                index: first_index + r.index,
                ..r
            }));
            outcome.pieces.push(Piece {
                count: slice.count,
                records: slice.records,
                verdict,
            });
        }
        Ok(outcome)
    }

    /// Whether an error left the instance unusable.
    pub fn is_dead(&self) -> bool {
        self.sandbox.is_dead()
    }

    /// Whether it has grown so much since it was configured that a new one is better: memory never shrinks.
    pub(crate) fn is_above_mark(&self) -> bool {
        self.memory_bytes() > self.memory_bytes_mark
    }

    /// Sets what the next calls may use of the CPU.
    pub(crate) fn set_cpu_deadline(&mut self, deadline: Duration) {
        self.sandbox.state_mut().set_cpu_deadline(deadline);
    }

    /// Linear memory the instance holds, in bytes. It never shrinks.
    pub fn memory_bytes(&self) -> usize {
        self.sandbox.state().memory_bytes()
    }

    fn process_slice(
        &mut self,
        input: &Input<'_>,
        slice: &Slice,
        budget: &mut OutputBudget,
    ) -> Result<(Verdict, Vec<Reject>), ModuleError> {
        let batch = transform::Batch {
            partition: input.partition,
            first_offset: input.first_offset,
            append_time: input.append_time_ms,
            base_timestamp: input.base_timestamp_ms,
            count: slice.count,
            records: &input.records[slice.records.clone()],
        };
        let bytes_max = budget.handover_bytes_max(slice);
        let answer = self
            .sandbox
            .call(Call::Process, bytes_max, |store, guest| {
                guest.call_process(store, batch)
            })?
            .map_err(|message| ModuleError::Failed { message })?;
        check(answer, slice, input.base_timestamp_ms, budget)
    }
}
