//! Which tables and columns a snapshot has: all that there are. A test holds this against the schema of both databases.

/// What a column holds, and how it stands in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A UUID, as text.
    Id,
    /// A number from -2^63 to 2^63 - 1.
    Integer,
    Text,
    /// A JSON document, as it is.
    Json,
    Boolean,
    /// When the leases of an agent end: always 0 in a snapshot.
    LeaseEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub name: &'static str,
    pub kind: Kind,
    pub nullable: bool,
}

/// A table; its key is its first columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub name: &'static str,
    pub columns: &'static [Column],
    pub key_columns: usize,
}

impl Table {
    /// The columns that tell its rows from each other.
    pub fn key(&self) -> &'static [Column] {
        &self.columns[..self.key_columns]
    }

    pub fn column(&self, name: &str) -> Option<&'static Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

const fn id(name: &'static str) -> Column {
    column(name, Kind::Id)
}

const fn integer(name: &'static str) -> Column {
    column(name, Kind::Integer)
}

const fn text(name: &'static str) -> Column {
    column(name, Kind::Text)
}

const fn json(name: &'static str) -> Column {
    column(name, Kind::Json)
}

const fn boolean(name: &'static str) -> Column {
    column(name, Kind::Boolean)
}

const fn column(name: &'static str, kind: Kind) -> Column {
    let nullable = false;
    Column { name, kind, nullable }
}

const fn nullable(column: Column) -> Column {
    Column {
        nullable: true,
        ..column
    }
}

const fn table(name: &'static str, key_columns: usize, columns: &'static [Column]) -> Table {
    Table {
        name,
        columns,
        key_columns,
    }
}

/// The table that says which database it is.
pub(super) const IDENTITY: &str = "identity";

/// Every table, those first that others refer to.
pub(super) const TABLES: [Table; 18] = [
    table(IDENTITY, 1, &[integer("one"), id("id"), nullable(id("former"))]),
    table(
        "agents",
        1,
        &[
            text("name"),
            id("incarnation"),
            integer("registered_at_ms"),
            text("address"),
            integer("lease_ms"),
            column("lease_expires_at_ms", Kind::LeaseEnd),
            integer("activation_reached"),
            json("topics_behind"),
        ],
    ),
    table(
        "wal_streams",
        1,
        &[
            id("id"),
            text("agent"),
            text("kind"),
            integer("created_at_ms"),
            boolean("deleted"),
            integer("trim_floor"),
        ],
    ),
    table(
        "topics",
        1,
        &[
            id("id"),
            text("name"),
            integer("partitions"),
            json("config"),
            integer("pipeline_version"),
            integer("created_at_ms"),
            integer("config_version"),
            integer("manifest_version"),
            nullable(text("manifest_key")),
        ],
    ),
    table("deleted_topics", 1, &[id("id"), text("name"), integer("deleted_at_ms")]),
    table(
        "partitions",
        2,
        &[
            id("topic_id"),
            integer("partition"),
            integer("epoch"),
            integer("log_start"),
            integer("committed_end"),
            nullable(id("wal_id")),
        ],
    ),
    table(
        "partition_leases",
        2,
        &[
            id("topic_id"),
            integer("partition"),
            integer("epoch"),
            id("incarnation"),
        ],
    ),
    table(
        "segments",
        3,
        &[
            id("topic_id"),
            integer("partition"),
            integer("base_offset"),
            integer("end_offset"),
            integer("epoch"),
            text("object_key"),
            nullable(text("etag")),
            integer("record_count"),
            integer("raw_bytes"),
            integer("stored_bytes"),
            integer("min_timestamp_ms"),
            integer("max_timestamp_ms"),
            integer("created_at_ms"),
        ],
    ),
    table("object_deletions", 1, &[text("object_key"), integer("recorded_at_ms")]),
    table(
        "modules",
        1,
        &[
            text("name"),
            integer("latest_version"),
            integer("created_at_ms"),
            integer("current_version"),
            integer("followed"),
        ],
    ),
    table(
        "module_versions",
        2,
        &[
            text("name"),
            integer("version"),
            text("sha256"),
            integer("size_bytes"),
            json("info"),
            integer("deployed_at_ms"),
            nullable(integer("replaces")),
        ],
    ),
    table("pipelines", 2, &[id("topic_id"), integer("version"), json("stages")]),
    table(
        "pipeline_activations",
        2,
        &[
            id("topic_id"),
            integer("version"),
            integer("activated_at_ms"),
            text("reason"),
            integer("activation"),
        ],
    ),
    table("activation_counter", 1, &[integer("one"), integer("last")]),
    table(
        "consumer_groups",
        1,
        &[
            text("name"),
            integer("generation"),
            integer("created_at_ms"),
            integer("version"),
            json("members"),
        ],
    ),
    table(
        "consumer_offsets",
        3,
        &[
            text("group_name"),
            id("topic_id"),
            integer("partition"),
            integer("next_offset"),
            integer("committed_at_ms"),
            text("metadata"),
        ],
    ),
    table(
        "producers",
        1,
        &[
            text("name"),
            integer("producer_id"),
            integer("producer_epoch"),
            integer("initialized_at_ms"),
        ],
    ),
    table(
        "partition_producers",
        2,
        &[id("topic_id"), integer("partition"), text("state")],
    ),
];
