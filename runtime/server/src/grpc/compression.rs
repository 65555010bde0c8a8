//! Compression on the wire: requests may come in gzip or zstd, and who asks for it is answered in one of them.
//!
//! The transport compresses an answer in whatever the client says that it takes. Some libraries say so with every call, whether
//! anybody wants it or not, and gzip costs more than all the rest of a fetch: from them it is taken for a wish only where the
//! request was compressed too.

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Status, codegen::http::HeaderMap};

use super::{bounds::Charge, status::exhausted};

const ENCODING: &str = "grpc-encoding";
const ACCEPTED: &str = "grpc-accept-encoding";
const IDENTITY: &str = "identity";
/// What libraries say by themselves: those over gRPC's C core, in two spellings, and those in Java and Go.
const SAID_UNASKED: [&str; 3] = ["identity, deflate, gzip", "identity,deflate,gzip", "gzip"];

/// A request that came compressed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compressed;

/// Whether a request comes compressed.
pub(super) fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get(ENCODING).is_some_and(|encoding| encoding != IDENTITY)
}

/// Takes out what a library said unasked.
pub(super) fn only_where_asked(headers: &mut HeaderMap) {
    let said = headers.get(ACCEPTED).and_then(|accepted| accepted.to_str().ok());
    if said.is_some_and(|said| SAID_UNASKED.contains(&said)) && !is_compressed(headers) {
        headers.remove(ACCEPTED);
    }
}

/// Whether the answer to a request is going to be compressed.
pub(super) fn is_wanted<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(ACCEPTED)
}

/// Charges what a request is once it is decompressed; while it arrived only its bytes on the wire were charged.
///
/// # Errors
/// A bound is met.
pub(super) fn charge_decompressed<T: Message>(request: &Request<T>) -> Result<(), Status> {
    let extensions = request.extensions();
    match extensions.get::<Arc<Charge>>() {
        Some(charge) if extensions.get::<Compressed>().is_some() => {
            let bytes = request.get_ref().encoded_len();
            charge
                .add(bytes)
                .map_err(|full| exhausted("REQUESTS_FULL", &full.to_string()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(fields: &[(&'static str, &'static str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().unwrap());
        }
        only_where_asked(&mut headers);
        Some(headers.get(ACCEPTED)?.to_str().unwrap().to_owned())
    }

    #[test]
    fn what_libraries_say_by_themselves_is_no_wish_unless_the_request_is_compressed_too() {
        assert_eq!(accepted(&[]), None);
        assert_eq!(accepted(&[(ACCEPTED, "identity, deflate, gzip")]), None);
        assert_eq!(accepted(&[(ACCEPTED, "gzip"), (ENCODING, "identity")]), None);
        assert_eq!(accepted(&[(ACCEPTED, "gzip"), (ENCODING, "gzip")]).unwrap(), "gzip");
        assert_eq!(accepted(&[(ACCEPTED, "gzip,identity")]).unwrap(), "gzip,identity");
        assert_eq!(accepted(&[(ACCEPTED, "zstd")]).unwrap(), "zstd");
    }
}
