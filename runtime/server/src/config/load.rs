//! The layers of the configuration: defaults < TOML file < environment < flags.
//!
//! Each layer knows where it comes from, so that an unknown key or a value of the wrong type is reported with its place
//! and, for a key, with the nearest one that exists.

use std::{ffi::OsString, fs, path::Path};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format as _, Serialized, Toml},
    value::{Dict, Map, Value},
};
use millstream_broker::most_alike;
use thiserror::Error;

use super::Settings;

/// Every environment variable of the project begins like this.
const ENV_PREFIX: &str = "MILLSTREAM_";
/// Variables that are no settings of the agent.
const ENV_OTHER: [&str; 3] = ["MILLSTREAM_SERVER", "MILLSTREAM_CONFIG", "MILLSTREAM_LOG"];
/// Variables for tests only.
const ENV_TEST_PREFIX: &str = "MILLSTREAM_TEST_";

/// A configuration that cannot be used.
#[derive(Debug, PartialEq, Error)]
pub enum ConfigError {
    /// The file cannot be read, or is no TOML.
    #[error("configuration file {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// A key that does not exist.
    #[error("unknown configuration key {key} in {origin}; the nearest known key is {nearest}")]
    UnknownKey {
        /// The key as it stands there.
        key: String,
        /// The layer.
        origin: String,
        /// The known key that is spelt most alike.
        nearest: String,
    },
    /// A value that is no value for its key.
    #[error("configuration key {key} in {origin}: {reason}")]
    Value {
        /// The key.
        key: String,
        /// The layer.
        origin: String,
        /// What is wrong with the value.
        reason: String,
    },
}

/// Where settings come from, the strongest last.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    /// The TOML file.
    pub file: Option<&'a Path>,
    /// The environment; only names with the project's prefix matter.
    pub env: Vec<(OsString, OsString)>,
    /// Settings given as flags.
    pub flags: Vec<(&'static str, String)>,
}

impl Settings {
    /// Lays the sources over the defaults.
    ///
    /// # Errors
    /// Every [`ConfigError`] names the key and the source that are at fault.
    pub fn load(sources: Sources<'_>) -> Result<Settings, ConfigError> {
        let defaults = default_values();
        let mut figment = Figment::from(Serialized::defaults(Settings::default()));
        if let Some(path) = sources.file {
            figment = figment.merge(file_layer(path, &defaults)?);
        }
        figment = figment
            .merge(env_layer(sources.env, &defaults)?)
            .merge(flag_layer(sources.flags));

        let settings: Settings = figment.extract().map_err(|error| value_error(&error))?;
        settings.check().map_err(|(key, reason)| {
            let origin = figment
                .find_metadata(key)
                .map_or_else(String::new, |metadata| metadata.name.to_string());
            ConfigError::Value {
                key: key.to_owned(),
                origin,
                reason,
            }
        })?;
        Ok(settings)
    }
}

/// Values from one source.
struct Layer {
    origin: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// The defaults by key: they tell which keys there are, and which of them are numbers.
fn default_values() -> Dict {
    let value = Value::serialize(Settings::default()).expect("settings are plain data");
    value.into_dict().expect("settings are a struct")
}

fn file_layer(path: &Path, known: &Dict) -> Result<Layer, ConfigError> {
    let file_error = |reason: String| ConfigError::File {
        path: path.display().to_string(),
        reason,
    };
    let text = fs::read_to_string(path).map_err(|error| file_error(error.to_string()))?;
    let mut profiles = Toml::string(&text)
        .data()
        .map_err(|error| file_error(without_text(&error.to_string())))?;
    let values = profiles.remove(&Profile::Default).unwrap_or_default();

    let origin = format!("file {}", path.display());
    match values.keys().find(|key| !known.contains_key(*key)) {
        Some(key) => Err(unknown(key, origin, known.keys().cloned())),
        None => Ok(Layer { origin, values }),
    }
}

/// An error of the TOML reader without the text that it shows, which may hold a password.
fn without_text(error: &str) -> String {
    let shown = |line: &&str| {
        line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ')
            .starts_with('|')
    };
    let lines = error
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !shown(line));
    lines.collect::<Vec<_>>().join(": ")
}

fn env_layer(variables: Vec<(OsString, OsString)>, known: &Dict) -> Result<Layer, ConfigError> {
    let origin = "the environment".to_owned();
    let mut values = Dict::new();
    for (name, text) in variables {
        let Some(name) = name.to_str().filter(|name| is_setting(name)) else {
            continue;
        };
        let Some((key, default)) = known.iter().find(|(key, _)| env_name(key) == name) else {
            return Err(unknown(name, origin, known.keys().map(|key| env_name(key))));
        };
        let Some(text) = text.to_str() else {
            return Err(ConfigError::Value {
                key: name.to_owned(),
                origin,
                reason: "it is not UTF-8".to_owned(),
            });
        };
        values.insert(key.clone(), env_value(default, text));
    }
    Ok(Layer { origin, values })
}

