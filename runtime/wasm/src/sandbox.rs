//! One instantiated component with its store, and the one way to call into it: under limits, and never again after an
//! error.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::bindings::{self, ModuleIndices, transform};
use crate::error::{Call, ModuleError};
use crate::guest_memory::GuestMemory;
use crate::host::{HostState, Stop};
use crate::limits::{Limits, SETUP_BYTES_MAX, TABLE_ELEMENTS_MAX};
use crate::observer::Observer;

/// What wasmtime says when a call hands over more than the store's hostcall fuel; it has no type of its own.
const HANDED_TOO_MUCH: &str = "fuel allocated for hostcalls has been exhausted";

/// A component ready to be instantiated, its imports resolved and its exports found.
pub struct Template {
    pub pre: InstancePre<HostState>,
    pub indices: ModuleIndices,
}

pub struct Sandbox {
    store: Store<HostState>,
    world: bindings::Module,
    dead: bool,
}

impl Sandbox {
    /// Instantiates a component; its start functions run under the limits already.
    pub fn start(
        template: &Template,
        memory: &Arc<GuestMemory>,
        limits: &Limits,
        observer: Arc<dyn Observer>,
    ) -> Result<Sandbox, ModuleError> {
        let share = memory.admit().ok_or(ModuleError::AgentInstances {
            limit: memory.stats().instances_max,
        })?;
        let state = HostState::new(limits, observer, share);
        let mut store = Store::new(template.pre.engine(), state);
        store.limiter(|state| state);
        store.epoch_deadline_callback(|mut store| store.data_mut().on_tick());
        let instance = guarded(&mut store, Call::Start, SETUP_BYTES_MAX, |store| {
            template.pre.instantiate(store)
        })?;
        let world = template
            .indices
            .load(&mut store, &instance)
            .map_err(|error| ModuleError::OtherWorld {
                message: format!("{error:#}"),
            })?;
        Ok(Sandbox {
            store,
            world,
            dead: false,
        })
    }

    /// Makes one call in which the module may hand over up to `bytes_max`.
    pub fn call<R>(
        &mut self,
        call: Call,
        bytes_max: usize,
        run: impl FnOnce(&mut Store<HostState>, &transform::Guest) -> wasmtime::Result<R>,
    ) -> Result<R, ModuleError> {
        if self.dead {
            return Err(ModuleError::Dead);
        }
        let guest = self.world.millstream_module_transform();
        let result = guarded(&mut self.store, call, bytes_max, |store| run(store, guest));
        self.dead = result.is_err();
        result
    }

    pub fn state(&self) -> &HostState {
        self.store.data()
    }

    pub fn state_mut(&mut self) -> &mut HostState {
        self.store.data_mut()
    }

    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Gives up on a module whose answer cannot be trusted.
    pub fn kill(&mut self) {
        self.dead = true;
    }
}

/// Runs guest code with a fresh deadline and says what stopped it, if anything did.
fn guarded<R>(
    store: &mut Store<HostState>,
    call: Call,
    bytes_max: usize,
    run: impl FnOnce(&mut Store<HostState>) -> wasmtime::Result<R>,
) -> Result<R, ModuleError> {
    store.data_mut().begin_call();
    store.set_hostcall_fuel(bytes_max);
    // The first tick starts the count, see `HostState::on_tick`.
    store.set_epoch_deadline(1);
    let result = run(store);
    let (stop, last_words) = store.data_mut().end_call();
    let limits = store.data().limits();
    result.map_err(|error| match stop {
        Some(Stop::Deadline) => ModuleError::Deadline {
            call,
            limit: limits.cpu_deadline,
        },
        Some(Stop::Memory { wanted }) => ModuleError::Memory {
            call,
            wanted,
            limit: limits.memory_bytes,
        },
        Some(Stop::AgentMemory { wanted }) => ModuleError::AgentMemory {
            call,
            wanted,
            limit: store.data().agent_bytes_max(),
        },
        Some(Stop::Tables { wanted }) => ModuleError::Tables {
            call,
            wanted,
            limit: TABLE_ELEMENTS_MAX,
        },
        None => trapped(call, bytes_max, &error, last_words),
    })
}

fn trapped(call: Call, bytes_max: usize, error: &wasmtime::Error, log: Option<String>) -> ModuleError {
    let message = error.root_cause().to_string();
    if message.contains(HANDED_TOO_MUCH) {
        let what = format!("more than {bytes_max} bytes at once");
        return ModuleError::OutputTooLarge { call, what };
    }
    ModuleError::Trap { call, message, log }
}
