//! Amazon S3 and its compatibles.
//!
//! Credentials are looked for in this order: the settings; the credentials file or profile that the settings name; the
//! environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`); the shared credentials file
//! (`AWS_SHARED_CREDENTIALS_FILE`, else `~/.aws/credentials`); then what the machine has: a web identity, a container's or
//! an instance's role.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ini::Ini;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::allowance::Allowance;
use super::parse;
use crate::error::{LogError, Result};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the client tries again by itself, and for how long. Beyond that the caller decides.
const RETRIES_MAX: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
const RETRY_PAUSE_FACTOR: f64 = 2.0;
/// The profile that is taken where none is named.
const DEFAULT_PROFILE: &str = "default";

/// Which bucket, and how to get at it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// In front of every key; may be empty.
    pub prefix: String,
    /// The URL of a compatible store, with `http:` or `https:`; nothing for Amazon's own.
    pub endpoint: Option<String>,
    /// The region; nothing for that of the environment, else `us-east-1`.
    pub region: Option<String>,
    /// The access key. With it the secret key is needed too, and nothing is looked for elsewhere.
    pub access_key_id: Option<String>,
    /// The secret key.
    pub secret_access_key: Option<String>,
    /// The token that goes with temporary keys.
    pub session_token: Option<String>,
    /// A credentials file in Amazon's format, which must be there.
    pub credentials_file: Option<PathBuf>,
    /// The profile in the credentials file; nothing for `default`.
    pub profile: Option<String>,
    /// Whether the bucket's name stands in the URL's path, as most compatible stores want it, and not in the host name.
    pub path_style: bool,
}

impl std::fmt::Debug for S3Settings {
    // Keys do not belong in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Settings")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("credentials_file", &self.credentials_file)
            .field("profile", &self.profile)
            .field("path_style", &self.path_style)
            .finish_non_exhaustive()
    }
}

/// A key pair, and the token where it is a temporary one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) access_key_id: String,
    secret_access_key: String,
    pub(super) session_token: Option<String>,
}

/// The bucket as objects; the prefix is in front of every key.
pub(super) fn open(settings: &S3Settings, allowance: Allowance) -> Result<Arc<dyn ObjectStore>> {
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let builder = builder(settings, &environment)?.with_http_connector(allowance);
    let bucket = builder.build().map_err(|e| refused("s3", e.to_string()))?;
    let prefix = settings.prefix.trim_matches('/');
    if prefix.is_empty() {
        return Ok(Arc::new(bucket));
    }
    let prefix: Path = parse(prefix)?;
    Ok(Arc::new(PrefixStore::new(bucket, prefix)))
}

pub(super) fn builder(settings: &S3Settings, environment: &[(String, String)]) -> Result<AmazonS3Builder> {
    if settings.bucket.is_empty() {
        return Err(refused("bucket", "it is empty"));
    }
    let keys = keys(settings, environment)?;
    let mut builder = AmazonS3Builder::new();
    for (name, value) in environment {
        if let Some(key) = environment_key(name, keys.is_some()) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(keys) = keys {
        builder = builder
            .with_access_key_id(keys.access_key_id)
            .with_secret_access_key(keys.secret_access_key);
        if let Some(token) = keys.session_token {
            builder = builder.with_token(token);
        }
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    // How long the rest of a request may take depends on its bytes: `Allowance` knows it.
    let mut client = ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout_disabled();
    let endpoint = settings.endpoint.clone().or_else(|| environment_endpoint(environment));
    if let Some(endpoint) = endpoint.as_deref() {
        let endpoint = endpoint.trim_end_matches('/');
        client = client.with_allow_http(check_endpoint(endpoint, settings.path_style)?);
        let url = match settings.path_style {
            true => endpoint.to_string(),
            false => host_style_url(endpoint, &settings.bucket),
        };
        builder = builder.with_endpoint(url);
    }
    // Set after the environment: what the log relies on is not to be switched off from there.
    Ok(builder
        .with_bucket_name(&settings.bucket)
        .with_virtual_hosted_style_request(!settings.path_style)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_client_options(client)
        .with_retry(retries()))
}

/// Create-only puts are among what is tried again, after an answer that said "failed" for one that had succeeded:
/// `Store::put_new` reads back what it then meets.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: RETRY_PAUSE_MIN,
            max_backoff: RETRY_PAUSE_MAX,
            base: RETRY_PAUSE_FACTOR,
        },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIMEOUT,
    }
}

/// Whether the endpoint is plain `http:`. The client below panics at a host that is none.
fn check_endpoint(endpoint: &str, path_style: bool) -> Result<bool> {
    let (scheme, address) = match endpoint.split_once("://") {
        Some((scheme @ ("http" | "https"), address)) if !address.is_empty() => (scheme, address),
        _ => {
            let reason = format!("{endpoint:?} is no URL with http:// or https://");
            return Err(refused("endpoint", reason));
        }
    };
    match host(address) {
        Some(Host::Name) => {}
        Some(Host::Address) if path_style => {}
        Some(Host::Address) => {
            let reason = format!("{endpoint:?} is an address, in front of which no bucket can stand: use path style");
            return Err(refused("endpoint", reason));
        }
        None => return Err(refused("endpoint", format!("{endpoint:?} names no host"))),
    }
    Ok(scheme == "http")
}

