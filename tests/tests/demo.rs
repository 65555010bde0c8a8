//! `millstream demo`: the main job, small.

use std::fs;

use millstream_tests::{modules, run, wat};
use tempfile::TempDir;

/// A folder with what the demonstration deploys.
fn folder(redact: &[u8]) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("redact.wasm"), redact).unwrap();
    fs::write(
        folder.path().join("json-filter.wasm"),
        modules::component("json-filter"),
    )
    .unwrap();
    folder
}

#[test]
fn every_record_is_read_back_and_compared() {
    let folder = folder(&modules::component("redact"));
    let dir = folder.path().to_str().unwrap();
    let report = run(["demo", "--modules", dir, "--scale", "2", "--output", "json"]).json();
    let total = &report["total"];
    assert_eq!(total["records"], 11_200, "{report}");
    assert_eq!(total["changed"], 1_600, "{report}");
    assert_eq!(report["topics"].as_array().unwrap().len(), 3, "{report}");
}

#[test]
fn a_module_that_does_not_redact_fails_the_check_which_says_what_differs() {
    let folder = folder(&wat::module(wat::KEEPS));
    let dir = folder.path().to_str().unwrap();
    let error = run(["demo", "--modules", dir, "--scale", "1", "--output", "json"]);
    assert_eq!(error.code, Some(1), "{}", error.stderr);
    let said = error.stderr.lines().last().unwrap_or_default();
    assert!(said.starts_with("error: ") && said.contains("orders"), "{said}");
}
