//! Which database a URL names.
//!
//! A password never leaves this file but inside the driver's own settings. No error repeats any part of the URL: one
//! that is written wrongly can have its password anywhere.

use std::borrow::Cow;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

use crate::{MetaError, Result};

/// What a PostgreSQL URL may set after its `?`. The driver logs the values of those it does not know.
const PARAMETERS: [&str; 9] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "port",
    "user",
    "password",
    "dbname",
];

/// A database that a URL names.
pub(crate) enum Location {
    /// A file.
    Sqlite(PathBuf),
    /// A server's database, with the password.
    Postgres(Box<PgConnectOptions>),
}

impl Location {
    pub(crate) fn of(url: &str) -> Result<Location> {
        match url.split_once(':') {
            Some(("sqlite", path)) => sqlite(path.strip_prefix("//").unwrap_or(path)),
            Some(("postgres" | "postgresql", rest)) => postgres(url, rest),
            _ => Err(invalid("unknown kind of URL")),
        }
    }

    /// Where it is, for people: a path, or `postgres://USER@HOST:PORT/NAME`.
    pub(crate) fn place(&self) -> String {
        match self {
            Location::Sqlite(path) => path.display().to_string(),
            Location::Postgres(options) => {
                let (user, port) = (options.get_username(), options.get_port());
                let name = options.get_database().unwrap_or(user);
                let host = match options.get_socket() {
                    Some(socket) => socket.to_string_lossy(),
                    None => Cow::Borrowed(options.get_host()),
                };
                format!("postgres://{user}@{host}:{port}/{name}")
            }
        }
    }
}

fn sqlite(path: &str) -> Result<Location> {
    match path {
        "" => Err(invalid("the path is missing")),
        ":memory:" => Err(invalid("metadata must outlive the process, so it needs a file")),
        path => {
            let path = std::path::absolute(path).map_err(|error| invalid(&error.to_string()))?;
            Ok(Location::Sqlite(path))
        }
    }
}

fn postgres(url: &str, rest: &str) -> Result<Location> {
    let Some(rest) = rest.strip_prefix("//") else {
        return Err(invalid("after the kind of database comes //"));
    };
    let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (_, path) = rest.split_once('/').unwrap_or((rest, ""));
    if url.contains('#') || path.contains(['@', '/']) || parameters.contains('@') {
        // Parsed all the same, a part of the password would pass for a host, a port or a name.
        return Err(invalid("write / @ # ? in a user, password or name as %2F %40 %23 %3F"));
    }
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if !PARAMETERS.contains(&key) {
            let known = PARAMETERS.join(", ");
            return Err(invalid(&format!("after ? it has something unknown; known are {known}")));
        }
        check_file(key, value)?;
    }
    let options = PgConnectOptions::from_str(url);
    let options =
        options.map_err(|_| invalid("it cannot be understood: look at the host, the port and the values after ?"))?;
    Ok(Location::Postgres(Box::new(options)))
}

/// The driver says that a file is not there, but not which.
fn check_file(key: &str, value: &str) -> Result<()> {
    // One with escapes or with its content instead of its name is left to the driver.
    if !["sslrootcert", "sslcert", "sslkey"].contains(&key) || value.contains(['%', '+']) || value.starts_with("-----")
    {
        return Ok(());
    }
    match std::fs::File::open(value) {
        Ok(_) => Ok(()),
        Err(error) => Err(invalid(&format!("{key}: the file {value} cannot be read: {error}"))),
    }
}

fn invalid(reason: &str) -> MetaError {
    MetaError::Invalid {
        reason: format!("metadata URL: {reason}; write sqlite:PATH or postgres://USER:PASSWORD@HOST:PORT/NAME"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_wrongly_is_refused_without_repeating_its_password() {
        for url in [
            "mysql:geheim",
            "geheim",
            "sqlite:",
            "sqlite::memory:",
            "postgres:geheim",
            "postgres://joe:12#geheim@db/millstream",
            "postgres://joe:12/geheim@db/millstream",
            "postgres://joe:12?geheim@db/millstream",
            "postgres://joe:ge/heim@db/millstream",
            "postgres://joe:geheim@db:port/millstream",
            "postgres://joe:geheim@db:70000/millstream",
            "postgres://joe:geheim@db/millstream?sslmode=geheim",
            "postgres://joe@db/millstream?pasword=geheim",
            "postgres://joe@db/millstream?geheim",
            "postgres://joe:%ff%fegeheim@db/millstream",
        ] {
            let Err(error) = Location::of(url) else {
                panic!("{url} was taken");
            };
            assert!(matches!(error, MetaError::Invalid { .. }), "{error:?}");
            assert!(error.to_string().contains("sqlite:PATH or postgres://"), "{error}");
            assert!(!format!("{error} {error:?}").contains("eheim"), "{error:?}");
        }
    }

    #[test]
    fn a_place_names_user_host_port_and_database_and_no_password() {
        for (url, place) in [
            ("postgres://joe:geheim@db:5433/mill", "postgres://joe@db:5433/mill"),
            (
                "postgresql://joe:g%40h@db/mill?sslmode=require",
                "postgres://joe@db:5432/mill",
            ),
            ("postgres://joe@db:1?password=geheim", "postgres://joe@db:1/joe"),
            ("postgres://joe@%2Frun%2Fpg/mill", "postgres://joe@/run/pg:5432/mill"),
            ("sqlite:/tmp/a%20b?c#d.db", "/tmp/a%20b?c#d.db"),
            ("sqlite:///tmp/a.db", "/tmp/a.db"),
        ] {
            assert_eq!(Location::of(url).unwrap().place(), place);
        }
    }
}
