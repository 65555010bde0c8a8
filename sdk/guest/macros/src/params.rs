//! `derive(Params)`: a struct of parameters.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, Fields, Ident, Lit, LitStr, Result, Type, parse2};

use crate::docs;

/// One field as a parameter.
struct Parameter<'a> {
    field: &'a Ident,
    kind: &'a Type,
    name: String,
    default: Option<String>,
    doc: String,
}

pub(crate) fn expand(input: TokenStream) -> Result<TokenStream> {
    let input: DeriveInput = parse2(input)?;
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(
            &input.ident,
            "`Params` is for structs: each field is a parameter",
        ));
    };
    let fields = match &data.fields {
        Fields::Named(fields) => fields.named.iter().map(Parameter::read).collect::<Result<Vec<_>>>()?,
        Fields::Unit => Vec::new(),
        Fields::Unnamed(fields) => {
            return Err(Error::new_spanned(fields, "a parameter needs a name: use named fields"));
        }
    };
    let described = fields.iter().map(Parameter::describe);
    let parsed = fields.iter().map(Parameter::parse);
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    Ok(quote! {
        impl #impl_generics ::millstream_guest::Params for #name #type_generics #where_clause {
            fn describe() -> ::std::vec::Vec<::millstream_guest::Param> {
                ::std::vec![#(#described),*]
            }

            fn parse(
                given: &[(::std::string::String, ::std::string::String)],
            ) -> ::core::result::Result<Self, ::std::string::String> {
                let given = ::millstream_guest::Given::new(given, &<Self as ::millstream_guest::Params>::describe())?;
                ::core::result::Result::Ok(Self { #(#parsed),* })
            }
        }
    })
}

impl<'a> Parameter<'a> {
    fn read(field: &'a Field) -> Result<Self> {
        let ident = field.ident.as_ref().expect("named fields have names");
        let mut parameter = Self {
            field: ident,
            kind: &field.ty,
            name: ident.unraw().to_string(),
            default: None,
            doc: docs::summary(&field.attrs),
        };
        for attribute in field
            .attrs
            .iter()
            .filter(|attribute| attribute.path().is_ident("param"))
        {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("default") {
                    parameter.default = Some(literal_text(&meta.value()?.parse()?)?);
                } else if meta.path.is_ident("name") {
                    parameter.name = meta.value()?.parse::<LitStr>()?.value();
                } else {
                    return Err(meta.error("a parameter has `default = ...` and `name = \"...\"`"));
                }
                Ok(())
            })?;
        }
        Ok(parameter)
    }

    fn default(&self) -> TokenStream {
        match &self.default {
            Some(text) => quote! { ::core::option::Option::Some(#text) },
            None => quote! { ::core::option::Option::None },
        }
    }

    fn describe(&self) -> TokenStream {
        let Self { kind, name, doc, .. } = self;
        let default = self.default();
        // The span is the type's, so that one that no parameter can have is underlined where it stands.
        quote_spanned! { kind.span() => ::millstream_guest::Param::of::<#kind>(#name, #default, #doc) }
    }

    fn parse(&self) -> TokenStream {
        let Self { field, kind, name, .. } = self;
        let default = self.default();
        let value = quote_spanned! { kind.span() => ::millstream_guest::Given::value::<#kind> };
        quote! { #field: #value(&given, #name, #default)? }
    }
}

/// A default as the text that a stage would set.
fn literal_text(literal: &Lit) -> Result<String> {
    match literal {
        Lit::Str(text) => Ok(text.value()),
        Lit::Bool(value) => Ok(value.value.to_string()),
        Lit::Int(number) => Ok(number.base10_digits().to_owned()),
        Lit::Float(number) => Ok(number.base10_digits().to_owned()),
        _ => Err(Error::new_spanned(
            literal,
            "a default is a text, a number, true or false",
        )),
    }
}
