//! Where segments are kept, as people write it: `file:PATH` or `s3://BUCKET/PREFIX`.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// The least and the most characters of a bucket's name.
const BUCKET_CHARS: std::ops::RangeInclusive<usize> = 3..=63;

/// An object store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum StoreUrl {
    /// A folder on this machine.
    File(PathBuf),
    /// A bucket of Amazon S3 or of a compatible store.
    S3 {
        /// Its name.
        bucket: String,
        /// In front of every key; may be empty. Without a slash at either end.
        prefix: String,
    },
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<StoreUrl, String> {
        if let Some(path) = text.strip_prefix("file:").filter(|path| !path.is_empty()) {
            return Ok(StoreUrl::File(path.into()));
        }
        let Some(place) = text.strip_prefix("s3://") else {
            return Err(format!("{text:?} is neither file:PATH nor s3://BUCKET/PREFIX"));
        };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        check_bucket(bucket).map_err(|reason| format!("{text:?}: {reason}"))?;
        let prefix = prefix.trim_end_matches('/');
        if prefix
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..")
            && !prefix.is_empty()
        {
            return Err(format!("{text:?}: the prefix has a part that is empty or made of dots"));
        }
        Ok(StoreUrl::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

/// What every store that speaks S3 allows; some allow more.
fn check_bucket(bucket: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if BUCKET_CHARS.contains(&bucket.len()) && bucket.chars().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "{bucket:?} is no bucket name: 3 to 63 of a-z, 0-9, '-' and '.'"
    ))
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::File(path) => write!(f, "file:{}", path.display()),
            StoreUrl::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            StoreUrl::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl TryFrom<String> for StoreUrl {
    type Error = String;

    fn try_from(text: String) -> Result<StoreUrl, String> {
        text.parse()
    }
}

impl From<StoreUrl> for String {
    fn from(url: StoreUrl) -> String {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_folder_or_a_bucket_with_a_prefix() {
        let s3 = |bucket: &str, prefix: &str| StoreUrl::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        for (text, url) in [
            ("file:/var/objects", StoreUrl::File("/var/objects".into())),
            ("file:objects", StoreUrl::File("objects".into())),
            ("s3://logs", s3("logs", "")),
            ("s3://logs/", s3("logs", "")),
            ("s3://logs/a/b/", s3("logs", "a/b")),
        ] {
            assert_eq!(text.parse(), Ok(url), "{text:?}");
        }
        let url: StoreUrl = "s3://logs/a/b".parse().unwrap();
        assert_eq!(url.to_string().parse(), Ok(url));
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "neither file:PATH nor s3://BUCKET/PREFIX"),
            ("file:", "neither"),
            ("/var/objects", "neither"),
            ("gs://logs", "neither"),
            ("s3:logs", "neither"),
            ("s3://", "no bucket name"),
            ("s3:///a", "no bucket name"),
            ("s3://Logs", "no bucket name"),
            ("s3://a_b", "no bucket name"),
            ("s3://logs//a", "the prefix"),
            ("s3://logs/../a", "the prefix"),
        ] {
            let error = text.parse::<StoreUrl>().unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}
