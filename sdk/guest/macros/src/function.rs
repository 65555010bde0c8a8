//! The attributes on functions: checks the signature, leaves the function as it is, and implements `Module` on a type
//! that has the function's name.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, PatType, Result, ReturnType, Type, parse2};

use crate::docs;

/// One attribute: its name, and what its functions look like.
pub(crate) struct Attribute {
    name: &'static str,
    /// What the function takes beside the record and the parameters.
    output: Option<&'static str>,
    signature: &'static str,
}

pub(crate) const FILTER: Attribute = Attribute {
    name: "filter",
    output: None,
    signature: "fn keep(record: &Record, params: &Params) -> bool",
};

pub(crate) const MAP: Attribute = Attribute {
    name: "map",
    output: Some("&mut Output"),
    signature: "fn change(record: &Record, out: &mut Output, params: &Params) -> Decision",
};

pub(crate) const FLAT_MAP: Attribute = Attribute {
    name: "flat_map",
    output: Some("&mut Outputs"),
    signature: "fn split(record: &Record, out: &mut Outputs, params: &Params)",
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
    let state = state(attribute, function)?;
    let name = &function.sig.ident;
    let visibility = &function.vis;
    let process = Ident::new(attribute.name, Span::call_site());
    let output = attribute.output.map(|_| quote! { , __output });
    let argument = state.as_ref().map(|_| quote! { , __state });
    // The spans are the author's: what the compiler says of the type or of what is returned stands where they are.
    let state = match state {
        Some(state) => quote_spanned! { state.span() => type State = #state; },
        None => quote! { type State = (); },
    };
    let returned = match &function.sig.output {
        ReturnType::Type(_, returned) => returned.span(),
        ReturnType::Default => name.span(),
    };
    let call = quote_spanned! { returned.resolved_at(Span::call_site()) =>
        ::millstream_guest::process::#process(__context, __batch, |__record #output| #name(__record #output #argument))
    };
    let summary = match docs::summary(&function.attrs) {
        text if text.is_empty() => quote! { ::core::env!("CARGO_PKG_DESCRIPTION") },
        text => quote! { #text },
    };
    let only_one = Ident::new("one_module_function_per_crate", name.span());
    Ok(quote! {
        // A second module function in the crate defines this twice: the error stands at its name.
        #[doc(hidden)]
        #[macro_export]
        macro_rules! #only_one { () => {}; }

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

/// Checks the signature and returns the type of the parameters, if the function takes any.
fn state<'a>(attribute: &Attribute, function: &'a ItemFn) -> Result<Option<&'a Type>> {
    let signature = &function.sig;
    let wrong = |at: &dyn quote::ToTokens, what: &str| {
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
    let wanted = 1 + usize::from(attribute.output.is_some());
    let mut types = Vec::new();
    for input in &signature.inputs {
        match input {
            FnArg::Typed(PatType { ty, .. }) => types.push(&**ty),
            FnArg::Receiver(receiver) => return wrong(receiver, "a module function is not a method"),
        }
    }
    if types.len() < wanted {
        return wrong(
            &signature.ident,
            &format!("the function takes {} arguments of {wanted} or more", types.len()),
        );
    }
    if let Some(one_too_many) = types.get(wanted + 1) {
        return wrong(one_too_many, "one argument too many");
    }
    let by_reference = |ty: &Type, mutable: bool| match ty {
        Type::Reference(reference) => !mutable || reference.mutability.is_some(),
        _ => false,
    };
    if !by_reference(types[0], false) {
        return wrong(types[0], "the record comes by reference, `&Record`");
    }
    if let Some(output) = attribute.output
        && !by_reference(types[1], true)
    {
        return wrong(
            types[1],
            &format!("the second argument is what is written to, `{output}`"),
        );
    }
    match types.get(wanted) {
        None => Ok(None),
        Some(Type::Reference(reference)) => Ok(Some(&reference.elem)),
        Some(other) => wrong(other, "the parameters come by reference, `&Params`"),
    }
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
                "the function takes 0 arguments of 1 or more; ",
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
                "the function takes 1 arguments of 2 or more; ",
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
