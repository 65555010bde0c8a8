//! Versions of modules on their way through the topics: deployed, tried, promoted, taken back.
//!
//! A stage that follows `@latest` runs the current version of its module. Everything that moves that version goes one way:
//!
//! ```text
//! which topics follow?  every one of them: load, configure, call on recent records     nothing has changed yet
//! one transaction       the current version and a pipeline version for each topic      Metadata::change_pipelines
//! every open partition  switches between two batches                                   LiveTopic::switch
//! ```
//!
//! The transaction is what a crash cannot split: whoever starts afterwards finds the version and all pipelines, or none of
//! them, and there is nothing to finish. It also holds that nobody began to follow the module meanwhile (each that does is
//! counted in the module's row); else everything is made ready anew.
//!
//! Partitions that another agent leads switch within about a second ([`crate::activations`]), with the next request
//! ([`crate::following`]), and before they open ([`crate::opening`]). `others` waits for them, and names those that have not.
//!
//! | file | owns |
//! |---|---|
//! | `deploy` | deploy, promote, roll back: which version becomes current |
//! | `moves` | what a move makes of the pipelines that follow |
//! | `plan` | carrying out what was made ready |
//! | `others` | waiting for the agents that lead other partitions |
//! | `trial_call` | which versions are new, and what they are tried on |
//! | `trial_run` | configuring, and the call on recent records |
//! | `sample` | recent input of a topic |
//! | `guard` | the way back when a new version fails too often |
//! | `history` | which pipeline versions there were, and which wrote what |

mod deploy;
mod guard;
mod history;
mod moves;
mod others;
mod plan;
mod sample;
mod trial_call;
mod trial_run;

pub use deploy::{DeployOptions, Deployed, PipelineSwitch};
pub(crate) use guard::{Guard, run as guard};
pub(crate) use history::push as push_written;
pub use history::{HISTORY_MAX, RANGES_MAX, Written, WrittenPage};
pub(crate) use others::Activation;
pub use others::{NotSwitched, Others};
pub(crate) use plan::{Plan, PlannedTopic};
pub(crate) use sample::{Sample, beginning_of};
