-- Ids are UUIDs as 16 bytes, times are milliseconds since 1970 (UTC), offsets and epochs are never negative.

CREATE TABLE topics (
    id               BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    name             TEXT    NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 249),
    partitions       BIGINT  NOT NULL CHECK (partitions BETWEEN 1 AND 100000),
    config           TEXT    NOT NULL CHECK (length(config) > 0),
    -- The version of the pipeline in force; 0 is a topic that never had one.
    pipeline_version BIGINT  NOT NULL DEFAULT 0 CHECK (pipeline_version >= 0),
    created_at_ms    BIGINT  NOT NULL
);

-- The current incarnation of each agent.
CREATE TABLE agents (
    name             TEXT    NOT NULL PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 249),
    incarnation      BLOB    NOT NULL CHECK (length(incarnation) = 16),
    registered_at_ms BIGINT  NOT NULL
);

-- One WAL per incarnation: its id is the incarnation's id. A deleted one keeps its row, so that no pointer can go back
-- to it.
CREATE TABLE wal_streams (
    id               BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    agent            TEXT    NOT NULL REFERENCES agents (name),
    kind             TEXT    NOT NULL CHECK (kind IN ('disk', 'object')),
    created_at_ms    BIGINT  NOT NULL,
    deleted          BOOLEAN NOT NULL DEFAULT FALSE
);

-- The fence of a partition is its own row: `epoch` is the greatest ever given away, and a writer must name it.
-- `wal_id` is the one WAL that may hold frames at or beyond `committed_end`.
CREATE TABLE partitions (
    topic_id         BLOB    NOT NULL REFERENCES topics (id) ON DELETE CASCADE,
    partition        BIGINT  NOT NULL CHECK (partition BETWEEN 0 AND 99999),
    epoch            BIGINT  NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 2147483647),
    log_start        BIGINT  NOT NULL DEFAULT 0 CHECK (log_start >= 0),
    committed_end    BIGINT  NOT NULL DEFAULT 0,
    wal_id           BLOB    REFERENCES wal_streams (id),
    PRIMARY KEY (topic_id, partition),
    CHECK (log_start <= committed_end)
) WITHOUT ROWID;

CREATE INDEX partitions_by_wal ON partitions (wal_id) WHERE wal_id IS NOT NULL;

-- Who holds a partition. No row: nobody. The fence does not depend on this table.
CREATE TABLE partition_leases (
    topic_id         BLOB    NOT NULL,
    partition        BIGINT  NOT NULL,
    epoch            BIGINT  NOT NULL CHECK (epoch BETWEEN 1 AND 2147483647),
    incarnation      BLOB    NOT NULL REFERENCES wal_streams (id),
    PRIMARY KEY (topic_id, partition),
    FOREIGN KEY (topic_id, partition) REFERENCES partitions (topic_id, partition) ON DELETE CASCADE
) WITHOUT ROWID;

-- No cascade here: a segment's row goes only after its object is on object_deletions.
CREATE TABLE segments (
    topic_id         BLOB    NOT NULL,
    partition        BIGINT  NOT NULL,
    base_offset      BIGINT  NOT NULL CHECK (base_offset >= 0),
    end_offset       BIGINT  NOT NULL,
    epoch            BIGINT  NOT NULL CHECK (epoch BETWEEN 1 AND 2147483647),
    object_key       TEXT    NOT NULL CHECK (length(object_key) > 0),
    etag             TEXT,
    record_count     BIGINT  NOT NULL CHECK (record_count >= 0),
    raw_bytes        BIGINT  NOT NULL CHECK (raw_bytes >= 0),
    stored_bytes     BIGINT  NOT NULL CHECK (stored_bytes > 0),
    min_timestamp_ms BIGINT  NOT NULL,
    max_timestamp_ms BIGINT  NOT NULL,
    created_at_ms    BIGINT  NOT NULL,
    PRIMARY KEY (topic_id, partition, base_offset),
    FOREIGN KEY (topic_id, partition) REFERENCES partitions (topic_id, partition),
    CHECK (base_offset < end_offset)
) WITHOUT ROWID;

-- Objects that no row names any more. They outlive their topic, and are deleted after a grace.
CREATE TABLE object_deletions (
    object_key       TEXT    NOT NULL PRIMARY KEY CHECK (length(object_key) > 0),
    recorded_at_ms   BIGINT  NOT NULL
) WITHOUT ROWID;

CREATE INDEX object_deletions_by_time ON object_deletions (recorded_at_ms, object_key);

CREATE TABLE modules (
    name             TEXT    NOT NULL PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 249),
    latest_version   BIGINT  NOT NULL CHECK (latest_version BETWEEN 0 AND 4294967295),
    created_at_ms    BIGINT  NOT NULL
);

CREATE TABLE module_versions (
    name             TEXT    NOT NULL REFERENCES modules (name),
    version          BIGINT  NOT NULL CHECK (version BETWEEN 1 AND 4294967295),
    sha256           TEXT    NOT NULL CHECK (length(sha256) = 64),
    size_bytes       BIGINT  NOT NULL CHECK (size_bytes > 0),
    info             TEXT    NOT NULL CHECK (length(info) > 0),
    deployed_at_ms   BIGINT  NOT NULL,
    PRIMARY KEY (name, version),
    UNIQUE (name, sha256)
);

CREATE TABLE pipelines (
    topic_id         BLOB    NOT NULL REFERENCES topics (id) ON DELETE CASCADE,
    version          BIGINT  NOT NULL CHECK (version >= 1),
    stages           TEXT    NOT NULL CHECK (length(stages) > 0),
    PRIMARY KEY (topic_id, version)
) WITHOUT ROWID;

CREATE TABLE pipeline_activations (
    topic_id         BLOB    NOT NULL,
    version          BIGINT  NOT NULL,
    activated_at_ms  BIGINT  NOT NULL,
    PRIMARY KEY (topic_id, version),
    FOREIGN KEY (topic_id, version) REFERENCES pipelines (topic_id, version) ON DELETE CASCADE
) WITHOUT ROWID;
