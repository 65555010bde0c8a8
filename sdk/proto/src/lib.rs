//! The gRPC contract, package `millstream.v1`: the protos beside this crate and the code generated from them.
//!
//! The `.proto` files are the reference: every field says its unit and bounds there.

/// Messages, clients and servers of package `millstream.v1`.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("millstream.v1");
}

/// The encoded `FileDescriptorSet` of the package, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
