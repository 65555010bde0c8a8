//! A configured module at work.

use std::collections::BTreeMap;

use crate::Module;
use crate::bindings::transform;
use crate::check::{OutputBudget, check};
use crate::error::{Call, ModuleError};
use crate::host::HostState;
use crate::limits::{Limits, SETUP_BYTES_MAX};
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

/// A configured module in a sandbox of its own. Its memory is no state anyone may rely on: it may be dropped between any
/// two calls, and is of no use after an error.
pub struct Instance {
    sandbox: Sandbox,
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
        let state = HostState::new(&module.info().name, &context.topic, limits);
        let mut sandbox = Sandbox::start(module.template(), state)?;
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
        Ok(Instance { sandbox })
    }

    /// Processes records, in pieces of about 128 KiB, each under the CPU deadline.
    ///
    /// # Errors
    /// What the module did wrong, or [`ModuleError::Input`]. Nothing of the input has an outcome then. The instance
    /// is dead, except after [`ModuleError::Input`].
    pub fn process(&mut self, input: Input<'_>) -> Result<Outcome, ModuleError> {
        if self.is_dead() {
            return Err(ModuleError::Dead);
        }
        let slices = slices(&input)?;
        let mut budget = OutputBudget::new(self.sandbox.state().limits());
        let mut outcome = Outcome {
            pieces: Vec::with_capacity(slices.len()),
            rejects: Vec::new(),
        };
        for slice in slices {
            let (verdict, rejects) = self
                .process_slice(&input, &slice, &mut budget)
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

    /// What the module has counted since it was instantiated, by name.
    pub fn counters(&self) -> &BTreeMap<String, u64> {
        self.sandbox.state().counters()
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