enum Host {
    Name,
    Address,
}

/// What the host of `host[:port][/path]` is, if it is one.
fn host(address: &str) -> Option<Host> {
    let place = address.split('/').next().unwrap_or_default();
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !place.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return None;
    }
    if let Some(v6) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return v6.parse::<Ipv6Addr>().ok().map(|_| Host::Address);
    }
    // Where the last part is a number, all of it has to be an address.
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.starts_with(|c: char| c.is_ascii_digit()) {
        return host.parse::<Ipv4Addr>().ok().map(|_| Host::Address);
    }
    let label = |label: &str| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    host.split('.').all(label).then_some(Host::Name)
}

fn host_style_url(endpoint: &str, bucket: &str) -> String {
    let (scheme, host) = endpoint.split_once("://").expect("the endpoint was checked");
    format!("{scheme}://{bucket}.{host}")
}

/// What a variable of the environment sets; keys are not taken from there when they came from elsewhere.
fn environment_key(name: &str, have_keys: bool) -> Option<AmazonS3ConfigKey> {
    let key = name.strip_prefix("AWS_").map(|_| name.to_ascii_lowercase())?;
    let key: AmazonS3ConfigKey = key.parse().ok()?;
    match key {
        AmazonS3ConfigKey::AccessKeyId | AmazonS3ConfigKey::SecretAccessKey | AmazonS3ConfigKey::Token if have_keys => {
            None
        }
        // These are set with more care than by copying.
        AmazonS3ConfigKey::Bucket
        | AmazonS3ConfigKey::Endpoint
        | AmazonS3ConfigKey::S3Endpoint
        | AmazonS3ConfigKey::ConditionalPut
        | AmazonS3ConfigKey::Client(_) => None,
        key => Some(key),
    }
}

/// The address that Amazon's own tools take from the environment.
fn environment_endpoint(environment: &[(String, String)]) -> Option<String> {
    let names = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
    names.iter().find_map(|name| variable(environment, name))
}

fn variable(environment: &[(String, String)], name: &str) -> Option<String> {
    let found = environment.iter().find(|(found, _)| found == name);
    found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
}

/// Keys from settings, files and environment, in the order of the module's documentation.
pub(super) fn keys(settings: &S3Settings, environment: &[(String, String)]) -> Result<Option<Keys>> {
    match (&settings.access_key_id, &settings.secret_access_key) {
        (Some(access_key_id), Some(secret_access_key)) => {
            return Ok(Some(Keys {
                access_key_id: access_key_id.clone(),
                secret_access_key: secret_access_key.clone(),
                session_token: settings.session_token.clone(),
            }));
        }
        (Some(_), None) => return Err(refused("secret_access_key", "it is missing, the access key is set")),
        (None, Some(_)) => return Err(refused("access_key_id", "it is missing, the secret key is set")),
        (None, None) => {}
    }
    let variable = |name: &str| variable(environment, name);
    let named = settings.credentials_file.is_some() || settings.profile.is_some();
    if !named && (variable("AWS_ACCESS_KEY_ID").is_some() || variable("AWS_SECRET_ACCESS_KEY").is_some()) {
        return Ok(None);
    }
    let shared = || variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".aws/credentials"));
    let file = settings.credentials_file.clone().or_else(shared).or_else(home);
    let profile = settings.profile.clone().or_else(|| variable("AWS_PROFILE"));
    match file {
        Some(file) if named || file.exists() => {
            let keys = read_credentials(&file, profile.as_deref().unwrap_or(DEFAULT_PROFILE));
            if named { keys.map(Some) } else { Ok(keys.ok()) }
        }
        None if named => Err(refused("profile", "there is no credentials file to look it up in")),
        _ => Ok(None),
    }
}

/// The keys of a profile in a credentials file.
fn read_credentials(file: &FilePath, profile: &str) -> Result<Keys> {
    let wrong = |reason: String| refused("credentials_file", format!("{}: {reason}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
    let found = Ini::load_from_str_noescape(&text).map_err(|e| wrong(e.to_string()))?;
    let section = found
        .section(Some(profile))
        .ok_or_else(|| wrong(format!("there is no profile [{profile}]")))?;
    let value = |name: &str| section.get(name).map(|value| value.trim().to_string());
    let needed = |name: &str| value(name).ok_or_else(|| wrong(format!("profile [{profile}] has no {name}")));
    Ok(Keys {
        access_key_id: needed("aws_access_key_id")?,
        secret_access_key: needed("aws_secret_access_key")?,
        session_token: value("aws_session_token"),
    })
}

fn refused(name: &'static str, reason: impl Into<String>) -> LogError {
    LogError::StoreSettings {
        name,
        reason: reason.into(),
    }
}
