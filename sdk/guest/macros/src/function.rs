//! The attributes on functions: checks the signature, leaves the function as it is, and implements `Module` on a type
//! that has the function's name.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, PatType, Result, ReturnType, Type, parse2};

use crate::docs;

/// One attribute: its name, and what its functions look like.
pub(crate) struct Attribute {
    name: &'static str,
    /// What the function looks at, and what it is called.
    input: [&'static str; 2],
    /// What it takes beside that and the parameters.
    output: Option<&'static str>,
    signature: &'static str,
}

const RECORD: [&str; 2] = ["the record comes", "&Record"];

pub(crate) const FILTER: Attribute = Attribute {
    name: "filter",
    input: RECORD,
    output: None,
    signature: "fn keep(record: &Record, params: &Params) -> bool",
};

pub(crate) const MAP: Attribute = Attribute {
    name: "map",
    input: RECORD,
    output: Some("&mut Output"),
    signature: "fn change(record: &Record, out: &mut Output, params: &Params) -> Decision",
};

pub(crate) const FILTER_MAP: Attribute = Attribute {
    name: "filter_map",
    input: RECORD,
    output: Some("&mut Output"),
    signature: "fn change(record: &Record, out: &mut Output, params: &Params) -> Option<()>",
};

pub(crate) const FLAT_MAP: Attribute = Attribute {
    name: "flat_map",
    input: RECORD,
    output: Some("&mut Outputs"),
    signature: "fn split(record: &Record, out: &mut Outputs, params: &Params)",
};

pub(crate) const BATCH: Attribute = Attribute {
    name: "batch",
    input: ["the records come", "&Records"],
    output: Some("&mut Decisions"),
    signature: "fn decide(records: &Records, out: &mut Decisions, params: &Params)",
};

/// Expands the attribute; what is wrong comes beside the function, so that its own errors show as well.
pub(crate) fn expand(attribute: &Attribute, arguments: TokenStream, item: TokenStream) -> TokenStream {
    if !arguments.is_empty() {
        let error = Error::new_spanned(arguments, format!("`#[{}]` takes no arguments", attribute.name));
        return beside(&item, error);
    }
    let function: ItemFn = match parse2(item.clone()) {
        Ok(function) => function,
        Err(_) => {
            let text = format!("`#[{}]` stands on a function: {}", attribute.name, attribute.signature);
            return beside(&item, Error::new(Span::call_site(), text));
        }
    };
    match module(attribute, &function) {
        // Natively nothing but tests may call it.
        Ok(module) => quote! { #[allow(dead_code)] #function #module },
        Err(error) => beside(&item, error),
    }
}

fn beside(item: &TokenStream, error: Error) -> TokenStream {
    let error = error.into_compile_error();
    quote! { #item #error }
}

fn module(attribute: &Attribute, function: &ItemFn) -> Result<TokenStream> {
    let Arguments { input, output, state } = arguments(attribute, function)?;
    let name = &function.sig.ident;
    let visibility = &function.vis;
    let process = Ident::new(attribute.name, Span::call_site());
    // The spans are the author's: what the compiler says of a type or of what is returned stands where they are.
    let name_at = |name, ty: &Type| Ident::new(name, ty.span().resolved_at(Span::call_site()));
    let mut given = vec![name_at("__input", input)];
    given.extend(output.map(|ty| name_at("__output", ty)));
    let mut passed = given.clone();
    passed.extend(state.map(|ty| name_at("__state", ty)));
    let state = match state {
        Some(state) => quote_spanned! { state.span() => type State = #state; },
        None => quote! { type State = (); },
    };
    let returned = match &function.sig.output {
        ReturnType::Type(_, returned) => returned.span(),
        ReturnType::Default => name.span(),
    };
    let call = quote_spanned! { returned.resolved_at(Span::call_site()) =>
        ::millstream_guest::process::#process(__context, __batch, |#(#given),*| #name(#(#passed),*))
    };
    let summary = match docs::summary(&function.attrs) {
        text if text.is_empty() => quote! { ::core::env!("CARGO_PKG_DESCRIPTION") },
        text => quote! { #text },
    };
    // A second module function in the crate defines this twice: the error stands at its name.
    let only_one = quote_spanned! { name.span() =>
        #[doc(hidden)]
        #[macro_export]
        macro_rules! one_module_function_per_crate { () => {}; }
    };
    Ok(quote! {
        #only_one

        #[doc(hidden)]
        #[allow(non_camel_case_types, dead_code)]
        #visibility struct #name {}

        impl ::millstream_guest::Module for #name {
            #state
            const NAME: &'static str = ::core::env!("CARGO_PKG_NAME");
            const SUMMARY: &'static str = #summary;

            fn process(
                #[allow(unused_variables)] __state: &mut Self::State,
                __context: &::millstream_guest::Context,
                __batch: &::millstream_guest::Batch<'_>,
            ) -> ::core::result::Result<::millstream_guest::Outcome, ::std::string::String> {
                #call
            }
        }

        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        const _: () = {
            type Exported = ::millstream_guest::component::Component<#name>;
            ::millstream_guest::component::bindings::export_module!(
                Exported with_types_in ::millstream_guest::component::bindings
            );
        };
    })
}

/// The types of what the function takes; `state` is what the reference to the parameters leads to.
struct Arguments<'a> {
    input: &'a Type,
    output: Option<&'a Type>,
    state: Option<&'a Type>,
}

/// Checks the signature.
fn arguments<'a>(attribute: &Attribute, function: &'a ItemFn) -> Result<Arguments<'a>> {
    let signature = &function.sig;
    let wrong = |at: &dyn ToTokens, what: &str| {
        let text = format!(
            "{what}; a `#[{}]` function looks like this: {}",
            attribute.name, attribute.signature
        );
        Err(Error::new_spanned(at, text))
    };
    if let Some(keyword) = &signature.asyncness {
        return wrong(keyword, "a module is called synchronously");
    }
    if let Some(keyword) = &signature.unsafety {
        return wrong(keyword, "a module function is safe to call");
    }
    if !signature.generics.params.is_empty() {
        return wrong(&signature.generics, "a module function has no generic parameters");
    }
    let [what, input] = attribute.input;
    let wanted = 1 + usize::from(attribute.output.is_some());
    let mut types = Vec::new();
    for input in &signature.inputs {
        match input {
            FnArg::Typed(PatType { ty, .. }) => types.push(&**ty),
            FnArg::Receiver(receiver) => return wrong(receiver, "a module function is not a method"),
        }
    }
    if types.len() < wanted {
        let lacking = match (types.len(), attribute.output) {
            (1, Some(output)) => format!("the function lacks what it writes to, `{output}`"),
            _ => format!("the function lacks what it looks at, `{input}`"),
        };
        return wrong(&signature.ident, &lacking);
    }
    if let Some(one_too_many) = types.get(wanted + 1) {
        return wrong(one_too_many, "one argument too many");
    }
    let by_reference = |ty: &Type, mutable: bool| match ty {
        Type::Reference(reference) => !mutable || reference.mutability.is_some(),
        _ => false,
    };
    if !by_reference(types[0], false) {
        return wrong(types[0], &format!("{what} by reference, `{input}`"));
    }
    if let Some(output) = attribute.output
        && !by_reference(types[1], true)
    {
        return wrong(
            types[1],
            &format!("the second argument is what is written to, `{output}`"),
        );
    }
    let state = match types.get(wanted) {
        None => None,
        Some(Type::Reference(reference)) => Some(&*reference.elem),
        Some(other) => return wrong(other, "the parameters come by reference, `&Params`"),
    };
    Ok(Arguments {
        input: types[0],
        output: attribute.output.map(|_| types[1]),
        state,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of the compile error that the attribute adds, if it does.
    fn error(attribute: &Attribute, arguments: &str, item: &str) -> Option<String> {
        let expanded = expand(attribute, arguments.parse().unwrap(), item.parse().unwrap()).to_string();
        let text = expanded.split_once("compile_error ! { \"")?.1;
        Some(text.split_once("\" }")?.0.replace("\\\"", "\""))
    }

    #[test]
    fn right_signatures_are_taken() {
        let cases = [
            (&FILTER, "fn keep(record: &Record) -> bool { true }"),
            (
                &FILTER,
                "pub fn keep(_: &Record<'_>, params: &mut Params) -> Result<bool, E> { Ok(true) }",
            ),
            (
                &MAP,
                "fn change(record: &Record, out: &mut Output, params: &a::Params) -> Decision { Decision::Keep }",
            ),
            (&FLAT_MAP, "fn split(record: &Record, out: &mut Outputs) {}"),
        ];
        for (attribute, item) in cases {
            assert_eq!(error(attribute, "", item), None, "{item}");
        }
    }

    #[test]
    fn wrong_signatures_are_refused_in_words() {
        let cases = [
            (
                &FILTER,
                "",
                "fn f() -> bool { true }",
                "the function lacks what it looks at, `&Record`; ",
            ),
            (
                &FILTER,
                "",
                "fn f(record: Record) -> bool { true }",
                "the record comes by reference, `&Record`; ",
            ),
            (
                &FILTER,
                "",
                "fn f(record: &Record, p: Params) -> bool { true }",
                "the parameters come by reference, `&Params`; ",
            ),
            (
                &FILTER,
                "",
                "fn f(r: &Record, p: &P, q: &Q) -> bool { true }",
                "one argument too many; ",
            ),
            (
                &FILTER,
                "",
                "fn f(&self, r: &Record) -> bool { true }",
                "a module function is not a method; ",
            ),
            (
                &FILTER,
                "",
                "async fn f(r: &Record) -> bool { true }",
                "a module is called synchronously; ",
            ),
            (
                &FILTER,
                "",
                "fn f<T>(r: &Record, t: &T) -> bool { true }",
                "a module function has no generic parameters; ",
            ),
            (&FILTER, "", "struct S;", "`#[filter]` stands on a function: "),
            (
                &FILTER,
                "x = 1",
                "fn f(r: &Record) -> bool { true }",
                "`#[filter]` takes no arguments",
            ),
            (
                &MAP,
                "",
                "fn f(r: &Record) -> Decision { x }",
                "the function lacks what it writes to, `&mut Output`; ",
            ),
            (
                &MAP,
                "",
                "fn f(r: &Record, p: &P) -> Decision { x }",
                "the second argument is what is written to, `&mut Output`; ",
            ),
        ];
        for (attribute, arguments, item, text) in cases {
            let found = error(attribute, arguments, item).unwrap_or_else(|| panic!("accepted: {item}"));
            assert!(found.starts_with(text), "{item}: {found}");
        }
    }
}
