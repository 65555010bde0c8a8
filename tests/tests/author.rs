//! The author's loop: from `module new` to a changed record on a running agent, and the dry runs on the way.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use millstream_tests::{Agent, Ran, run, target_dir, wat};
use serde_json::Value;
use tempfile::TempDir;

/// A new module's project, built.
struct Project {
    folder: TempDir,
}

impl Project {
    fn new(agent: &Agent) -> Project {
        let project = Project {
            folder: TempDir::new().unwrap(),
        };
        let (dir, component) = (project.path("mask"), project.path("mask.wasm"));
        agent.cli(["module", "new", "mask", "--dir", text(&dir)]).ok();
        let mut build = agent.client([
            "module",
            "build",
            text(&dir),
            "-o",
            text(&component),
            "--output",
            "json",
        ]);
        let built = build
            .env("CARGO_TARGET_DIR", modules_dir())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(built.status.success(), "a new module builds");
        let built: Value = serde_json::from_slice(&built.stdout).unwrap();
        assert_eq!(built["imports"], serde_json::json!(["millstream:module/host@1.0.0"]));
        assert_eq!(built["params"][0]["name"], "word");
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let file = self.path(name);
        fs::write(&file, content).unwrap();
        text(&file).to_owned()
    }

    fn component(&self) -> String {
        text(&self.path("mask.wasm")).to_owned()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the folders of tests are UTF-8")
}

/// Shared with the other modules that tests build, so that what they build upon is compiled once.
fn modules_dir() -> PathBuf {
    target_dir().join("modules")
}

fn fates(tested: &Value) -> Vec<&str> {
    let records = tested["records"].as_array().unwrap().iter();
    records.map(|record| record["fate"].as_str().unwrap()).collect()
}

/// What a command printed although it failed, and the line that says why.
#[track_caller]
fn failed(ran: Ran) -> (String, String) {
    (String::from_utf8(ran.stdout.clone()).unwrap(), ran.error())
}

#[test]
fn five_commands_lead_from_a_new_module_to_a_changed_record() {
    let agent = Agent::start();
    agent.cli(["topic", "create", "notes"]).ok();
    let project = Project::new(&agent);
    let component = project.component();
    let sample = text(&project.path("mask/sample.ndjson")).to_owned();

    let tested = agent
        .cli(["module", "test", &component, "--input", &sample, "--output", "json"])
        .json();
    assert_eq!(fates(&tested), ["changed", "kept", "changed"]);
    assert_eq!(tested["counters"]["masked"], 2);
    assert!(tested["ns_per_record"].as_u64().unwrap() > 0, "{tested}");
    assert!(tested["memory_peak_bytes"].as_u64().unwrap() >= 64 << 10, "{tested}");

    agent.cli(["module", "deploy", &component]).ok();
    agent.cli(["pipeline", "add", "notes", "mask", "--on", "produce"]).ok();
    agent.cli(["produce", "notes", "--file", &sample]).ok();
    let values = agent.cli(["consume", "notes"]).text();
    assert_eq!(values.lines().next(), Some(r#"{"user":"ada","note":"my *** is 42"}"#));

    // Stored records are tried as well, on a version that does not run anywhere yet.
    let from = [
        "--from", "notes", "--offset", "1", "--max", "2", "--param", "word=see", "--output", "json",
    ];
    let tested = agent.cli(["module", "test", &component].iter().chain(&from)).json();
    assert_eq!(fates(&tested), ["changed", "kept"]);

    let other = project.path("other.wasm");
    fs::write(&other, wat::module(wat::KEEPS)).unwrap();
    agent.cli(["module", "deploy", text(&other), "--name", "mask"]).ok();
    let diff = [
        "module", "diff", "mask@1", "mask@2", "--input", &sample, "--output", "json",
    ];
    let diff = agent.cli(diff).json();
    assert_eq!((&diff["records"], &diff["differ"]), (&3.into(), &2.into()), "{diff}");
    assert_eq!(diff["summary"]["changed to kept"], 2, "{diff}");
}

#[test]
fn a_new_project_passes_its_own_tests() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("first-try");
    run(["module", "new", "first-try", "--dir", text(&dir)]).ok();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut test = Command::new(cargo);
    let tested = test
        .args([
            OsStr::new("test"),
            OsStr::new("--locked"),
            OsStr::new("--manifest-path"),
        ])
        .arg(dir.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", modules_dir())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&tested.stdout);
    assert!(
        tested.status.success(),
        "{out}{}",
        String::from_utf8_lossy(&tested.stderr)
    );
    assert!(out.contains("2 passed"), "{out}");
}

#[test]
fn a_dry_run_tells_what_differs_from_what_was_expected() {
    let agent = Agent::start();
    let project = Project::new(&agent);
    let component = project.component();
    let input = project.file(
        "in.ndjson",
        "{\"value\":\"secret\",\"key\":\"k\"}\n{\"value_base64\":\"/w==\"}\n",
    );
    let test = |expect: &str| {
        agent.cli([
            "module", "test", &component, "--input", &input, "--format", "json", "--expect", expect,
        ])
    };

    let right = project.file("right.ndjson", "{\"key\":\"k\",\"value\":\"***\"}\n");
    let said = test(&right).text();
    assert!(
        said.contains("rejected") && said.contains("the value is not UTF-8"),
        "{said}"
    );
    assert!(
        said.contains("- value: secret") && said.contains("+ value: ***"),
        "{said}"
    );

    let wrong = project.file("wrong.ndjson", "{\"key\":\"k\",\"value\":\"*\"}\n");
    let (said, error) = failed(test(&wrong));
    assert!(
        error.contains("differs from") && error.contains("wrong.ndjson"),
        "{error}"
    );
    assert!(said.contains("-{") && said.contains("+{"), "{said}");

    let bad = project.file("bad.ndjson", "{}\n{\"level\":\"info\"}\n");
    let (_, error) = failed(agent.cli(["module", "test", &component, "--input", &bad, "--format", "json"]));
    assert!(
        error.contains("line 2") && error.contains("unknown field `level`"),
        "{error}"
    );
    let (_, error) = failed(agent.cli(["module", "test", &component, "--input", &bad, "--param", "wrod=x"]));
    assert!(error.contains("did you mean \"word\"?"), "{error}");
}

#[test]
fn a_record_that_a_module_fails_on_fails_the_dry_run() {
    let folder = TempDir::new().unwrap();
    let (component, input) = (folder.path().join("traps.wasm"), folder.path().join("in"));
    fs::write(&component, wat::module(wat::TRAPS)).unwrap();
    fs::write(&input, "a\nb\n").unwrap();
    let ran = run(["module", "test", text(&component), "--input", text(&input)]);
    let (said, error) = failed(ran);
    assert!(said.contains("failed") && said.contains("unreachable"), "{said}");
    assert!(error.contains("2 of 2 records failed"), "{error}");
}

#[test]
fn a_core_module_of_any_language_becomes_a_component() {
    let folder = TempDir::new().unwrap();
    let (core, component) = (folder.path().join("core.wasm"), folder.path().join("out.wasm"));
    fs::write(&core, wat::core_module(wat::KEEPS)).unwrap();
    let built = run([
        "module",
        "build",
        text(&core),
        "-o",
        text(&component),
        "--output",
        "json",
    ])
    .json();
    assert_eq!(
        built["exports"],
        serde_json::json!(["millstream:module/transform@1.0.0"])
    );
    let unnamed = run(["module", "build", text(&core)]).error();
    assert!(unnamed.contains("with -o"), "{unnamed}");
    let again = run(["module", "build", text(&component), "-o", text(&core)]).error();
    assert!(again.contains("a component already"), "{again}");
}
