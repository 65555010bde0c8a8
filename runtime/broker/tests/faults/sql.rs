//! A database that refuses what it is told to refuse.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use crate::world::World;

/// What the database is to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A segment is committed, or a merged one.
    Segment,
    /// A pointer is moved, of partition 1: that of partition 0 moves.
    Pointer,
    /// Objects are recorded for deletion.
    Deletion,
    /// A log is marked deleted.
    Retirement,
    /// A trim floor is moved.
    TrimFloor,
    /// A lease is taken.
    Lease,
    /// What a partition knows of its producers is kept.
    Producers,
}

impl Refusal {
    pub const ALL: [Refusal; 7] = [
        Refusal::Segment,
        Refusal::Pointer,
        Refusal::Deletion,
        Refusal::Retirement,
        Refusal::TrimFloor,
        Refusal::Lease,
        Refusal::Producers,
    ];

    fn trigger(self) -> &'static str {
        match self {
            Refusal::Segment => "BEFORE INSERT ON segments",
            Refusal::Pointer => {
                "BEFORE UPDATE OF wal_id ON partitions WHEN NEW.wal_id IS NOT NULL AND NEW.partition = 1"
            }
            Refusal::Deletion => "BEFORE INSERT ON object_deletions",
            Refusal::Retirement => "BEFORE UPDATE OF deleted ON wal_streams",
            Refusal::TrimFloor => "BEFORE UPDATE OF trim_floor ON wal_streams",
            Refusal::Lease => "BEFORE INSERT ON partition_leases",
            Refusal::Producers => "BEFORE INSERT ON partition_producers",
        }
    }
}

impl World {
    /// From now on the database refuses this.
    pub fn refuse(&self, refusal: Refusal) {
        let trigger = refusal.trigger();
        self.execute(&format!(
            "CREATE TRIGGER refusal_{refusal:?} {trigger} BEGIN SELECT RAISE(ROLLBACK, 'the database refuses'); END"
        ));
    }

    /// From now on the database does what it is asked.
    pub fn relent(&self) {
        for refusal in Refusal::ALL {
            self.execute(&format!("DROP TRIGGER IF EXISTS refusal_{refusal:?}"));
        }
    }

    fn execute(&self, statement: &str) {
        let options = SqliteConnectOptions::new().filename(self.metadata_path());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut connection = options.connect().await.unwrap();
            connection.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
            connection.close().await.unwrap();
        });
    }
}
