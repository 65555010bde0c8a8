//! What opening the metadata takes.

use std::fmt;
use std::time::Duration;

use crate::database::Location;

/// Where the metadata is, and how patient it is with its database.
#[derive(Clone, PartialEq, Eq)]
pub struct MetadataSettings {
    /// `sqlite:PATH` or `postgres://USER:PASSWORD@HOST:PORT/NAME`, which takes `?sslmode=` and `?sslrootcert=`.
    pub url: String,
    /// Connections to PostgreSQL at most: one for what the time of leases depends on, half of the others for writing; at
    /// least 3.
    pub connections_max: u32,
    /// How long PostgreSQL may take for one statement, and a call wait for a connection to it. Half of it may be spent
    /// waiting for a lock.
    pub statement_timeout: Duration,
    /// How long opening waits for a server that is not there; zero: one try.
    pub connect_patience: Duration,
    /// How long an answer of [`Metadata::cached`](crate::Metadata::cached) counts as new.
    pub cache_ttl: Duration,
}

impl MetadataSettings {
    /// The defaults, for the database that `url` names.
    pub fn at(url: impl Into<String>) -> MetadataSettings {
        MetadataSettings {
            url: url.into(),
            connections_max: 10,
            statement_timeout: Duration::from_secs(10),
            connect_patience: Duration::from_secs(30),
            cache_ttl: Duration::from_secs(5),
        }
    }
}

/// The place stands for the URL, which may carry a password.
impl fmt::Debug for MetadataSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = Location::of(&self.url).map_or_else(|_| "not a database".to_owned(), |found| found.place());
        f.debug_struct("MetadataSettings")
            .field("place", &place)
            .field("connections_max", &self.connections_max)
            .field("statement_timeout", &self.statement_timeout)
            .field("connect_patience", &self.connect_patience)
            .field("cache_ttl", &self.cache_ttl)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for url in [
            "postgres://joe:geheim@db/millstream",
            "postgres://joe:ge/heim@db",
            "geheim",
        ] {
            let shown = format!("{:?}", MetadataSettings::at(url));
            assert!(!shown.contains("heim"), "{shown}");
        }
    }
}
