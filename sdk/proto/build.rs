//! Compiles the protos in pure Rust: no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let files = [
        "cluster", "consumer", "error", "group", "module", "pipeline", "producer", "record", "topic",
    ]
    .map(|name| format!("millstream/v1/{name}.proto"));
    println!("cargo:rerun-if-changed=millstream");

    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
