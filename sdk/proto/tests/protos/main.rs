//! The protos as a published contract: what was once in them stays as it was, everything says what it is, and names follow
//! one style. `README.md` beside this crate says what may change, and how the golden file is renewed.

mod golden;
mod outline;
mod style;

use std::path::PathBuf;

use millstream_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

const PACKAGE: &str = "millstream.v1";

/// The files of the package; what they import from elsewhere is others' contract.
fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("the descriptors describe themselves");
    let own = set.file.into_iter().filter(|file| file.package() == PACKAGE);
    own.collect()
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}
