//! What an error of the driver leaves behind: a transaction that is gone, or a connection that is.

use sqlx::postgres::PgDatabaseError;

/// SQLSTATEs (<https://www.postgresql.org/docs/current/errcodes-appendix.html>) that decide how to go on.
mod state {
    pub const SERIALIZATION_FAILURE: &str = "40001";
    pub const DEADLOCK_DETECTED: &str = "40P01";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub const INVALID_STATEMENT_NAME: &str = "26000";
    pub const READ_ONLY: &str = "25006";
    pub const IDLE_IN_TRANSACTION: &str = "25P03";
    pub const SHUTTING_DOWN: [&str; 3] = ["57P01", "57P02", "57P05"];
}

/// How it stands after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The database has rolled back, because of others that ran beside it. Running it again is right.
    RolledBack,
    /// The connection is gone, and with it what was not committed.
    Lost,
    /// What the connection remembers of a statement does not fit the database any more.
    Stale,
    /// The server gave no answer in time; another try would wait as long again.
    Silent,
    /// The server takes no writes: another one may stand behind the same name by now.
    Standby,
    /// Anything else: it would go the same way again.
    Final,
}

impl Fate {
    pub(super) fn of(error: &sqlx::Error) -> Fate {
        match error {
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => Fate::Silent,
            sqlx::Error::Io(_) => Fate::Lost,
            // The driver's view of the connection is broken.
            sqlx::Error::Protocol(_) => Fate::Silent,
            sqlx::Error::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
                Some(error) => Fate::of_state(error.code(), error.message()),
                None => Fate::Final,
            },
            _ => Fate::Final,
        }
    }

    fn of_state(code: &str, message: &str) -> Fate {
        match code {
            state::SERIALIZATION_FAILURE | state::DEADLOCK_DETECTED => Fate::RolledBack,
            state::INVALID_STATEMENT_NAME => Fate::Stale,
            state::FEATURE_NOT_SUPPORTED if message.contains("cached plan") => Fate::Stale,
            // A standby knows nothing of SERIALIZABLE, and nothing else that is asked for here can be unknown.
            state::READ_ONLY | state::FEATURE_NOT_SUPPORTED => Fate::Standby,
            state::IDLE_IN_TRANSACTION => Fate::Lost,
            code if code.starts_with("08") || state::SHUTTING_DOWN.contains(&code) => Fate::Lost,
            _ => Fate::Final,
        }
    }

    /// Whether running it again, from the beginning, may succeed where this try did not.
    pub(super) fn is_retried(self) -> bool {
        matches!(self, Fate::RolledBack | Fate::Lost | Fate::Stale)
    }

    /// Whether the connection must not be used for anything else.
    pub(super) fn ends_connection(self) -> bool {
        !matches!(self, Fate::RolledBack | Fate::Final)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_certainly_rolled_back_is_run_again_and_what_breaks_a_connection_ends_it() {
        for (code, message, retried, ends) in [
            ("40001", "could not serialize access", true, false),
            ("40P01", "deadlock detected", true, false),
            ("57P01", "terminating connection", true, true),
            ("08006", "connection failure", true, true),
            ("0A000", "cached plan must not change result type", true, true),
            ("0A000", "cannot use serializable mode in a hot standby", false, true),
            ("25006", "cannot execute INSERT in a read-only transaction", false, true),
            ("57014", "canceling statement due to statement timeout", false, false),
            ("23505", "duplicate key value", false, false),
        ] {
            let fate = Fate::of_state(code, message);
            assert_eq!((fate.is_retried(), fate.ends_connection()), (retried, ends), "{code}");
        }
    }
}
