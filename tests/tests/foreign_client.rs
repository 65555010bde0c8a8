//! Any gRPC client can use the agent: here one in Python, with stubs generated from the protos.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use millstream_tests::{Agent, python_environment, skip, workspace};

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
    let python = match python_environment("python-client", &PACKAGES) {
        Ok(programs) => programs.join("python"),
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
