//! Where PostgreSQL's programs are, and how they get there.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::keeper::am_root;

/// Where packages put a folder per version, as what comes before and after the version.
const VERSIONED: [(&str, &str, &str); 4] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
];
/// Where others put the one they have.
const PLAIN: [&str; 4] = [
    "/opt/homebrew/bin",
    "/usr/local/pgsql/bin",
    "/usr/local/bin",
    "/usr/bin",
];

/// One installation of PostgreSQL.
#[derive(Clone, Debug)]
pub(crate) struct Binaries(PathBuf);

impl Binaries {
    /// Those of this machine, installed where there are none and that is possible; looked for once.
    pub(crate) fn find() -> Result<Binaries, String> {
        static FOUND: OnceLock<Result<Binaries, String>> = OnceLock::new();
        FOUND.get_or_init(find_or_install).clone()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }
}

fn find_or_install() -> Result<Binaries, String> {
    if let Some(found) = look() {
        return Ok(found);
    }
    install("postgresql").map_err(|reason| {
        format!(
            "no initdb and postgres on the PATH or in the usual folders, and they were not installed: {reason}. \
             Install PostgreSQL, put its programs on the PATH, or set {} to the URL of a role that may make databases",
            crate::URL_VARIABLE
        )
    })?;
    look().ok_or_else(|| {
        "apt-get installed postgresql, but its initdb and postgres are not where they usually are".into()
    })
}

fn look() -> Option<Binaries> {
    let path = env::var_os("PATH").unwrap_or_default();
    let candidates = env::split_paths(&path)
        .chain(VERSIONED.into_iter().flat_map(versions))
        .chain(PLAIN.map(PathBuf::from));
    let initdb = candidates
        .map(|folder| folder.join("initdb"))
        .find(|initdb| initdb.is_file() && initdb.with_file_name("postgres").is_file())?;
    // On the PATH there may be links to some of them only.
    let initdb = initdb.canonicalize().ok()?;
    Some(Binaries(initdb.parent()?.to_owned()))
}

/// The folders of all versions, the newest first.
fn versions((folder, before, after): (&str, &str, &str)) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let version = |name: &str| name.strip_prefix(before)?.parse::<f64>().ok();
    let mut found: Vec<(f64, PathBuf)> = entries
        .filter_map(|entry| Some((version(entry.file_name().to_str()?)?, entry.path().join(after))))
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// Installs a package of Debian and those built on it.
pub(crate) fn install(package: &str) -> Result<(), String> {
    if !am_root()? {
        return Err("only root could".into());
    }
    println!("installing {package} with apt-get");
    apt_get(&["install", "-y", package]).or_else(|first| {
        // The lists of a fresh container are empty.
        apt_get(&["update"])
            .and_then(|()| apt_get(&["install", "-y", package]))
            .map_err(|_| first)
    })
}

fn apt_get(args: &[&str]) -> Result<(), String> {
    let output = Command::new("apt-get")
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .map_err(|error| format!("apt-get: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "apt-get {args:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// Makes sure of a program that comes in a package of its own name.
pub(crate) fn require(program: &str) -> Result<(), String> {
    let path = env::var_os("PATH").unwrap_or_default();
    match env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
        true => Ok(()),
        false => {
            install(program).map_err(|reason| format!("no {program} on the PATH, and it was not installed: {reason}"))
        }
    }
}

/// Takes away what PostgreSQL's programs would read from our environment.
pub(crate) fn without_settings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("PG")) {
            command.env_remove(name);
        }
    }
}
