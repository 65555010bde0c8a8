//! `millstream doctor`: tries out whatever an agent with these settings would rely on, before it is trusted with data.
//!
//! `machine` looks at ports, folder and disk, `database` at the metadata, `millstream_log::store::check` at the object
//! store. Nothing is left behind but the data folder and an empty database, where the first start would make them too.

mod database;
mod machine;
mod store;

use std::env;

use millstream_log::store::check;
use serde::Serialize;

use crate::{
    cli::{
        output::{Column, OutputFormat, print, table},
        serve::ServeArgs,
    },
    config::{MetadataUrl, Settings},
    parts,
};

/// Keys of the checks begin with this in the object store.
const STORE_PREFIX: &str = "_doctor";

/// Arguments of `millstream doctor`: those of `serve`.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    settings: ServeArgs,
}

/// What was seen, or what is wrong and what to do about it.
pub type Seen = Result<String, String>;

/// One check and what came of it.
#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    ok: bool,
    seen: String,
}

impl Finding {
    fn new(check: impl Into<String>, result: Seen) -> Finding {
        let ok = result.is_ok();
        Finding {
            check: check.into(),
            ok,
            seen: result.unwrap_or_else(|wrong| wrong),
        }
    }
}

/// Runs all checks and prints them; an error where one failed.
pub async fn run(args: DoctorArgs, output: OutputFormat) -> anyhow::Result<()> {
    let settings = args.settings.settings(env::vars_os().collect())?;
    let findings = examine(&settings).await;
    print(output, &findings, || findings_table(&findings))?;
    let failed = findings.iter().filter(|finding| !finding.ok).count();
    match failed {
        0 => Ok(()),
        failed => anyhow::bail!("{failed} of {} checks failed", findings.len()),
    }
}

async fn examine(settings: &Settings) -> Vec<Finding> {
    let locks = machine::data_folder(settings);
    let running = matches!(locks, Ok(machine::Folder::InUse));
    let mut findings = vec![
        Finding::new("gRPC address", machine::grpc_address(&settings.listen, running).await),
        Finding::new("HTTP address", machine::http_address(&settings.http, running).await),
    ];
    findings.push(Finding::new(
        "data folder",
        locks.as_ref().map(machine::Folder::seen).map_err(Clone::clone),
    ));
    if locks.is_ok() {
        findings.push(Finding::new("free space", machine::free_space(settings)));
        findings.push(Finding::new("write-ahead log", machine::wal(settings).await));
    }
    if locks.is_ok() || matches!(settings.metadata_url(), MetadataUrl::Postgres { .. }) {
        findings.extend(database::findings(settings, running).await);
    }
    findings.extend(object_store(settings).await);
    findings
}

async fn object_store(settings: &Settings) -> Vec<Finding> {
    let url = settings.store_url();
    let store = match parts::store(settings) {
        Ok(store) => store,
        Err(error) => return vec![Finding::new("store", Err(format!("{url}: {error:#}")))],
    };
    let random = uuid::Uuid::new_v4().as_u128();
    let checks = check::run(&store, STORE_PREFIX, random).await;
    let finding = |check: check::Check| {
        let result = check.result.map_err(|wrong| store::explain(&url, &wrong));
        Finding::new(format!("store: {}", check.name), result)
    };
    checks.into_iter().map(finding).collect()
}

fn findings_table(findings: &[Finding]) -> String {
    let columns = [
        Column::Left("check"),
        Column::Left("result"),
        Column::Text("what was seen"),
    ];
    let rows = findings.iter().map(|finding| {
        let result = if finding.ok { "ok" } else { "FAILED" };
        vec![finding.check.clone(), result.to_owned(), finding.seen.clone()]
    });
    table(&columns, rows)
}
