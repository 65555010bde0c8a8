//! A database of its own for one test.

use millstream_batch::Offset;
use millstream_meta::{Lease, Metadata, MetadataSettings, NewIncarnation, Topic, TopicConfig, WalKind};
use millstream_postgres::{Database, Server};
use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{LEASE, NOW_MS};

/// Each client of a race has a pool of its own, and all of them one server.
const CONNECTIONS_MAX: u32 = 4;

pub(crate) struct Fixture {
    pub(crate) metadata: Metadata,
    pub(crate) place: Place,
}

/// Where the database is. It goes when this is dropped.
pub(crate) enum Place {
    Sqlite(TempDir),
    Postgres(Database),
}

impl Fixture {
    /// Gives a lease back; whether that was done.
    pub(crate) async fn released(&self, lease: &Lease, end: u64) -> bool {
        let leases = [(lease.clone(), Offset(end))];
        self.metadata.release_leases(&leases).await.unwrap() == [true]
    }

    pub(crate) async fn sqlite() -> Fixture {
        Fixture::at(Place::Sqlite(tempfile::tempdir().unwrap())).await
    }

    pub(crate) async fn postgres() -> Fixture {
        Fixture::at(Place::Postgres(Server::shared().database())).await
    }

    async fn at(place: Place) -> Fixture {
        let metadata = Metadata::open(&place.url()).await.unwrap();
        Fixture { metadata, place }
    }

    /// The metadata as another process would have them: through a pool of its own on PostgreSQL. A file of SQLite is
    /// for one process.
    pub(crate) async fn client(&self) -> Metadata {
        match self.place {
            Place::Sqlite(_) => self.metadata.clone(),
            Place::Postgres(_) => {
                let settings = MetadataSettings {
                    connections_max: CONNECTIONS_MAX,
                    ..MetadataSettings::at(self.place.url())
                };
                Metadata::open_with(&settings).await.unwrap()
            }
        }
    }

    /// A topic whose id is made of `id`.
    pub(crate) async fn topic(&self, id: u128, name: &str, partitions: u32) -> Topic {
        let config = TopicConfig::default();
        self.metadata
            .create_topic(Uuid::from_u128(id), name, partitions, &config, NOW_MS)
            .await
            .unwrap()
    }

    /// An incarnation of the agent `agent`, whose id is made of `id`. Its WAL is on the agent's disk.
    pub(crate) async fn incarnation(&self, id: u128) -> Uuid {
        self.incarnation_of("agent", id, WalKind::Disk).await
    }

    /// An incarnation of an agent, whose id is made of `id`, with a lease time that no test outlives.
    pub(crate) async fn incarnation_of(&self, agent: &str, id: u128, wal_kind: WalKind) -> Uuid {
        let new = new_incarnation(agent, id, wal_kind);
        self.metadata.register_incarnation(&new, NOW_MS).await.unwrap();
        new.incarnation
    }

    /// A lease on partition 0 of a new topic, of incarnation 100.
    pub(crate) async fn lease(&self) -> Lease {
        let topic = self.topic(1, "orders", 1).await;
        let incarnation = self.incarnation(100).await;
        self.metadata.acquire_lease(topic.id, 0, incarnation).await.unwrap()
    }

    /// Lets the lease time of an agent be over, as when it had not renewed it.
    pub(crate) async fn expire(&self, agent: &str) {
        self.sql(&format!(
            "UPDATE agents SET lease_expires_at_ms = 1 WHERE name = '{agent}'"
        ))
        .await;
    }

    /// Does something to the tables that no method does.
    pub(crate) async fn sql(&self, statement: &str) {
        match &self.place {
            Place::Sqlite(_) => {
                let pool = self.sqlite_pool().await;
                let done = sqlx::query(AssertSqlSafe(statement)).execute(&pool).await;
                done.unwrap_or_else(|error| panic!("{statement}: {error}"));
                pool.close().await;
            }
            Place::Postgres(database) => {
                database.sql(statement);
            }
        }
    }

    /// The only column of the rows that a query gives, as text.
    pub(crate) async fn column(&self, query: &str) -> Vec<String> {
        match &self.place {
            Place::Sqlite(_) => {
                let pool = self.sqlite_pool().await;
                let text = format!("SELECT CAST(c AS TEXT) FROM (SELECT NULL AS c WHERE FALSE UNION ALL {query})");
                let rows = sqlx::query_scalar(AssertSqlSafe(text)).fetch_all(&pool).await.unwrap();
                pool.close().await;
                rows
            }
            Place::Postgres(database) => database.sql(query).lines().map(str::to_owned).collect(),
        }
    }

    /// Takes away all there is, the schema included.
    pub(crate) async fn empty(&self) {
        match &self.place {
            Place::Sqlite(directory) => {
                self.metadata.close().await;
                std::fs::remove_file(directory.path().join("meta.db")).unwrap();
            }
            Place::Postgres(database) => {
                database.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
            }
        }
    }

    async fn sqlite_pool(&self) -> SqlitePool {
        let Place::Sqlite(directory) = &self.place else {
            panic!("it is not on SQLite")
        };
        let file = SqliteConnectOptions::new().filename(directory.path().join("meta.db"));
        SqlitePool::connect_with(file).await.unwrap()
    }
}

impl Place {
    pub(crate) fn url(&self) -> String {
        match self {
            Place::Sqlite(directory) => format!("sqlite:{}", directory.path().join("meta.db").display()),
            Place::Postgres(database) => database.url().to_owned(),
        }
    }
}

pub(crate) fn new_incarnation(agent: &str, id: u128, wal_kind: WalKind) -> NewIncarnation<'_> {
    NewIncarnation {
        agent_name: agent,
        address: "host:7070",
        incarnation: Uuid::from_u128(id),
        wal_kind,
        lease: LEASE,
    }
}
