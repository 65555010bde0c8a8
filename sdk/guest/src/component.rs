//! The contract of `sdk/wit`, in wasm only: generated bindings, and the one module that this component is.

use std::cell::RefCell;
use std::marker::PhantomData;

use bindings::exports::millstream::module::transform;

use crate::host::{Level, log};
use crate::module::{Info, Instance, Module};
use crate::outcome::{Outcome, Verdict};
use crate::record::{Batch, Context};

/// What `wit-bindgen` makes of the contract.
#[allow(unsafe_code, missing_docs)] // Generated: it lifts and lowers through linear memory.
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "module",
        pub_export_macro: true,
        export_macro_name: "export_module",
        default_bindings_module: "millstream_guest::component::bindings",
    });
}

/// A configured module whose type is forgotten, so that one static can hold any.
trait Configured {
    fn process(&mut self, batch: &Batch<'_>) -> Result<Outcome, String>;
}

impl<M: Module> Configured for Instance<M> {
    fn process(&mut self, batch: &Batch<'_>) -> Result<Outcome, String> {
        Instance::process(self, batch)
    }
}

thread_local! {
    static CONFIGURED: RefCell<Option<Box<dyn Configured>>> = const { RefCell::new(None) };
}

/// The component that a module becomes.
pub struct Component<M>(PhantomData<M>);

impl<M: Module> transform::Guest for Component<M> {
    fn describe() -> transform::Info {
        M::info().into()
    }

    fn configure(context: transform::Context, params: Vec<(String, String)>) -> Result<(), String> {
        // A panic ends in a trap that carries no text; this line is all that is ever known of its cause.
        std::panic::set_hook(Box::new(|panic| log(Level::Error, format_args!("{panic}"))));
        let context = Context {
            topic: context.topic,
            on_fetch: context.on_fetch,
        };
        let instance = Instance::<M>::configure(context, &params)?;
        CONFIGURED.set(Some(Box::new(instance)));
        Ok(())
    }

    fn process(batch: transform::Batch) -> Result<transform::Outcome, String> {
        let view = Batch {
            partition: batch.partition,
            first_offset: batch.first_offset,
            append_time_ms: batch.append_time,
            base_timestamp_ms: batch.base_timestamp,
            count: batch.count,
            records: &batch.records,
        };
        CONFIGURED.with_borrow_mut(|configured| match configured {
            Some(module) => module.process(&view).map(Into::into),
            None => Err("process was called before configure".to_owned()),
        })
    }
}

impl From<Info> for transform::Info {
    fn from(info: Info) -> Self {
        let params = info.params.into_iter().map(|param| transform::Param {
            name: param.name,
            kind: param.kind,
            default: param.default,
            required: param.required,
            doc: param.doc,
        });
        Self {
            name: info.name,
            summary: info.summary,
            params: params.collect(),
            outputs: Vec::new(),
        }
    }
}

impl From<Outcome> for transform::Outcome {
    fn from(outcome: Outcome) -> Self {
        let verdict = match outcome.verdict {
            Verdict::Unchanged => transform::Verdict::Unchanged,
            Verdict::Keep(bitmap) => transform::Verdict::Keep(bitmap),
            Verdict::Rewrite(emitted) => transform::Verdict::Rewrite(transform::Emitted {
                counts: emitted.counts,
                records: emitted.records,
            }),
        };
        let rejects = outcome
            .rejects
            .into_iter()
            .map(|reject| transform::Reject {
                index: reject.index,
                reason: reject.reason,
            })
            .collect();
        Self {
            verdict,
            rejects,
            routes: Vec::new(),
        }
    }
}
