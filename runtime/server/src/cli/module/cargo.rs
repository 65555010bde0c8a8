//! Runs cargo so that a crate becomes a core WebAssembly module.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::process::Command;

const TARGET: &str = "wasm32-unknown-unknown";
/// Search in a module becomes several times faster with vectors. Calls cost more there than natively, so more of them are
/// worth inlining: reading JSON gains a fifth. A stack of 256 KiB, a quarter of the default, is most of what an instance
/// begins with, and an agent's bound on guest memory counts it for every one.
const FLAGS: [&str; 6] = [
    "-C",
    "target-feature=+simd128",
    "-C",
    "llvm-args=-inline-threshold=400",
    "-C",
    "link-arg=-zstack-size=262144",
];

/// A compiled core module.
#[derive(Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The module's name: the crate's, with dashes.
    pub name: String,
    /// The file that cargo wrote.
    pub file: PathBuf,
}

/// Builds the crate in `dir`. What cargo has to say goes to standard error.
pub async fn build(dir: &Path) -> anyhow::Result<Artifact> {
    let manifest = dir.join("Cargo.toml");
    let manifest = manifest
        .canonicalize()
        .with_context(|| format!("{}", manifest.display()))?;
    add_target(dir).await?;

    let mut cargo = command("cargo", dir);
    cargo
        .args([
            "build",
            "--release",
            "--target",
            TARGET,
            "--message-format=json-render-diagnostics",
        ])
        .args(["--config", "profile.release.opt-level=3"]);
    match Flags::beside(env::var_os("CARGO_ENCODED_RUSTFLAGS"), env::var_os("RUSTFLAGS")) {
        Flags::Variable(name, value) => cargo.env(name, value),
        Flags::Config(value) => cargo.args(["--config", &value]),
    };
    let output = output(cargo, "cargo").await?;
    if !output.status.success() {
        bail!("cargo could not build {}", dir.display());
    }
    find_artifact(&String::from_utf8_lossy(&output.stdout), &manifest)
}

/// Adds the target to the toolchain that builds in `dir`, where it is missing.
async fn add_target(dir: &Path) -> anyhow::Result<()> {
    let mut rustc = command("rustc", dir);
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    let output = output(rustc, "rustc").await?;
    if !output.status.success() {
        bail!("rustc does not know the target {TARGET}");
    }
    if Path::new(String::from_utf8_lossy(&output.stdout).trim()).exists() {
        return Ok(());
    }
    let mut rustup = command("rustup", dir);
    // Standard output is for the result of this command.
    rustup.args(["target", "add", TARGET]).stdout(io::stderr());
    let status = rustup.status().await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            anyhow::anyhow!("the Rust toolchain lacks the target {TARGET}, and there is no rustup to add it with")
        }
        _ => anyhow::Error::new(error).context("rustup"),
    })?;
    match status.success() {
        true => Ok(()),
        false => bail!("`rustup target add {TARGET}` failed"),
    }
}

fn command(program: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn output(mut command: Command, program: &str) -> anyhow::Result<Output> {
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow::anyhow!("there is no {program}: install Rust from https://rustup.rs"),
        _ => anyhow::Error::new(error).context(program.to_owned()),
    })?;
    Ok(child.wait_with_output().await?)
}

