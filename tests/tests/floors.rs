//! The floors of the house: who may build on whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use millstream_tests::workspace;
use serde_json::Value;

/// Every crate, its floor, and the rooms below that it may use.
const HOUSE: [(&str, u8, &[&str]); 11] = [
    ("millstream-batch", 0, &[]),
    // For the tests of any floor, so it stands on none.
    ("millstream-postgres", 0, &[]),
    ("millstream-proto", 1, &[]),
    ("millstream-guest-macros", 0, &[]),
    ("millstream-guest", 1, &["millstream-batch", "millstream-guest-macros"]),
    ("millstream-log", 1, &["millstream-batch"]),
    ("millstream-meta", 1, &["millstream-batch"]),
    ("millstream-wasm", 1, &["millstream-batch"]),
    ("millstream-client", 2, &["millstream-batch", "millstream-proto"]),
    (
        "millstream-broker",
        2,
        &[
            "millstream-batch",
            "millstream-log",
            "millstream-meta",
            "millstream-wasm",
        ],
    ),
    (
        "millstream-server",
        3,
        &[
            "millstream-batch",
            "millstream-broker",
            "millstream-client",
            "millstream-log",
            "millstream-meta",
            "millstream-proto",
            "millstream-wasm",
        ],
    ),
];
/// Stands beside the house and looks in everywhere.
const TESTS: &str = "millstream-tests";
/// Stands before its door.
const EXAMPLES: &str = "millstream-examples";

/// A file of code is split by so many lines.
const LINES_MAX: usize = 500;

/// The normal and build dependencies of every crate of the workspace.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let names = dependencies
                .filter(|dependency| dependency["kind"] != "dev")
                .map(|dependency| dependency["name"].as_str().unwrap().to_owned());
            (package["name"].as_str().unwrap().to_owned(), names.collect())
        })
        .collect()
}

#[test]
fn every_crate_has_a_floor() {
    let mut known: BTreeSet<String> = HOUSE.iter().map(|(name, ..)| (*name).to_owned()).collect();
    known.extend([TESTS.to_owned(), EXAMPLES.to_owned()]);
    assert_eq!(edges().into_keys().collect::<BTreeSet<_>>(), known);
}

#[test]
fn imports_go_down_and_rooms_of_one_floor_do_not_meet() {
    let edges = edges();
    let floor = |wanted: &str| {
        HOUSE
            .iter()
            .find(|(name, ..)| *name == wanted)
            .map(|(_, floor, _)| *floor)
    };
    for (name, own_floor, below) in HOUSE {
        for used in edges[name].iter().filter(|used| used.starts_with("millstream-")) {
            assert!(below.contains(&used.as_str()), "{name} uses {used}");
            assert!(
                floor(used).unwrap() < own_floor,
                "{name} uses {used}, which is not below it"
            );
        }
    }
}

#[test]
fn of_the_runtime_only_the_server_speaks_grpc_and_only_meta_sql() {
    for (name, used) in edges() {
        let on_the_wire = ["millstream-server", "millstream-proto", "millstream-client", TESTS];
        let grpc = used.iter().any(|used| used.starts_with("tonic"));
        assert!(!grpc || on_the_wire.contains(&name.as_str()), "{name} uses tonic");
        assert!(!used.contains("sqlx") || name == "millstream-meta", "{name} uses sqlx");
        assert!(
            !used.contains("wasmtime") || name == "millstream-wasm",
            "{name} uses wasmtime"
        );
        let stores = name == "millstream-log";
        assert!(!used.contains("object_store") || stores, "{name} uses object_store");
    }
}

#[test]
fn what_runs_in_a_module_knows_no_operating_system() {
    let edges = edges();
    for name in ["millstream-batch", "millstream-guest", "millstream-guest-macros"] {
        for absent in ["tokio", "rustix", "uuid", "tracing"] {
            assert!(!edges[name].contains(absent), "{name} uses {absent}");
        }
    }
}

#[test]
fn no_file_of_code_is_too_long_to_read() {
    let mut long = Vec::new();
    for folder in ["sdk", "runtime", "modules", "examples", "tests"] {
        visit(&workspace().join(folder), &mut |file| {
            let lines = fs::read_to_string(file).unwrap().lines().count();
            if lines > LINES_MAX {
                long.push(format!("{} has {lines} lines", file.display()));
            }
        });
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

fn visit(folder: &Path, look: &mut impl FnMut(&Path)) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && !path.ends_with("target") {
            visit(&path, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path);
        }
    }
}
