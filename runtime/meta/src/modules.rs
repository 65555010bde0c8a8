//! Modules and their versions. The content is stored elsewhere, by its sha256.

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
}

impl Metadata {
    /// Records a module's content as its next version; whether it is a new one.
    ///
    /// 1. Versions of a module count 1, 2, 3 without gaps.
    /// 2. One content is one version: what was deployed under this name before gets that version back, and nothing
    ///    changes. So asking again after a lost answer is safe.
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
            let deployed = sql(
                "SELECT name, version, sha256, size_bytes, info, deployed_at_ms FROM module_versions \
                 WHERE name = $1 AND sha256 = $2",
            );
            if let Some(row) = tx.one(deployed.bind(name).bind(sha256)).await? {
                return Ok((module_version(&row)?, false));
            }
            let version = next_version(&mut tx, name).await?;
            let insert = sql(
                "INSERT INTO module_versions (name, version, sha256, size_bytes, info, deployed_at_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6) RETURNING name, version, sha256, size_bytes, info, deployed_at_ms",
            );
            let insert = insert.bind(name).bind(version).bind(sha256);
            let insert = insert.bind(bigint("size", size_bytes)?).bind(info.clone()).bind(now_ms);
            let row = tx
                .one(insert)
                .await?
                .expect("an INSERT without ON CONFLICT returns its row");
            let version = module_version(&row)?;
            tx.commit().await?;
            Ok((version, true))
        });
        deploy.await
    }

    /// A version of a module; the latest where `version` is `None`.
    pub async fn module(&self, name: &str, version: Option<u32>) -> Result<Option<ModuleVersion>> {
        let found = sql(
            "SELECT name, version, sha256, size_bytes, info, deployed_at_ms FROM module_versions WHERE name = $1 \
             AND version = COALESCE($2, (SELECT latest_version FROM modules WHERE name = $1))",
        );
        let row = self
            .database
            .read_one(found.bind(name).bind(version.map(i64::from)))
            .await?;
        row.map(|row| module_version(&row)).transpose()
    }

    /// All versions of all modules, by name and version.
    pub async fn modules(&self) -> Result<Vec<ModuleVersion>> {
        let found = sql(
            "SELECT name, version, sha256, size_bytes, info, deployed_at_ms FROM module_versions ORDER BY name, version",
        );
        self.database
            .read_all(found)
            .await?
            .iter()
            .map(module_version)
            .collect()
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
    Ok(ModuleVersion {
        name: row.text("name")?,
        version: row.u32("version")?,
        sha256: row.text("sha256")?,
        size_bytes: row.u64("size_bytes")?,
        info_json: row.json("info")?,
        deployed_at_ms: row.i64("deployed_at_ms")?,
    })
}
