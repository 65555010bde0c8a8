//! `derive(Params)`: a struct of parameters.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Expr, ExprUnary, Field, Fields, Ident, Lit, LitStr, Result, Type, UnOp, parse2};

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
                    let value = meta.value()?.parse()?;
                    let text = literal_text(&value)?;
                    check_default(&field.ty, &text).map_err(|expected| Error::new_spanned(&value, expected))?;
                    parameter.default = Some(text);
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
fn literal_text(value: &Expr) -> Result<String> {
    let literal = match value {
        Expr::Lit(literal) => &literal.lit,
        Expr::Unary(ExprUnary {
            op: UnOp::Neg(_), expr, ..
        }) => return Ok(format!("-{}", literal_text(expr)?)),
        _ => return Err(Error::new_spanned(value, DEFAULTS)),
    };
    match literal {
        Lit::Str(text) => Ok(text.value()),
        Lit::Bool(value) => Ok(value.value.to_string()),
        Lit::Int(number) => Ok(number.base10_digits().to_owned()),
        Lit::Float(number) => Ok(number.base10_digits().to_owned()),
        _ => Err(Error::new_spanned(literal, DEFAULTS)),
    }
}

const DEFAULTS: &str = "a default is a text, a number, true or false";

/// Whether a field of that type can have the default; of types that the author made only the compiled module can tell.
fn check_default(field: &Type, text: &str) -> std::result::Result<(), String> {
    let Type::Path(path) = field else { return Ok(()) };
    let Some(name) = path.path.get_ident().map(Ident::to_string) else {
        return Ok(());
    };
    let (fits, kind) = match name.as_str() {
        "bool" => (text.parse::<bool>().is_ok(), "true or false"),
        "f64" => (text.parse::<f64>().is_ok_and(f64::is_finite), "a number"),
        "i64" => (text.parse::<i64>().is_ok(), "a whole number"),
        "u64" | "usize" => (text.parse::<u64>().is_ok(), "a whole number from 0 on"),
        "i32" => (text.parse::<i32>().is_ok(), "a whole number of 32 bits"),
        "u32" => (text.parse::<u32>().is_ok(), "a whole number of 32 bits from 0 on"),
        _ => (true, ""),
    };
    match fits {
        true => Ok(()),
        false => Err(format!("the parameter is of type `{name}`: its default is {kind}")),
    }
}
