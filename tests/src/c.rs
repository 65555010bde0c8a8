//! C for WebAssembly, with whatever compiler there is: clang, or the one in the Python package `ziglang`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{python::python_environment, target_dir};

/// The package, pinned so that it is the same everywhere.
const ZIG: &str = "ziglang==0.17.0";
const FLAGS: [&str; 9] = [
    "-std=c11",
    "-O2",
    "-Wall",
    "-Werror",
    "-ffreestanding",
    "-fno-builtin",
    "-nostdlib",
    "-Wl,--no-entry",
    "-o",
];

/// The core module that a C file becomes, else why no compiler for it can be had.
///
/// # Panics
/// Where the compiler refuses it.
pub fn core_module(source: &Path, name: &str) -> Result<PathBuf, String> {
    let mut compiler = compiler()?;
    let core_module = target_dir().join(format!("{name}.core.wasm"));
    let output = compiler.args(FLAGS).arg(&core_module).arg(source).output();
    let output = output.map_err(|error| format!("the C compiler: {error}"))?;
    assert!(
        output.status.success(),
        "{}: {}",
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(core_module)
}

fn compiler() -> Result<Command, String> {
    if clang_knows_wasm() {
        let mut clang = Command::new("clang");
        clang.arg("--target=wasm32");
        return Ok(clang);
    }
    let programs = python_environment("ziglang", &[ZIG])?;
    let mut zig = Command::new(programs.join("python"));
    zig.args(["-m", "ziglang", "cc", "--target=wasm32-freestanding"]);
    // What it compiles of its own stays with what the tests installed.
    let cache = target_dir().join("ziglang/cache");
    zig.env("ZIG_GLOBAL_CACHE_DIR", &cache)
        .env("ZIG_LOCAL_CACHE_DIR", &cache);
    Ok(zig)
}

/// It needs a back end, and a linker beside it.
fn clang_knows_wasm() -> bool {
    let targets = Command::new("clang").arg("--print-targets").output();
    let linker = Command::new("wasm-ld").arg("--version").output();
    targets.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("wasm32"))
        && linker.is_ok_and(|output| output.status.success())
}
