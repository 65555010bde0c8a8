//! The attributes and derives of `millstream-guest`. They check what the author wrote and add as little as they can: an
//! implementation of a trait of `millstream-guest`, whose generic code does the rest.

mod choice;
mod docs;
mod function;
mod params;

use proc_macro::TokenStream;

/// Makes a module of a function that decides whether a record stays.
///
/// `fn(&Record) -> bool`, or `-> Result<bool, E>` whose error rejects the record; a second argument gets the parameters.
#[proc_macro_attribute]
pub fn filter(attribute: TokenStream, item: TokenStream) -> TokenStream {
    function::expand(&function::FILTER, attribute.into(), item.into()).into()
}

/// Makes a module of a function that keeps, replaces, drops or rejects a record.
///
/// `fn(&Record, &mut Output) -> Decision`, or `-> Result<Decision, E>` whose error rejects the record; a third argument
/// gets the parameters.
#[proc_macro_attribute]
pub fn map(attribute: TokenStream, item: TokenStream) -> TokenStream {
    function::expand(&function::MAP, attribute.into(), item.into()).into()
}

/// Makes a module of a function that replaces a record or drops it.
///
/// `fn(&Record, &mut Output) -> Option<()>`: `Some(())` gives the record what was written to the output, `None` drops it,
/// so `?` on an `Option` leaves out what does not fit. Or `-> Result<Option<()>, E>` whose error rejects the record; a
/// third argument gets the parameters.
#[proc_macro_attribute]
pub fn filter_map(attribute: TokenStream, item: TokenStream) -> TokenStream {
    function::expand(&function::FILTER_MAP, attribute.into(), item.into()).into()
}

/// Makes a module of a function that makes any number of records of one.
///
/// `fn(&Record, &mut Outputs)`, or `-> Result<(), E>` whose error rejects the record; a third argument gets the
/// parameters.
#[proc_macro_attribute]
pub fn flat_map(attribute: TokenStream, item: TokenStream) -> TokenStream {
    function::expand(&function::FLAT_MAP, attribute.into(), item.into()).into()
}

/// Makes a module of a function that decides on all records of a call at once.
///
/// `fn(&Records, &mut Decisions)`, or `-> Result<(), E>` whose error fails the whole batch; a third argument gets the
/// parameters. What nothing is decided on is kept.
#[proc_macro_attribute]
pub fn batch(attribute: TokenStream, item: TokenStream) -> TokenStream {
    function::expand(&function::BATCH, attribute.into(), item.into()).into()
}

/// Makes a struct of parameters: each field is a parameter, its doc comment the description.
///
/// `#[param(default = ...)]` gives a default, `#[param(name = "...")]` another name than the field's.
#[proc_macro_derive(Params, attributes(param))]
pub fn params(input: TokenStream) -> TokenStream {
    params::expand(input.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes an enum a type that a parameter can have: its variants in kebab-case are the allowed words.
#[proc_macro_derive(Choice)]
pub fn choice(input: TokenStream) -> TokenStream {
    choice::expand(input.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