/// How the flags reach rustc without taking away what the user set. Of cargo's sources only the strongest counts: the
/// encoded variable, the plain one, then the configuration, where lists from several places are joined.
#[derive(Debug, PartialEq, Eq)]
enum Flags {
    Variable(&'static str, OsString),
    Config(String),
}

impl Flags {
    fn beside(encoded: Option<OsString>, plain: Option<OsString>) -> Flags {
        match (encoded, plain) {
            (Some(flags), _) => Flags::Variable("CARGO_ENCODED_RUSTFLAGS", joined(flags, "\x1f")),
            (None, Some(flags)) => Flags::Variable("RUSTFLAGS", joined(flags, " ")),
            (None, None) => Flags::Config(format!("target.{TARGET}.rustflags={FLAGS:?}")),
        }
    }
}

fn joined(mut flags: OsString, separator: &str) -> OsString {
    if !flags.is_empty() {
        flags.push(separator);
    }
    flags.push(FLAGS.join(separator));
    flags
}

/// One of cargo's messages, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    target: Target,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

#[derive(Default, Deserialize)]
struct Target {
    name: String,
    crate_types: Vec<String>,
}

/// Finds the module among cargo's messages: that of the crate itself, or the only one there is.
fn find_artifact(messages: &str, manifest: &Path) -> anyhow::Result<Artifact> {
    let mut found: Vec<(bool, Artifact)> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter(|message| message.target.crate_types.iter().any(|kind| kind == "cdylib"))
        .filter_map(|message| {
            let file = message
                .filenames
                .into_iter()
                .find(|file| file.extension() == Some(OsStr::new("wasm")))?;
            let name = message.target.name.replace('_', "-");
            Some((message.manifest_path == manifest, Artifact { name, file }))
        })
        .collect();
    found.sort_by_key(|(own, _)| !own);
    let folder = manifest.parent().unwrap_or(manifest).display().to_string();
    match found.len() {
        0 => bail!("{folder}: no module came out; Cargo.toml needs `[lib]` with `crate-type = [\"cdylib\"]`"),
        n if n > 1 && !found[0].0 => {
            let names: Vec<_> = found.iter().map(|(_, artifact)| artifact.name.as_str()).collect();
            bail!(
                "{folder}: several modules came out ({}); name the folder of one of them",
                names.join(", ")
            )
        }
        _ => Ok(found.swap_remove(0).1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(manifest: &str, name: &str, kind: &str) -> String {
        let extension = if kind == "cdylib" { "wasm" } else { "rlib" };
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"x","manifest_path":"{manifest}","target":{{"kind":["{kind}"],"crate_types":["{kind}"],"name":"{name}"}},"filenames":["/t/{name}.{extension}"],"executable":null}}"#
        )
    }

    #[test]
    fn the_artifact_is_that_of_the_crate_itself() {
        let messages = [
            message("/lib/Cargo.toml", "serde", "lib"),
            message("/other/Cargo.toml", "other_module", "cdylib"),
            message("/own/Cargo.toml", "access_log", "cdylib"),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
            "no json".to_owned(),
        ]
        .join("\n");
        let own = find_artifact(&messages, Path::new("/own/Cargo.toml")).unwrap();
        assert_eq!(
            own,
            Artifact {
                name: "access-log".to_owned(),
                file: "/t/access_log.wasm".into()
            }
        );

        let several = find_artifact(&messages, Path::new("/Cargo.toml"))
            .unwrap_err()
            .to_string();
        assert!(several.contains("(other-module, access-log)"), "{several}");
    }

    #[test]
    fn the_only_module_of_a_workspace_will_do() {
        let messages = message("/own/Cargo.toml", "m", "cdylib");
        assert_eq!(find_artifact(&messages, Path::new("/Cargo.toml")).unwrap().name, "m");
    }

    #[test]
    fn a_crate_that_is_no_cdylib_is_told_what_it_lacks() {
        let messages = message("/own/Cargo.toml", "m", "lib");
        let error = find_artifact(&messages, Path::new("/own/Cargo.toml"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("crate-type"), "{error}");
    }

    #[test]
    fn flags_that_the_user_set_stay() {
        let beside = |encoded: Option<&str>, plain: Option<&str>| {
            Flags::beside(encoded.map(OsString::from), plain.map(OsString::from))
        };
        let variable = |name, value: &str| Flags::Variable(name, value.into());
        assert_eq!(
            beside(None, None),
            Flags::Config(format!("target.wasm32-unknown-unknown.rustflags={FLAGS:?}"))
        );
        assert_eq!(
            beside(None, Some("-g")),
            variable("RUSTFLAGS", &format!("-g {}", FLAGS.join(" ")))
        );
        assert_eq!(
            beside(Some("-g"), Some("-v")),
            variable("CARGO_ENCODED_RUSTFLAGS", &format!("-g\x1f{}", FLAGS.join("\x1f")))
        );
        assert_eq!(beside(None, Some("")), variable("RUSTFLAGS", &FLAGS.join(" ")));
    }
}
