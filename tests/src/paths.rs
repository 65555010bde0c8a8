//! Where things are.

use std::path::{Path, PathBuf};

/// The root of the checkout.
pub fn workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("the crate is a folder of the workspace").to_owned()
}

/// The folder of the profile that the running program was built with, as in `target/debug`.
fn profile_dir() -> PathBuf {
    let program = std::env::current_exe().expect("a running program knows its file");
    let dir = program.parent().expect("a file is in a folder");
    // Cargo puts binaries into the profile's folder, and tests into one below it.
    let profile = if dir.ends_with("deps") { dir.parent() } else { Some(dir) };
    profile.expect("deps is a folder of the profile").to_owned()
}

/// Cargo's target folder.
pub fn target_dir() -> PathBuf {
    let dir = profile_dir();
    dir.parent()
        .expect("a profile is a folder of the target folder")
        .to_owned()
}

/// The binary that was built beside the running test.
///
/// # Panics
/// Where there is none.
pub fn binary() -> PathBuf {
    let binary = profile_dir().join("millstream");
    assert!(
        binary.is_file(),
        "there is no {}: run `cargo build --workspace` first",
        binary.display()
    );
    binary
}

/// A file of the data folder beside the checkout; none where it is absent.
pub fn shared_data(file: &str) -> Option<PathBuf> {
    let path = workspace().parent()?.join("shared/data").join(file);
    path.is_file().then_some(path)
}