/// Only a setting that is a number is read as one: a folder may well be called 2026.
fn env_value(default: &Value, text: &str) -> Value {
    match default {
        Value::Num(..) => text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from),
        Value::Bool(..) => text.parse::<bool>().map_or_else(|_| Value::from(text), Value::from),
        _ => Value::from(text),
    }
}

fn flag_layer(flags: Vec<(&'static str, String)>) -> Layer {
    let values = flags
        .into_iter()
        .map(|(key, text)| (key.to_owned(), Value::from(text)))
        .collect();
    Layer {
        origin: "the flags".to_owned(),
        values,
    }
}

fn is_setting(name: &str) -> bool {
    name.starts_with(ENV_PREFIX) && !name.starts_with(ENV_TEST_PREFIX) && !ENV_OTHER.contains(&name)
}

fn env_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.to_uppercase())
}

fn unknown(key: &str, origin: String, known: impl Iterator<Item = String>) -> ConfigError {
    let (_, nearest) = most_alike(key, known).expect("there are settings");
    ConfigError::UnknownKey {
        key: key.to_owned(),
        origin,
        nearest,
    }
}

fn value_error(error: &figment::Error) -> ConfigError {
    let origin = error
        .metadata
        .as_ref()
        .map_or_else(String::new, |metadata| metadata.name.to_string());
    ConfigError::Value {
        key: error.path.join("."),
        origin,
        reason: error.kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::config::{MetadataUrl, StoreUrl, WalPlace, WalSync};

    fn toml(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn env(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        variables
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    fn error_of_file(text: &str) -> String {
        let file = toml(text);
        let error = Settings::load(Sources {
            file: Some(file.path()),
            ..Sources::default()
        })
        .unwrap_err();
        error.to_string().replace(&file.path().display().to_string(), "FILE")
    }

    fn error_of_env(name: &str, value: &str) -> String {
        Settings::load(Sources {
            env: env(&[(name, value)]),
            ..Sources::default()
        })
        .unwrap_err()
        .to_string()
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        assert_eq!(Settings::load(Sources::default()).unwrap(), Settings::default());
    }

    #[test]
    fn each_layer_wins_over_the_one_before() {
        let file = toml("listen = 'f:1'\nhttp = 'f:2'\ndata_dir = 'f'\nwal_file_bytes = 2097152\n");
        let settings = Settings::load(Sources {
            file: Some(file.path()),
            env: env(&[
                ("MILLSTREAM_HTTP", "e:2"),
                ("MILLSTREAM_DATA_DIR", "2026"),
                ("MILLSTREAM_WAL_SYNC", "interval:5"),
                ("MILLSTREAM_SEGMENT_AGE_MS", "7"),
                ("MILLSTREAM_METADATA", "sqlite:m.db"),
                ("MILLSTREAM_S3_PATH_STYLE", "true"),
                ("MILLSTREAM_S3_ENDPOINT", "http://e:9000"),
                ("MILLSTREAM_WAL", "object"),
            ]),
            flags: vec![("data_dir", "flag".to_owned()), ("store", "file:s".to_owned())],
        })
        .unwrap();

        let expected = Settings {
            listen: "f:1".to_owned(),
            http: "e:2".to_owned(),
            data_dir: "flag".into(),
            metadata: Some(MetadataUrl::Sqlite("m.db".into())),
            store: Some(StoreUrl::File("s".into())),
            s3_path_style: true,
            s3_endpoint: Some("http://e:9000".to_owned()),
            wal: WalPlace::Object,
            wal_file_bytes: 2 << 20,
            wal_sync: WalSync::Interval { ms: 5 },
            segment_age_ms: 7,
            ..Settings::default()
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn a_folder_in_the_environment_may_look_like_a_number() {
        let sources = Sources {
            env: env(&[("MILLSTREAM_DATA_DIR", "2026")]),
            ..Sources::default()
        };
        assert_eq!(Settings::load(sources).unwrap().data_dir, Path::new("2026"));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_source_and_the_nearest_one() {
        assert_eq!(
            error_of_file("wal_fil_bytes = 1"),
            "unknown configuration key wal_fil_bytes in file FILE; the nearest known key is wal_file_bytes"
        );
        assert_eq!(
            error_of_env("MILLSTREAM_LISTN", "x"),
            "unknown configuration key MILLSTREAM_LISTN in the environment; the nearest known key is MILLSTREAM_LISTEN"
        );
    }

    #[test]
    fn variables_with_another_purpose_are_left_alone() {
        let others = [
            ("MILLSTREAM_SERVER", "x"),
            ("MILLSTREAM_CONFIG", "x"),
            ("MILLSTREAM_LOG", "x"),
        ];
        let mut env = env(&others);
        env.extend([("MILLSTREAM_TEST_SEED".into(), "1".into()), ("PATH".into(), "x".into())]);
        assert_eq!(
            Settings::load(Sources {
                env,
                ..Sources::default()
            }),
            Ok(Settings::default())
        );
    }

    #[test]
    fn a_wrong_type_is_named_with_its_key_and_source() {
        assert_eq!(
            error_of_file("tail_bytes_max = 'plenty'"),
            "configuration key tail_bytes_max in file FILE: invalid type: found string \"plenty\", expected usize"
        );
        assert_eq!(
            error_of_env("MILLSTREAM_SEGMENT_BYTES", "64MiB"),
            "configuration key segment_bytes in the environment: invalid type: found string \"64MiB\", expected u64"
        );
        assert_eq!(
            error_of_env("MILLSTREAM_WAL_SYNC", "maybe"),
            "configuration key wal_sync in the environment: \"maybe\" is none of always, never, interval:MS"
        );
        assert_eq!(
            error_of_env("MILLSTREAM_STORE", "gs://logs"),
            "configuration key store in the environment: \"gs://logs\" is neither file:PATH nor s3://BUCKET/PREFIX"
        );
        assert_eq!(
            error_of_file("wal = 's3'"),
            "configuration key wal in file FILE: \"s3\" is neither disk nor object"
        );
        assert_eq!(
            error_of_env("MILLSTREAM_S3_PATH_STYLE", "maybe"),
            "configuration key s3_path_style in the environment: invalid type: found string \"maybe\", expected a boolean"
        );
    }

    #[test]
    fn a_wrong_database_is_named_without_its_password() {
        let error = error_of_env("MILLSTREAM_METADATA", "postgres://joe:geheim@db:x/m");
        assert!(
            error.starts_with("configuration key metadata in the environment: the port is no number"),
            "{error}"
        );
        assert!(!error.contains("geheim"), "{error}");
        let settings = Settings::load(Sources {
            env: env(&[("MILLSTREAM_METADATA", "postgres://joe:geheim@db/m")]),
            ..Sources::default()
        });
        assert!(!format!("{:?}", settings.unwrap()).contains("geheim"));
    }

    #[test]
    fn a_value_out_of_bounds_is_named_with_its_key_and_source() {
        assert_eq!(
            error_of_file("module_threads = 0"),
            "configuration key module_threads in file FILE: 0 is too small, the least is 1"
        );
        assert_eq!(
            error_of_env("MILLSTREAM_IN_FLIGHT_BYTES_MAX", "1000"),
            "configuration key in_flight_bytes_max in the environment: 1000 is too small, the least is 20971520"
        );
        assert_eq!(
            error_of_file("uploads_max = 5000"),
            "configuration key uploads_max in file FILE: 5000 is too large, the most is 1024"
        );
        assert_eq!(
            error_of_env("MILLSTREAM_WAL_SYNC", "interval:18446744073709551615"),
            "configuration key wal_sync in the environment: 18446744073709551615 is too large, the most is 3600000"
        );
        let flags = vec![("listen", "7070".to_owned())];
        let error = Settings::load(Sources {
            flags,
            ..Sources::default()
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "configuration key listen in the flags: \"7070\" is not HOST:PORT"
        );
    }

    #[test]
    fn a_file_that_is_missing_or_no_toml_is_an_error() {
        let missing = Settings::load(Sources {
            file: Some(Path::new("no/such.toml")),
            ..Sources::default()
        });
        assert!(
            missing
                .unwrap_err()
                .to_string()
                .starts_with("configuration file no/such.toml: ")
        );
        assert!(error_of_file("listen = ").starts_with("configuration file FILE: "));
    }

    #[test]
    fn a_file_that_is_no_toml_is_named_with_the_place_and_without_its_text() {
        for text in [
            "metadata = \"postgres://ms:geheim@x/sec",
            "listen = 'a:1'\nmetadata = postgres://ms:geheim@x/sec",
            "s3_secret_access_key = 'geheim\n",
            "s3_secret_access_key = 'a' geheim",
        ] {
            let error = error_of_file(text);
            assert!(
                error.starts_with("configuration file FILE: TOML parse error at line "),
                "{error}"
            );
            assert!(!error.contains("geheim") && !error.contains('|'), "{error}");
        }
    }
}
