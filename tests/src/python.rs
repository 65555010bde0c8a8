//! Python environments of the tests' own, in Cargo's target folder.

use std::{fs, path::PathBuf, process::Command};

use crate::target_dir;

/// The programs of an environment with these packages, made where it is not there yet; else why it cannot be made.
///
/// `name` is that of its folder. The packages should be pinned, so that they are the same everywhere.
pub fn python_environment(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let dir = target_dir().join(name);
    fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    // Tests of several processes share it: one makes it, the others find it.
    let lock = fs::File::create(dir.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;

    let programs = dir.join("venv/bin");
    let made = dir.join("made");
    let wanted = packages.join("\n");
    if fs::read_to_string(&made).is_ok_and(|found| found == wanted) {
        return Ok(programs);
    }
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(dir.join("venv"));
    finish(venv, "python3 -m venv")?;
    let mut install = Command::new(programs.join("python"));
    let options = ["-m", "pip", "install", "--quiet", "--only-binary=:all:"];
    install.args(options).arg("--disable-pip-version-check").args(packages);
    finish(install, "pip install")?;
    fs::write(made, wanted).map_err(|error| error.to_string())?;
    Ok(programs)
}

fn finish(mut command: Command, what: &str) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("{what}: {}", text.lines().last().unwrap_or("it failed")))
}
