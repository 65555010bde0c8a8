//! One database of a server, and SQL from outside of what is tested.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::binaries::without_settings;

/// How `psql` gets to the server, whatever the tests have to go through.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) psql: PathBuf,
    /// The server's URL as it is before a path is put in: `postgres://USER@HOST:PORT`, and what comes after the path.
    pub(crate) url: (String, String),
    /// The folder of the server's socket, which asks for no password; `None` for a server that is not ours.
    pub(crate) socket: Option<(PathBuf, u16)>,
}

impl Access {
    pub(crate) fn url(&self, database: &str) -> String {
        format!("{}/{database}{}", self.url.0, self.url.1)
    }

    /// Runs statements in a database; the values of the rows they give, `|` between columns.
    pub(crate) fn sql(&self, database: &str, statements: &str) -> Result<String, String> {
        let mut command = Command::new(&self.psql);
        without_settings(&mut command);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        match &self.socket {
            Some((folder, port)) => {
                command
                    .arg("-h")
                    .arg(folder)
                    .args(["-p", &port.to_string(), "-U", crate::USER, "-d", database])
            }
            None => command.args(["-d", &self.url(database)]),
        };
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.map_err(|error| format!("{}: {error}", self.psql.display()))?;
        let mut stdin = child.stdin.take().expect("it was asked for");
        // Where it has ended already, its answer says why.
        let _ = stdin.write_all(statements.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().map_err(|error| format!("psql: {error}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }
}

/// A database that nothing else uses. It is dropped with this, whoever is still connected.
#[derive(Debug)]
pub struct Database {
    access: Access,
    name: String,
    url: String,
}

impl Database {
    pub(crate) fn create(access: &Access, name: String) -> Result<Database, String> {
        access.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(Database {
            access: access.clone(),
            url: access.url(&name),
            name,
        })
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs statements past what is tested; the values of the rows they give, `|` between columns, a line for each.
    ///
    /// # Panics
    /// Where one of them fails.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> String {
        self.try_sql(statements)
            .unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    /// As [`Database::sql`].
    ///
    /// # Errors
    /// What the server said.
    pub fn try_sql(&self, statements: &str) -> Result<String, String> {
        self.access.sql(&self.name, statements)
    }

    /// Ends every connection to it, as an administrator would; how many there were.
    #[track_caller]
    pub fn terminate_connections(&self) -> u64 {
        self.terminate("")
    }

    /// Ends one connection to it, any; whether there was one.
    #[track_caller]
    pub fn terminate_one(&self) -> bool {
        self.terminate("ORDER BY random() LIMIT 1") == 1
    }

    #[track_caller]
    fn terminate(&self, which: &str) -> u64 {
        let ended = self.sql(&format!(
            "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity \
             WHERE datname = current_database() AND backend_type = 'client backend' \
                   AND application_name <> 'psql' {which}) AS one"
        ));
        ended.parse().expect("a count is a number")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A server that was stopped takes its databases along.
        let _ = self
            .access
            .sql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}
