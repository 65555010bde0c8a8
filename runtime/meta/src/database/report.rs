//! What the database reports, as one of our errors that says what to do.

use std::io;

use sqlx::postgres::PgDatabaseError;

use crate::MetaError;

/// SQLite's primary result codes (<https://www.sqlite.org/rescode.html>); the extended code carries them in its lowest
/// byte.
mod code {
    pub const BUSY: i32 = 5;
    pub const LOCKED: i32 = 6;
    pub const READONLY: i32 = 8;
    pub const IOERR: i32 = 10;
    pub const CORRUPT: i32 = 11;
    pub const FULL: i32 = 13;
    pub const CANTOPEN: i32 = 14;
    pub const NOTADB: i32 = 26;
}

impl MetaError {
    /// Names what `source` means for whoever runs the database at the place `database`.
    pub(crate) fn from_database(database: &str, source: sqlx::Error) -> MetaError {
        let database = database.to_string();
        let reason = match &source {
            sqlx::Error::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
                Some(error) => {
                    let (state, message) = (error.code().to_owned(), error.message().to_owned());
                    return MetaError::from_postgres(database, &state, message, source);
                }
                None => {
                    let code = error.code().and_then(|code| code.parse::<i32>().ok());
                    return MetaError::from_sqlite(database, code.unwrap_or(0) & 0xff, source);
                }
            },
            sqlx::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                return MetaError::untrusted(database, &error.to_string());
            }
            sqlx::Error::Tls(error) => return MetaError::untrusted(database, &error.to_string()),
            sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
                "it did not answer in time: look at the server and the network between".into()
            }
            sqlx::Error::Io(error) => format!("{error}: start the server, or look at the network between"),
            sqlx::Error::Protocol(_) => "it was not understood: is it a PostgreSQL server?".into(),
            sqlx::Error::PoolTimedOut => {
                "no connection to it in time: it is down, or slow, or too much is asked of it".into()
            }
            sqlx::Error::PoolClosed => "it was closed".into(),
            sqlx::Error::WorkerCrashed => "the connection broke down".into(),
            _ => return MetaError::Database { database, source },
        };
        MetaError::Unavailable { database, reason }
    }

    fn from_sqlite(database: String, code: i32, source: sqlx::Error) -> MetaError {
        match code {
            code::BUSY | code::LOCKED => MetaError::Unavailable {
                database,
                reason: "another process keeps it locked: stop that process, or wait until it is done".into(),
            },
            code::READONLY => MetaError::ReadOnly {
                database,
                reason: "make the file, its -wal and -shm and its directory writable for this user",
            },
            code::FULL => MetaError::DiskFull { database },
            code::CORRUPT => MetaError::Corrupt {
                database,
                reason: format!("{source}: restore a backup"),
            },
            code::NOTADB => MetaError::Corrupt {
                database,
                reason: "the file is no SQLite database: name another file, or restore a backup".into(),
            },
            code::CANTOPEN => MetaError::CannotOpen {
                database,
                reason: format!("{source}: it must be a file, in a directory, that this user may read and write"),
            },
            code::IOERR => MetaError::Unavailable {
                database,
                reason: format!("{source}: look at the disk it is on"),
            },
            _ => MetaError::Database { database, source },
        }
    }

    /// By SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    fn from_postgres(database: String, state: &str, message: String, source: sqlx::Error) -> MetaError {
        let to_do = match state {
            "28P01" | "28000" => {
                "give the right user in the URL and the right password there, in PGPASSWORD or in PGPASSFILE, and let pg_hba.conf admit them"
            }
            "3D000" => "make it: createdb, or CREATE DATABASE",
            "42501" => "GRANT this user CREATE on the schema and all rights on its tables, or make it the owner",
            "25006" | "0A000" => {
                let reason = "this server is a standby, or read-only by its settings: name the primary in the URL";
                return MetaError::ReadOnly { database, reason };
            }
            "53100" => return MetaError::DiskFull { database },
            "22021" | "22P05" => {
                let reason = format!("a text has a character that the database does not take: {message}");
                return MetaError::Invalid { reason };
            }
            "XX001" | "XX002" => {
                let reason = format!("{message}: restore a backup");
                return MetaError::Corrupt { database, reason };
            }
            _ => return MetaError::passing_in_postgres(database, state, message, source),
        };
        MetaError::CannotOpen {
            database,
            reason: format!("{message}: {to_do}"),
        }
    }

    /// What may be over when it is tried again.
    fn passing_in_postgres(database: String, state: &str, message: String, source: sqlx::Error) -> MetaError {
        let to_do = match state {
            "40001" | "40P01" => "too many changed the same at once: try again",
            "53300" => "it has no connections left: raise its max_connections, or lower ours",
            "53200" | "53400" | "53000" => "give the server more memory, or ask less of it",
            "55P03" => "another transaction holds a lock: look into pg_stat_activity for it",
            "57014" => "a statement took longer than the statement timeout: look at the load on the server",
            "57P01" | "57P02" | "57P05" | "25P03" => "the server ended the connection: is it being stopped?",
            "57P03" => "the server is starting or stopping: wait until it is up",
            "58030" => "look at the disk it is on",
            state if state.starts_with("08") => "look at the server and the network between",
            _ => return MetaError::Database { database, source },
        };
        let reason = format!("{message}: {to_do}");
        MetaError::Unavailable { database, reason }
    }

    fn untrusted(database: String, found: &str) -> MetaError {
        if found.contains("does not support TLS") {
            let reason = format!(
                "TLS: {found}: set ssl = on there, or write ?sslmode=disable where the network between is trusted"
            );
            return MetaError::CannotOpen { database, reason };
        }
        MetaError::CannotOpen {
            database,
            reason: format!(
                "TLS: {found}: name the certificate of the authority that signed the server's in ?sslrootcert=FILE, \
                 and the host as that certificate does; ?sslmode= says how much is asked for"
            ),
        }
    }
}
