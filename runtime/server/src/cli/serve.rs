//! `millstream serve`: collects the settings and runs the agent.

use std::{env, ffi::OsString, path::PathBuf};

use clap::Args;

use crate::config::{Secret, Settings, Sources};

/// What is logged where nobody says otherwise. That a request is tried again is worth a line only once it failed for good.
const LOG: &str = "info,object_store::client::retry=warn";

/// Arguments of `millstream serve`. What is not given comes from the environment (MILLSTREAM_*), then from the file.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Folder for everything that the agent keeps on this machine [default: millstream-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address of gRPC [default: 127.0.0.1:7070]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Address of HTTP [default: 127.0.0.1:7080]
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// Where metadata is kept, sqlite:PATH or postgres://USER@HOST:PORT/NAME [default: a file in the data folder]
    #[arg(long, value_name = "URL")]
    metadata: Option<Secret>,
    /// Where segments are kept, file:PATH or s3://BUCKET/PREFIX [default: a folder in the data folder]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Folder whose NAME.wasm are deployed as module NAME, now and whenever they change
    #[arg(long, value_name = "DIR")]
    modules: Option<String>,
    /// How lines of the log are written, text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// TOML file with settings
    #[arg(long, value_name = "FILE", env = "MILLSTREAM_CONFIG")]
    config: Option<PathBuf>,
}

/// Runs the agent until it is told to stop.
pub async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let settings = args.settings(env::vars_os().collect())?;
    crate::logging::init(LOG, settings.log_format)?;
    crate::serve::run(settings).await
}

impl ServeArgs {
    /// The settings that these flags, the environment and the file make.
    pub fn settings(self, env: Vec<(OsString, OsString)>) -> anyhow::Result<Settings> {
        let given = [
            ("data_dir", self.data_dir),
            ("listen", self.listen),
            ("http", self.http),
            ("metadata", self.metadata.map(|url| url.reveal().to_owned())),
            ("store", self.store),
            ("modules_dir", self.modules),
            ("log_format", self.log_format),
        ];
        let flags = given
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
        Ok(Settings::load(Sources {
            file: self.config.as_deref(),
            env,
            flags,
        })?)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{
        config::{MetadataUrl, StoreUrl},
        logging::LogFormat,
    };

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }

    #[test]
    fn flags_become_settings() {
        let line =
            "x --data-dir d --listen a:1 --http a:2 --metadata sqlite:m --store file:s --modules n --log-format json";
        let settings = Line::parse_from(line.split(' ')).args.settings(Vec::new()).unwrap();
        let expected = Settings {
            data_dir: "d".into(),
            listen: "a:1".to_owned(),
            http: "a:2".to_owned(),
            metadata: Some(MetadataUrl::Sqlite("m".into())),
            store: Some(StoreUrl::File("s".into())),
            modules_dir: Some("n".into()),
            log_format: LogFormat::Json,
            ..Settings::default()
        };
        assert_eq!(settings, expected);
    }
}
