//! `derive(Choice)`: an enum of words.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Result, parse2};

pub(crate) fn expand(input: TokenStream) -> Result<TokenStream> {
    let input: DeriveInput = parse2(input)?;
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(
            &input.ident,
            "`Choice` is for enums: each variant is a word",
        ));
    };
    if let Some(variant) = data
        .variants
        .iter()
        .find(|variant| !matches!(variant.fields, Fields::Unit))
    {
        return Err(Error::new_spanned(variant, "a word carries no fields"));
    }
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let variants: Vec<_> = data.variants.iter().map(|variant| &variant.ident).collect();
    let words: Vec<String> = variants
        .iter()
        .map(|variant| kebab_case(&variant.to_string()))
        .collect();
    let kind = words.join("|");
    let expected = words.join(", ");
    Ok(quote! {
        impl #impl_generics ::millstream_guest::ParamValue for #name #type_generics #where_clause {
            const KIND: &'static str = #kind;

            fn parse(text: &str) -> ::core::result::Result<Self, ::std::string::String> {
                match text {
                    #(#words => ::core::result::Result::Ok(Self::#variants),)*
                    _ => ::core::result::Result::Err(::std::format!("{text:?} is none of {}", #expected)),
                }
            }
        }
    })
}

/// `KeepAll` is `keep-all`.
fn kebab_case(name: &str) -> String {
    let mut word = String::with_capacity(name.len());
    for (index, character) in name.char_indices() {
        if character.is_uppercase() && index > 0 {
            word.push('-');
        }
        word.extend(character.to_lowercase());
    }
    word
}
