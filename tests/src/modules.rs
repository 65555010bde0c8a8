//! Modules, built by the binary under test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use bytes::Bytes;

use crate::{binary, cli, target_dir, workspace};

/// The component of a module in `modules/`. Cargo builds what is not up to date.
///
/// # Panics
/// Where it does not build.
pub fn component(name: &str) -> Bytes {
    fs::read(file(name)).expect("a built module can be read").into()
}

/// The file with the component of a module in `modules/`.
///
/// # Panics
/// Where it does not build.
pub fn file(name: &str) -> PathBuf {
    file_of(&format!("modules/{name}"))
}

/// The component of a module in a folder of the checkout.
///
/// # Panics
/// Where it does not build.
pub fn component_of(dir: &str) -> Bytes {
    fs::read(file_of(dir)).expect("a built module can be read").into()
}

/// The file with the component of a module in a folder of the checkout.
///
/// # Panics
/// Where it does not build.
pub fn file_of(dir: &str) -> PathBuf {
    let name = dir.rsplit('/').next().expect("a path has a last part");
    build(&workspace().join(dir), name)
}

/// The file with the component that a core module in a file becomes.
///
/// # Panics
/// Where it is no module.
pub fn from_core(core_module: &Path, name: &str) -> PathBuf {
    build(core_module, name)
}

fn build(source: &Path, name: &str) -> PathBuf {
    let built = target_dir().join("modules").join("components");
    fs::create_dir_all(&built).expect("the target folder can be written");
    // Tests of several processes want the same modules: one builds, the others find them.
    let lock = fs::File::create(built.join("lock")).expect("the target folder can be written");
    lock.lock().expect("a file can be locked");

    let component = built.join(format!("{name}.wasm"));
    // What is there is what another test reads, so a new one appears in one step.
    let new = built.join(format!("{name}.wasm.new"));
    let mut command = Command::new(binary());
    cli::clean(&mut command);
    let output = command
        .args(["module", "build"])
        .arg(source)
        .arg("-o")
        .arg(&new)
        .env("CARGO_TARGET_DIR", target_dir().join("modules"))
        .output()
        .expect("the binary can be started");
    assert!(
        output.status.success(),
        "module {name} does not build: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(new, &component).expect("both are in one folder");
    component
}
