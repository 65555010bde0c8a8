//! Modules and their versions. The content is stored elsewhere, by its sha256.
//!
//! The current version of a module is what those that follow it run. It moves in one transaction with their pipelines:
//! see [`Metadata::change_pipelines`].

use crate::database::{Fields, Tx, bigint, json, sql};
use crate::topics::check_name;
use crate::{MetaError, Metadata, Result};

/// One version of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleVersion {
    /// The module's name.
    pub name: String,
    /// Counts up from 1.
    pub version: u32,
    /// Of its content, 64 hexadecimal digits in lower case.
    pub sha256: String,
    /// Of its content.
    pub size_bytes: u64,
    /// What it says about itself, as JSON.
    pub info_json: String,
    /// When it was deployed first.
    pub deployed_at_ms: i64,
    /// The version that was current when this one became so; `None` for the first, and for one that never was current.
    pub replaces: Option<u32>,
    /// Whether it is the current version.
    pub current: bool,
    /// Whether it is the current version, or was.
    pub was_current: bool,
}

/// What a module is at now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleState {
    /// The version in force; 0 where none was yet.
    pub current_version: u32,
    /// How often a pipeline was activated that follows it, or its current version moved.
    pub followed: u64,
}

/// The columns of a [`ModuleVersion`], of `module_versions v JOIN modules m`.
const COLUMNS: &str = "v.name, v.version, v.sha256, v.size_bytes, v.info, v.deployed_at_ms, v.replaces, \
                       v.version = m.current_version AS current";

impl Metadata {
    /// Records a module's content as its next version; whether it is a new one.
    ///
    /// 1. Versions of a module count 1, 2, 3 without gaps.
    /// 2. One content is one version: what was deployed under this name before gets that version back, and nothing
    ///    changes. So asking again after a lost answer is safe.
    /// 3. The current version stays what it was.
    ///
    /// # Errors
    /// `Invalid` for a name, hash, size or info that no module can have.
    pub async fn deploy_module(
        &self,
        name: &str,
        sha256: &str,
        size_bytes: u64,
        info_json: &str,
        now_ms: i64,
    ) -> Result<(ModuleVersion, bool)> {
        check_name("module", name)?;
        check_content(sha256, size_bytes)?;
        let info = &json("a module's info", info_json)?;
        let deploy = self.database.transaction(|mut tx| async move {
            let module = sql(
                "INSERT INTO modules (name, latest_version, created_at_ms) VALUES ($1, 0, $2) ON CONFLICT DO NOTHING",
            );
            tx.execute(module.bind(name).bind(now_ms)).await?;
            let deployed = sql(format!(
                "SELECT {COLUMNS} FROM module_versions v JOIN modules m ON m.name = v.name \
                 WHERE v.name = $1 AND v.sha256 = $2"
            ));
            if let Some(row) = tx.one(deployed.clone().bind(name).bind(sha256)).await? {
                return Ok((module_version(&row)?, false));
            }
            let version = next_version(&mut tx, name).await?;
            let insert = sql(
                "INSERT INTO module_versions (name, version, sha256, size_bytes, info, deployed_at_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6)",
            );
            let insert = insert.bind(name).bind(version).bind(sha256);
            let insert = insert.bind(bigint("size", size_bytes)?).bind(info.clone()).bind(now_ms);
            tx.execute(insert).await?;
            let row = tx.one(deployed.bind(name).bind(sha256)).await?;
            let version = module_version(&row.expect("its row was inserted in this transaction"))?;
            tx.commit().await?;
            Ok((version, true))
        });
        deploy.await
    }

    /// A version of a module; the current one where `version` is `None`.
    pub async fn module(&self, name: &str, version: Option<u32>) -> Result<Option<ModuleVersion>> {
        let found = sql(format!(
            "SELECT {COLUMNS} FROM module_versions v JOIN modules m ON m.name = v.name \
             WHERE v.name = $1 AND v.version = COALESCE($2, m.current_version)"
        ));
        let found = found.bind(name).bind(version.map(i64::from));
        let row = self.database.read_one(found).await?;
        row.map(|row| module_version(&row)).transpose()
    }

    /// What a module is at now; `None` where nothing was deployed under the name.
    pub async fn module_state(&self, name: &str) -> Result<Option<ModuleState>> {
        let found = sql("SELECT current_version, followed FROM modules WHERE name = $1");
        let row = self.database.read_one(found.bind(name)).await?;
        row.map(|row| {
            Ok(ModuleState {
                current_version: row.u32("current_version")?,
                followed: row.u64("followed")?,
            })
        })
        .transpose()
    }

    /// All versions of all modules, by name and version.
    pub async fn modules(&self) -> Result<Vec<ModuleVersion>> {
        let found = sql(format!(
            "SELECT {COLUMNS} FROM module_versions v JOIN modules m ON m.name = v.name ORDER BY v.name, v.version"
        ));
        let rows = self.database.read_all(found).await?;
        rows.iter().map(module_version).collect()
    }
}

fn check_content(sha256: &str, size_bytes: u64) -> Result<()> {
    let reason = if sha256.len() != 64 || !sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        format!("\"{sha256}\" is no sha256: it has 64 hexadecimal digits in lower case")
    } else if size_bytes == 0 {
        "a module without content cannot be deployed".to_string()
    } else {
        return Ok(());
    };
    Err(MetaError::Invalid { reason })
}

async fn next_version(tx: &mut Tx, name: &str) -> Result<u32> {
    let raise = sql("UPDATE modules SET latest_version = latest_version + 1 WHERE name = $1 RETURNING latest_version");
    let row = tx
        .one(raise.bind(name))
        .await?
        .expect("the module's row was made in this transaction or before");
    row.u32("latest_version")
}

fn module_version(row: &Fields) -> Result<ModuleVersion> {
    let replaces = replaces(row)?;
    Ok(ModuleVersion {
        name: row.text("name")?,
        version: row.u32("version")?,
        sha256: row.text("sha256")?,
        size_bytes: row.u64("size_bytes")?,
        info_json: row.json("info")?,
        deployed_at_ms: row.i64("deployed_at_ms")?,
        replaces: replaces.filter(|replaced| *replaced != 0),
        current: row.bool("current")?,
        was_current: replaces.is_some(),
    })
}

/// `None`: the version was never current; 0: it replaced none.
fn replaces(row: &Fields) -> Result<Option<u32>> {
    let Some(version) = row.i64_or_null("replaces")? else {
        return Ok(None);
    };
    let version = u32::try_from(version).map_err(|_| row.corrupt("replaces", format!("is {version}")))?;
    Ok(Some(version))
}
