//! The modules under measurement, compiled from their crates.

use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use millstream_tests::{target_dir, workspace};
use millstream_wasm::componentize;

const TARGET: &str = "wasm32-unknown-unknown";
/// What `millstream module build` sets, apart by what cargo has between flags.
const RUSTFLAGS: &str =
    "-Ctarget-feature=+simd128\x1f-Cllvm-args=-inline-threshold=400\x1f-Clink-arg=-zstack-size=262144";

/// The component of the crate in a folder of the checkout.
pub fn component(dir: &str) -> Vec<u8> {
    let dir = workspace().join(dir);
    let target = target_dir().join("modules");
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--target", TARGET])
        .args(["--config", "profile.release.opt-level=3"])
        .current_dir(&dir)
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS)
        .stdin(Stdio::null())
        .status()
        .expect("cargo can be started");
    assert!(status.success(), "{} does not build", dir.display());
    let name = dir.file_name().map(Path::new).expect("a crate has a folder");
    let core_module = target.join(TARGET).join("release").join(name).with_extension("wasm");
    let core_module = fs::read(core_module).expect("cargo puts the module there");
    componentize(&core_module).expect("the guest crate says what world the module is of")
}
