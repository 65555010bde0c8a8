//! `millstream module new`: a Rust project that builds and tests as it stands.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;

use crate::cli::output::{OutputFormat, print};

/// Bound on a module's name, which the agent has as well.
const NAME_BYTES_MAX: usize = 100;
/// What no crate may be called: words of Rust, and what a crate of that name would hide.
const TAKEN: &str = "abstract alloc as async await become box break const continue core crate do dyn else enum extern \
    false final fn for gen if impl in let loop macro match mod move mut override priv proc-macro pub ref return self static \
    std struct super test trait true try type typeof unsafe unsized use virtual where while yield";

/// The checkout that this binary was built from.
const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Where the SDK is in a checkout, and the lock file of a module that needs nothing beside it.
const SDK: &str = "sdk/guest";
const LOCK: &str = "../../examples/modules/errors-only/Cargo.lock";
const LOCK_NAME: &str = "name = \"errors-only\"";

/// The files of a project. `{name}`, `{crate}` and `{sdk}` are filled in.
const FILES: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    ("src/lib.rs", include_str!("template/lib.rs.in")),
    ("sample.ndjson", include_str!("template/sample.ndjson")),
    ("README.md", include_str!("template/README.md.in")),
    (".gitignore", "/target\n*.wasm\n"),
];

/// Arguments of `millstream module new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The module's name: 1 to 100 characters of a-z, 0-9 and '-', beginning with a letter
    name: String,
    /// The project's folder [default: the module's name, here]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A checkout of Millstream, for the SDK in it [default: the one that this program was built from]
    #[arg(long, value_name = "DIR", env = "MILLSTREAM_SDK")]
    sdk: Option<PathBuf>,
}

/// Writes the project.
pub fn run(args: NewArgs, output: OutputFormat) -> anyhow::Result<()> {
    let NewArgs { name, dir, sdk } = args;
    check_name(&name)?;
    let sdk = find_sdk(sdk)?;
    let dir = dir.unwrap_or_else(|| PathBuf::from(&name));
    write(&dir, &name, &sdk).with_context(|| dir.display().to_string())?;
    let view = NewView { name, dir, sdk };
    print(output, &view, || {
        let NewView { name, dir, sdk } = &view;
        let dir = dir.display();
        format!(
            "{dir}: a module that builds and tests as it stands, with the SDK in {}\n\
             next: millstream module build {dir}\n\
             then: millstream module test {name}.wasm --input {dir}/sample.ndjson, and cargo test in {dir}\n\
             then, with an agent: millstream module deploy {name}.wasm; millstream pipeline add TOPIC {name} --on produce",
            sdk.display()
        )
    })
}

/// A new project as `--output json` shows it.
#[derive(Serialize)]
struct NewView {
    name: String,
    dir: PathBuf,
    sdk: PathBuf,
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let first_is_letter = name.starts_with(|first: char| first.is_ascii_lowercase());
    let allowed = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
    if !first_is_letter || !name.chars().all(allowed) || name.len() > NAME_BYTES_MAX {
        bail!(
            "{name:?} is no module's name: use 1 to {NAME_BYTES_MAX} characters of a-z, 0-9 and '-', beginning with a \
             letter"
        );
    }
    if TAKEN.split_whitespace().any(|taken| taken == name) {
        bail!("{name:?} means something in Rust and cannot name a crate; choose another name");
    }
    Ok(())
}

/// The folder of the SDK: in the given checkout, or in the one that this binary comes from.
fn find_sdk(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let checkout = given.as_deref().unwrap_or(Path::new(CHECKOUT));
    let candidates = [checkout.join(SDK), checkout.to_owned()];
    let found = candidates.into_iter().find(|dir| is_sdk(dir));
    let Some(found) = found else {
        let place = checkout.display();
        match given {
            Some(_) => bail!("--sdk {place}: there is no {SDK} in it; name a checkout of Millstream"),
            None => bail!("the SDK is not at {place} any more: name a checkout of Millstream with --sdk"),
        }
    };
    found.canonicalize().with_context(|| found.display().to_string())
}

fn is_sdk(dir: &Path) -> bool {
    let manifest = fs::read_to_string(dir.join("Cargo.toml"));
    manifest.is_ok_and(|text| text.contains("name = \"millstream-guest\""))
}

fn write(dir: &Path, name: &str, sdk: &Path) -> anyhow::Result<()> {
    match fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) => bail!("the folder is not empty; choose another with --dir"),
        Ok(false) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    fs::create_dir_all(dir.join("src"))?;
    // In TOML a text within single quotes stands for itself; one that holds a quote is written with escapes.
    let path = sdk.to_str().context("the path of the SDK is not UTF-8")?;
    let path = match path.contains('\'') {
        true => format!("{path:?}"),
        false => format!("'{path}'"),
    };
    for (file, template) in FILES {
        let text = template
            .replace("{name}", name)
            .replace("{crate}", &name.replace('-', "_"))
            .replace("{sdk}", &path);
        fs::write(dir.join(file), text)?;
    }
    // With the versions that Millstream itself is built with, cargo needs no network once they have been fetched.
    if let Ok(lock) = fs::read_to_string(sdk.join(LOCK)) {
        fs::write(
            dir.join("Cargo.lock"),
            lock.replace(LOCK_NAME, &format!("name = {name:?}")),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_an_agent_and_cargo_take() {
        for name in ["mask", "a", "mask-2"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "Mask",
            "2mask",
            "-m",
            "a_b",
            "match",
            "test",
            "a/b",
            &"a".repeat(101),
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_sdk_is_that_of_the_checkout_or_the_one_named() {
        let own = find_sdk(None).unwrap();
        assert_eq!(find_sdk(Some(CHECKOUT.into())).unwrap(), own);
        assert_eq!(find_sdk(Some(own.clone())).unwrap(), own);
        let error = find_sdk(Some("/nowhere".into())).unwrap_err().to_string();
        assert!(error.contains("no sdk/guest in it"), "{error}");
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let sdk = find_sdk(None).unwrap();
        write(dir.path(), "mask", &sdk).unwrap();
        let lib = fs::read_to_string(dir.path().join("src/lib.rs")).unwrap();
        assert!(!lib.contains("{name}"), "{lib}");
        let lock = fs::read_to_string(dir.path().join("Cargo.lock")).unwrap();
        assert!(lock.contains("name = \"mask\""), "the lock file names another crate");
        assert!(write(dir.path(), "mask", &sdk).is_err());
    }
}
