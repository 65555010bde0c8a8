//! A module as the broker sees it: described, configured once, then called for batch after batch.

use crate::outcome::Outcome;
use crate::params::{Param, Params};
use crate::record::{Batch, Context};

/// What a module says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The crate's name.
    pub name: String,
    /// The first paragraph of the function's doc comment.
    pub summary: String,
    /// What a stage may set.
    pub params: Vec<Param>,
}

/// A module. The attributes implement it on a type that has the function's name: `Instance::<keep>` for `fn keep`.
pub trait Module: 'static {
    /// What the function gets beside the record.
    type State: Prepare;
    /// The crate's name.
    const NAME: &'static str;
    /// What it does, in a sentence.
    const SUMMARY: &'static str;

    /// Runs the function over a batch.
    ///
    /// # Errors
    /// The batch is malformed.
    fn process(state: &mut Self::State, context: &Context, batch: &Batch<'_>) -> Result<Outcome, String>;

    /// What the module says of itself.
    fn info() -> Info {
        Info {
            name: Self::NAME.to_owned(),
            summary: Self::SUMMARY.to_owned(),
            params: <Self::State as Prepare>::Params::describe(),
        }
    }
}

/// What is made of the parameters once, before the first record: a compiled pattern, a parsed path, a buffer.
///
/// Every struct of parameters is its own such state.
///
/// ```
/// use millstream_guest::prelude::*;
///
/// #[derive(Params)]
/// struct Params {
///     /// Words to look for, with commas between.
///     words: String,
/// }
///
/// struct Words(Vec<String>);
///
/// impl Prepare for Words {
///     type Params = Params;
///
///     fn prepare(params: Params, _context: &Context) -> Result<Self, String> {
///         if params.words.is_empty() {
///             return Err("parameter \"words\" names no word".to_owned());
///         }
///         Ok(Words(params.words.split(',').map(str::to_owned).collect()))
///     }
/// }
///
/// #[filter]
/// fn mentions(record: &Record, words: &Words) -> bool {
///     let value = String::from_utf8_lossy(record.value().unwrap_or_default());
///     words.0.iter().any(|word| value.contains(word))
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the parameters of a module",
    label = "not parameters",
    note = "add `#[derive(Params)]` to `{Self}`, or `impl Prepare for {Self}` to make it out of parameters"
)]
pub trait Prepare: Sized + 'static {
    /// The parameters it is made of.
    type Params: Params;

    /// Makes it.
    ///
    /// # Errors
    /// The text that tells whoever sets up the stage what is wrong with the parameters.
    fn prepare(params: Self::Params, context: &Context) -> Result<Self, String>;
}

impl<P: Params> Prepare for P {
    type Params = P;

    fn prepare(params: P, _context: &Context) -> Result<Self, String> {
        Ok(params)
    }
}

/// A configured module.
pub struct Instance<M: Module> {
    context: Context,
    state: M::State,
}

impl<M: Module> Instance<M> {
    /// Reads the parameters and prepares the state.
    ///
    /// # Errors
    /// Says which parameter is wrong and why.
    pub fn configure(context: Context, params: &[(String, String)]) -> Result<Self, String> {
        let params = <M::State as Prepare>::Params::parse(params)?;
        let state = M::State::prepare(params, &context)?;
        Ok(Self { context, state })
    }

    /// Where it runs.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Runs the module over a batch.
    ///
    /// # Errors
    /// The batch is malformed, or what a `#[batch]` function says of it.
    pub fn process(&mut self, batch: &Batch<'_>) -> Result<Outcome, String> {
        M::process(&mut self.state, &self.context, batch)
    }
}
