//! Where metadata is kept, as people write it: `sqlite:PATH` or `postgres://USER@HOST:PORT/NAME`.
//!
//! The URL of a PostgreSQL may carry a password. It goes to the database and nowhere else: whatever shows such a URL
//! shows it without.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Secret;

/// A database.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MetadataUrl {
    /// A file on this machine.
    Sqlite(PathBuf),
    /// A PostgreSQL: how to reach it, and the same for people.
    Postgres {
        /// The URL as it was given.
        url: Secret,
        /// Scheme, user, address and database.
        shown: String,
    },
}

impl MetadataUrl {
    /// The URL for the database itself, with its password.
    pub fn reveal(&self) -> String {
        match self {
            MetadataUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
            MetadataUrl::Postgres { url, .. } => url.reveal().to_owned(),
        }
    }
}

impl FromStr for MetadataUrl {
    type Err = String;

    /// The errors never repeat the text.
    fn from_str(text: &str) -> Result<MetadataUrl, String> {
        match text.split_once(':') {
            Some(("sqlite", path)) => match path.strip_prefix("//").unwrap_or(path) {
                "" => Err("the path is missing: write sqlite:PATH".to_owned()),
                ":memory:" => {
                    Err("metadata must outlive the process, so it needs a file: write sqlite:PATH".to_owned())
                }
                path => Ok(MetadataUrl::Sqlite(path.into())),
            },
            Some((scheme @ ("postgres" | "postgresql"), rest)) => {
                let shown = shown(scheme, rest).map_err(|reason| format!("{reason}; {POSTGRES_FORM}"))?;
                let url = Secret::new(text);
                Ok(MetadataUrl::Postgres { url, shown })
            }
            _ => Err("it is neither sqlite:PATH nor postgres://USER@HOST:PORT/NAME".to_owned()),
        }
    }
}

const POSTGRES_FORM: &str = "write postgres://USER@HOST:PORT/NAME, and in the user and the password other characters than \
                             letters and digits as %XX";

/// A URL of PostgreSQL without what may be secret. One that can be read in two ways is refused: it could show a part of
/// the password as something else.
fn shown(scheme: &str, rest: &str) -> Result<String, &'static str> {
    let rest = rest.strip_prefix("//").ok_or("the two slashes are missing")?;
    let (authority, after) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if after.contains(['@', '#']) {
        return Err("there is an '@' or '#' behind the address");
    }
    let (user, address) = match authority.rsplit_once('@') {
        Some((user, address)) => (user.split(':').next().unwrap_or_default(), address),
        None => ("", authority),
    };
    // In brackets stand the colons of an IPv6 address.
    let host_end = address.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match address[host_end..].rsplit_once(':') {
        Some((host, port)) => (&address[..host_end + host.len()], Some(port)),
        None => (address, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) || host[host_end..].contains(':') {
        return Err("the port is no number");
    }
    let path = after.split('?').next().unwrap_or_default();
    let at = if user.is_empty() { "" } else { "@" };
    Ok(format!("{scheme}://{user}{at}{address}{path}"))
}

impl fmt::Display for MetadataUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetadataUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            MetadataUrl::Postgres { shown, .. } => f.write_str(shown),
        }
    }
}

impl fmt::Debug for MetadataUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for MetadataUrl {
    type Error = String;

    fn try_from(text: String) -> Result<MetadataUrl, String> {
        text.parse()
    }
}

impl From<MetadataUrl> for String {
    fn from(url: MetadataUrl) -> String {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_a_file_or_a_postgresql() {
        for (text, shown) in [
            ("sqlite:m.db", "sqlite:m.db"),
            ("sqlite:///var/m.db", "sqlite:/var/m.db"),
            ("postgres://db/millstream", "postgres://db/millstream"),
            (
                "postgresql://joe@db:5433/m?sslmode=require",
                "postgresql://joe@db:5433/m",
            ),
            ("postgres://joe:geheim@db:5433/m", "postgres://joe@db:5433/m"),
            ("postgres://joe:ge@heim@[::1]:5433/m", "postgres://joe@[::1]:5433/m"),
            ("postgres://:geheim@db", "postgres://db"),
            ("postgres://%2Frun%2Fpostgresql/m", "postgres://%2Frun%2Fpostgresql/m"),
            ("postgres:///m?host=/run/postgresql&password=geheim", "postgres:///m"),
        ] {
            let url: MetadataUrl = text.parse().unwrap();
            assert_eq!(
                (url.to_string(), format!("{url:?}")),
                (shown.to_owned(), shown.to_owned())
            );
            assert_eq!(String::from(url.clone()), shown);
            assert_eq!(url.reveal().parse(), Ok(url));
        }
    }

    #[test]
    fn anything_else_is_refused_without_repeating_it() {
        for text in [
            "",
            "geheim",
            "mysql://joe:geheim@db/m",
            "sqlite:",
            "sqlite::memory:",
            "postgres:joe:geheim@db/m",
            "postgres://joe:ge/heim@db/m",
            "postgres://joe:12/geheim@db/m",
            "postgres://joe:geheim",
            "postgres://joe:12?geheim@db/m",
            "postgres://joe:1#geheim@db/m",
            "postgres://joe:ge[heim]:@db:x/m",
            "postgres://db/m#geheim",
        ] {
            let error = text.parse::<MetadataUrl>().unwrap_err();
            assert!(
                error.contains("write ") || error.contains("neither"),
                "{text:?}: {error}"
            );
            assert!(
                !error.contains("geheim") && !error.contains("heim"),
                "{text:?}: {error}"
            );
        }
    }
}
