//! The agent's name: what its write-ahead logs and leases are known by in the metadata, from one start to the next.
//!
//! It is kept in a file of the data folder, beside the logs it stands for: a folder that moves takes it along, and two
//! machines with folders of one path have two names.

use std::{fs, io, path::Path};

use anyhow::Context as _;
use millstream_meta::Metadata;

use crate::config::{MetadataUrl, Settings};

/// The file in the data folder.
const FILE: &str = "agent_name";
/// Bound on the name: what the tables accept, in the longest characters.
const FILE_BYTES_MAX: u64 = 249 * 4;
/// Bound on the part of the name that comes from the machine.
const HOST_CHARS_MAX: usize = 64;
/// Where the name comes from a path its end is taken: it tells most.
const PATH_CHARS_MAX: usize = 60;

/// The name that the settings give, that the data folder keeps, or a new one, which is kept from then on.
///
/// The caller holds the lock on the data folder.
pub async fn of_agent(settings: &Settings, metadata: &Metadata) -> anyhow::Result<String> {
    if let Some(name) = &settings.agent_name {
        return Ok(name.clone());
    }
    let file = settings.data_dir.join(FILE);
    if let Some(name) = read(&file).with_context(|| {
        let file = file.display();
        format!(
            "{file} does not hold the agent's name; set agent_name to the one it had, or remove the file for a new one"
        )
    })? {
        return Ok(name);
    }
    let name = match named_by_path(settings, metadata).await? {
        Some(name) => name,
        None => new_name(),
    };
    // Durable before the metadata learns of it: what a lost name had written to its log could not be taken over.
    keep(&file, &name).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(name)
}

/// An agent whose folder has no such file yet may be known by the path of the folder: then its logs are known by that.
///
/// In a database of many agents the path alone says little, for another machine may have one alike. There it has to have
/// logs as well.
async fn named_by_path(settings: &Settings, metadata: &Metadata) -> anyhow::Result<Option<String>> {
    let own_database = matches!(settings.metadata_url(), MetadataUrl::Sqlite(_));
    if !own_database && !has_entries(&settings.wal_dir())? {
        return Ok(None);
    }
    let name = end_of_path(&settings.data_dir)?;
    let known = metadata.agents().await?.iter().any(|agent| agent.name == name);
    Ok(known.then_some(name))
}

fn end_of_path(data_dir: &Path) -> io::Result<String> {
    let path = std::path::absolute(data_dir)?.display().to_string();
    let cut = path.char_indices().rev().nth(PATH_CHARS_MAX);
    Ok(path[cut.map_or(0, |(at, c)| at + c.len_utf8())..].to_owned())
}

fn has_entries(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn new_name() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(HOST_CHARS_MAX)
        .collect();
    let host = if host.is_empty() { "agent" } else { &host };
    let digits = uuid::Uuid::new_v4().simple().to_string();
    format!("{host}-{}", &digits[..8])
}

fn read(file: &Path) -> anyhow::Result<Option<String>> {
    let bytes = match fs::metadata(file) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    anyhow::ensure!(bytes <= FILE_BYTES_MAX, "{bytes} bytes are too many");
    let name = fs::read_to_string(file)?;
    let name = name.trim_end_matches('\n');
    crate::config::check_agent_name(name).map_err(anyhow::Error::msg)?;
    Ok(Some(name.to_owned()))
}

/// Either the whole name is there afterwards, whatever crashes, or no file.
fn keep(file: &Path, name: &str) -> anyhow::Result<()> {
    let dir = file.parent().context("the data folder is above it")?;
    let mut staged = tempfile::NamedTempFile::new_in(dir)?;
    io::Write::write_all(&mut staged, format!("{name}\n").as_bytes())?;
    staged.as_file().sync_all()?;
    staged.persist_noclobber(file)?;
    fs::File::open(dir)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use millstream_meta::{NewIncarnation, WalKind};
    use std::time::Duration;

    use super::*;

    async fn world(dir: &Path) -> (Settings, Metadata) {
        let settings = Settings {
            data_dir: dir.to_owned(),
            ..Settings::default()
        };
        let metadata = Metadata::open(&settings.metadata_url().reveal()).await.unwrap();
        (settings, metadata)
    }

    async fn register(metadata: &Metadata, agent_name: &str) {
        let incarnation = NewIncarnation {
            agent_name,
            address: "a:1",
            incarnation: uuid::Uuid::new_v4(),
            wal_kind: WalKind::Disk,
            lease: Duration::from_secs(1),
        };
        metadata.register_incarnation(&incarnation, 0).await.unwrap();
    }

    #[tokio::test]
    async fn a_name_is_made_once_and_another_folder_has_another() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (settings, metadata) = world(first.path()).await;
        let name = of_agent(&settings, &metadata).await.unwrap();
        assert!(name.len() > 9, "{name}");
        assert_eq!(of_agent(&settings, &metadata).await.unwrap(), name);
        let (settings, metadata) = world(second.path()).await;
        assert_ne!(of_agent(&settings, &metadata).await.unwrap(), name);
    }

    #[tokio::test]
    async fn a_folder_that_is_known_by_its_path_keeps_that_name() {
        let dir = tempfile::tempdir().unwrap();
        let (settings, metadata) = world(dir.path()).await;
        let path = end_of_path(dir.path()).unwrap();
        register(&metadata, &path).await;
        assert_eq!(of_agent(&settings, &metadata).await.unwrap(), path);
        assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), format!("{path}\n"));
    }

    #[tokio::test]
    async fn in_a_database_of_many_the_path_counts_only_with_logs() {
        let dir = tempfile::tempdir().unwrap();
        let (settings, metadata) = world(dir.path()).await;
        let path = end_of_path(dir.path()).unwrap();
        register(&metadata, &path).await;
        let shared = Settings {
            metadata: Some("postgres://db/m".parse().unwrap()),
            ..settings
        };
        assert_eq!(named_by_path(&shared, &metadata).await.unwrap(), None);
        fs::create_dir_all(shared.wal_dir().join("w")).unwrap();
        assert_eq!(named_by_path(&shared, &metadata).await.unwrap(), Some(path));
    }

    #[tokio::test]
    async fn a_name_that_was_set_is_used_and_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (settings, metadata) = world(dir.path()).await;
        let named = Settings {
            agent_name: Some("a".to_owned()),
            ..settings
        };
        assert_eq!(of_agent(&named, &metadata).await.unwrap(), "a");
        assert!(!dir.path().join(FILE).exists());
    }

    #[tokio::test]
    async fn a_file_that_holds_no_name_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let (settings, metadata) = world(dir.path()).await;
        for text in ["", "a\nb\n", &"x".repeat(2_000)] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let error = of_agent(&settings, &metadata).await.unwrap_err();
            assert!(error.to_string().contains("set agent_name"), "{error:#}");
        }
    }

    #[test]
    fn the_end_of_a_long_path_is_a_name() {
        let path = end_of_path(Path::new(&format!("/{}/ü/b", "a".repeat(80)))).unwrap();
        assert_eq!(path.chars().count(), PATH_CHARS_MAX);
        assert!(path.ends_with("/ü/b"), "{path}");
    }
}
