//! What can go wrong with a module, told to the person who operates it.

use std::fmt;
use std::time::Duration;

/// The call into a module during which something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Instantiation, with the start functions.
    Start,
    /// `describe`
    Describe,
    /// `configure`
    Configure,
    /// `process`
    Process,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Call::Start => "start",
            Call::Describe => "describe",
            Call::Configure => "configure",
            Call::Process => "process",
        })
    }
}

/// Why a module was refused or stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// The engine could not be set up on this machine.
    #[error("the WebAssembly engine cannot be started: {message}")]
    Engine {
        /// What the engine said.
        message: String,
    },
    /// Larger than [`COMPONENT_BYTES_MAX`](crate::COMPONENT_BYTES_MAX).
    #[error("the module is {bytes} bytes, more than the {limit} allowed; build it in release mode and strip it")]
    TooLarge {
        /// Size of what was given.
        bytes: usize,
        /// Greatest size accepted.
        limit: usize,
    },
    /// More code than is compiled.
    #[error(
        "the module has {bytes} bytes of {what}, more than the {limit} that are compiled; build it in release mode"
    )]
    TooMuchCode {
        /// In which.
        what: &'static str,
        /// How many bytes.
        bytes: usize,
        /// How many at most.
        limit: usize,
    },
    /// Neither a component nor a core module.
    #[error("not WebAssembly: the file does not begin with \\0asm and a known version; deploy a built .wasm file")]
    NotWasm,
    /// A core module where a component is needed.
    #[error("this is a core WebAssembly module, not a component; build it with `millstream module build`")]
    CoreModule,
    /// A component, but not one of the world `module`.
    #[error("the component is not of the world millstream:module/module@1.0.0: {message}")]
    OtherWorld {
        /// What is missing or differs.
        message: String,
    },
    /// The component imports what no module is offered.
    #[error(
        "the module imports `{name}`, which the host does not offer; modules get millstream:module/host@1.0.0 only \
         (in Rust, build for wasm32-unknown-unknown)"
    )]
    UnknownImport {
        /// The import, as the component names it.
        name: String,
    },
    /// The component was built against a later contract than this host offers.
    #[error(
        "the module is built against millstream:module@{version}, and this host offers {offered} at most; build it with \
         an older SDK or update the agent", offered = crate::bindings::CONTRACT_VERSION
    )]
    NewerContract {
        /// The version the module asks for.
        version: String,
    },
    /// The compiler refused the component.
    #[error("the module does not compile: {message}")]
    Compile {
        /// What the compiler said.
        message: String,
    },
    /// `describe` returned something unusable.
    #[error("the module describes itself wrongly: {what}")]
    Info {
        /// What was wrong.
        what: String,
    },
    /// `configure` refused the context or the parameters.
    #[error("the module refuses its parameters: {reason}")]
    Refused {
        /// The module's own words.
        reason: String,
    },
    /// `process` returned an error.
    #[error("the module failed: {message}")]
    Failed {
        /// The module's own words.
        message: String,
    },
    /// The module did what WebAssembly or the component model forbids, which includes its panics.
    #[error("the module trapped in {call}: {message}{}", last_words(.log))]
    Trap {
        /// Where.
        call: Call,
        /// What the engine said.
        message: String,
        /// The last line the module logged as an error during the call.
        log: Option<String>,
    },
    /// The CPU deadline passed.
    #[error(
        "the module used more than {} ms of CPU in {call} and was stopped; make it faster, or raise --cpu-ms of the stage \
         or module_deadline_ms of the agent", .limit.as_millis()
    )]
    Deadline {
        /// Where.
        call: Call,
        /// The deadline.
        limit: Duration,
    },
    /// The memory limit was reached.
    #[error(
        "the module wanted {wanted} bytes of memory in {call}, more than the {limit} allowed; make it hold less, or raise \
         --memory of the stage or module_memory_bytes of the agent"
    )]
    Memory {
        /// Where.
        call: Call,
        /// What it would have had, in bytes.
        wanted: usize,
        /// What it may have, in bytes.
        limit: usize,
    },
    /// The bound on the memory of all instances of the agent was reached, and none was idle.
    #[error(
        "the module wanted {wanted} more bytes of memory in {call}, and all modules of this agent together may hold {limit}; \
         try again, or raise module_guest_memory_bytes"
    )]
    AgentMemory {
        /// Where.
        call: Call,
        /// What it wanted more, in bytes.
        wanted: usize,
        /// What all may have together, in bytes.
        limit: usize,
    },
    /// The bound on instances of the agent was reached, and none was idle.
    #[error("all {limit} instances that this agent may have are at work; try again, or raise module_instances_max")]
    AgentInstances {
        /// How many there may be.
        limit: usize,
    },
    /// The bound on table elements was reached.
    #[error("the module wanted tables of {wanted} elements in {call}, more than the {limit} allowed")]
    Tables {
        /// Where.
        call: Call,
        /// What it would have had.
        wanted: usize,
        /// What it may have.
        limit: usize,
    },
    /// What the module returned does not fit what it was given.
    #[error("the module returned a wrong answer: {what}")]
    Output {
        /// What was wrong.
        what: String,
    },
    /// More came back than the limits allow.
    #[error("the module returned too much in {call}: {what}")]
    OutputTooLarge {
        /// Where.
        call: Call,
        /// What was too much, and the limit.
        what: String,
    },
    /// The module routed records to an output.
    #[error("the module routes records to outputs, but routes are not offered yet")]
    Routed,
    /// What should be processed is no sequence of records.
    #[error("the records given to the module are damaged: {what}")]
    Input {
        /// What was wrong.
        what: String,
    },
    /// The instance had an error before.
    #[error("the instance has failed before and cannot be called again; make a new one")]
    Dead,
    /// A core module that does not make a component.
    #[error("the core module cannot be made a component: {message}")]
    Componentize {
        /// What was wrong.
        message: String,
    },
}

impl ModuleError {
    /// Whether the module did something wrong while it ran, rather than the caller, the agent or the file: a trap, a
    /// limit it passed, an answer that does not fit, an error it returned.
    pub fn is_module_fault(&self) -> bool {
        use ModuleError::*;
        match self {
            Trap { .. } | Deadline { .. } | Memory { .. } | Tables { .. } => true,
            Output { .. } | OutputTooLarge { .. } | Routed | Failed { .. } | Refused { .. } => true,
            Engine { .. }
            | TooLarge { .. }
            | TooMuchCode { .. }
            | NotWasm
            | CoreModule
            | OtherWorld { .. }
            | UnknownImport { .. } => false,
            NewerContract { .. } | Compile { .. } | Info { .. } | Componentize { .. } => false,
            AgentMemory { .. } | AgentInstances { .. } | Input { .. } | Dead => false,
        }
    }

    /// Whether it came of the records given, so that others may go through.
    pub fn is_of_records(&self) -> bool {
        use ModuleError::*;
        match self {
            Trap { call, .. } | Deadline { call, .. } | Memory { call, .. } => *call == Call::Process,
            Tables { call, .. } | OutputTooLarge { call, .. } => *call == Call::Process,
            other => other.is_module_fault() && !matches!(other, Refused { .. }),
        }
    }
}

fn last_words(log: &Option<String>) -> String {
    match log {
        Some(line) => format!("; it last logged: {line}"),
        None => String::new(),
    }
}
