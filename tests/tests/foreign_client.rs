//! Any gRPC client can use the agent: here one in Python, with stubs generated from the protos.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use millstream_tests::{Agent, skip, target_dir, workspace};

/// Pinned, so that the client is the same everywhere.
const PACKAGES: [&str; 5] = [
    "grpcio==1.76.0",
    "grpcio-tools==1.76.0",
    "grpcio-reflection==1.76.0",
    "grpcio-health-checking==1.76.0",
    "protobuf==6.33.1",
];

#[test]
fn a_python_client_uses_everything_over_plain_grpc() {
    let python = match environment() {
        Ok(python) => python,
        Err(reason) => return skip("the Python client", &reason),
    };
    let agent = Agent::start();
    let stubs = agent.setup().folder().join("stubs");
    generate(&python, &stubs);

    let output = Command::new(&python)
        .arg(workspace().join("tests/python/foreign_client.py"))
        .arg(agent.grpc_address())
        .arg(workspace().join("sdk/batch/tests/fixtures"))
        .env("PYTHONPATH", &stubs)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert_ok(&output);
}

/// The interpreter of an environment with the packages, made where it is not there yet.
fn environment() -> Result<PathBuf, String> {
    let dir = target_dir().join("python-client");
    fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    // Tests of several processes share it: one makes it, the others find it.
    let lock = fs::File::create(dir.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;

    let python = dir.join("venv/bin/python");
    let made = dir.join("made");
    let wanted = PACKAGES.join("\n");
    if fs::read_to_string(&made).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(dir.join("venv"));
    finish(venv, "python3 -m venv")?;
    let mut install = Command::new(&python);
    let options = ["-m", "pip", "install", "--quiet", "--only-binary=:all:"];
    install.args(options).arg("--disable-pip-version-check").args(PACKAGES);
    finish(install, "pip install")?;
    fs::write(made, wanted).map_err(|error| error.to_string())?;
    Ok(python)
}

fn finish(mut command: Command, what: &str) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("{what}: {}", text.lines().last().unwrap_or("it failed")))
}

fn generate(python: &Path, stubs: &Path) {
    fs::create_dir_all(stubs).unwrap();
    let protos = workspace().join("sdk/proto");
    let mut files: Vec<PathBuf> = fs::read_dir(protos.join("millstream/v1"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let output = Command::new(python)
        .args(["-m", "grpc_tools.protoc"])
        .arg(format!("-I{}", protos.display()))
        .arg(format!("--python_out={}", stubs.display()))
        .arg(format!("--grpc_python_out={}", stubs.display()))
        .args(files)
        .output()
        .unwrap();
    assert_ok(&output);
}

fn assert_ok(output: &Output) {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
}
