//! The built agent over its databases: bad days, several agents on one database, and the way from one to another.

mod activating;
mod following;
mod health;
mod hot_loop;
mod members;
mod moving;
mod outages;
mod several_agents;

use millstream_postgres::{Database, Server};
use millstream_tests::{Gate, Setup};

/// A database behind a gate.
struct Behind {
    gate: Gate,
    database: Database,
}

impl Behind {
    /// A new database behind an open gate.
    async fn a_gate() -> Behind {
        let database = Server::shared().database();
        let gate = Gate::before(authority(database.url()).1).await;
        Behind { gate, database }
    }

    /// The database's URL through the gate.
    fn url(&self) -> String {
        let (before, authority, after) = split(self.database.url());
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        format!("{before}{user}@{}{after}", self.gate.address())
    }
}

/// An agent on this database.
fn on(url: &str) -> Setup {
    Setup::new().env("MILLSTREAM_METADATA", url)
}

/// User and HOST:PORT of a URL.
fn authority(url: &str) -> (&str, &str) {
    let (_, authority, _) = split(url);
    authority.rsplit_once('@').unwrap_or(("", authority))
}

/// Scheme, authority and what follows.
fn split(url: &str) -> (&str, &str, &str) {
    let begin = url.find("//").map_or(0, |at| at + 2);
    let end = url[begin..].find(['/', '?']).map_or(url.len(), |at| begin + at);
    (&url[..begin], &url[begin..end], &url[end..])
}
