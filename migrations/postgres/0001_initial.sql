-- Ids are UUIDs, times are milliseconds since 1970 (UTC), offsets and epochs are never negative.
-- Names and keys are compared byte by byte, as in SQLite.

CREATE TABLE topics (
    id               UUID    NOT NULL PRIMARY KEY,
    name             TEXT COLLATE "C" NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 249),
    partitions       BIGINT  NOT NULL CHECK (partitions BETWEEN 1 AND 100000),
    config           JSONB   NOT NULL,
    -- The version of the pipeline in force; 0 is a topic that never had one.
    pipeline_version BIGINT  NOT NULL DEFAULT 0 CHECK (pipeline_version >= 0),
    created_at_ms    BIGINT  NOT NULL
);

-- The current incarnation of each agent.
CREATE TABLE agents (
    name             TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 249),
    incarnation      UUID    NOT NULL,
    registered_at_ms BIGINT  NOT NULL
)
WITH (fillfactor = 50);

-- One WAL per incarnation: its id is the incarnation's id. A deleted one keeps its row, so that no pointer can go back
-- to it.
CREATE TABLE wal_streams (
    id               UUID    NOT NULL PRIMARY KEY,
    agent            TEXT COLLATE "C" NOT NULL REFERENCES agents (name),
    kind             TEXT COLLATE "C" NOT NULL CHECK (kind IN ('disk', 'object')),
    created_at_ms    BIGINT  NOT NULL,
    deleted          BOOLEAN NOT NULL DEFAULT FALSE
);

-- The fence of a partition is its own row: `epoch` is the greatest ever given away, and a writer must name it.
-- `wal_id` is the one WAL that may hold frames at or beyond `committed_end`.
CREATE TABLE partitions (
    topic_id         UUID    NOT NULL REFERENCES topics (id) ON DELETE CASCADE,
    partition        BIGINT  NOT NULL CHECK (partition BETWEEN 0 AND 99999),
    epoch            BIGINT  NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 2147483647),
    log_start        BIGINT  NOT NULL DEFAULT 0 CHECK (log_start >= 0),
    committed_end    BIGINT  NOT NULL DEFAULT 0,
    wal_id           UUID    REFERENCES wal_streams (id),
    PRIMARY KEY (topic_id, partition),
    CHECK (log_start <= committed_end)
)
-- Room in each page, so that a commit changes its row in place and no index.
WITH (fillfactor = 80);

CREATE INDEX partitions_by_wal ON partitions (wal_id) WHERE wal_id IS NOT NULL;

-- Who holds a partition. No row: nobody. The fence does not depend on this table.
CREATE TABLE partition_leases (
    topic_id         UUID    NOT NULL,
    partition        BIGINT  NOT NULL,
    epoch            BIGINT  NOT NULL CHECK (epoch BETWEEN 1 AND 2147483647),
    incarnation      UUID    NOT NULL REFERENCES wal_streams (id),
    PRIMARY KEY (topic_id, partition),
    FOREIGN KEY (topic_id, partition) REFERENCES partitions (topic_id, partition) ON DELETE CASCADE
);

-- No cascade here: a segment's row goes only after its object is on object_deletions.
CREATE TABLE segments (
    topic_id         UUID    NOT NULL,
    partition        BIGINT  NOT NULL,
    base_offset      BIGINT  NOT NULL CHECK (base_offset >= 0),
    end_offset       BIGINT  NOT NULL,
    epoch            BIGINT  NOT NULL CHECK (epoch BETWEEN 1 AND 2147483647),
    object_key       TEXT COLLATE "C" NOT NULL CHECK (length(object_key) > 0),
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
);

-- Objects that no row names any more. They outlive their topic, and are deleted after a grace.
CREATE TABLE object_deletions (
    object_key       TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (length(object_key) > 0),
    recorded_at_ms   BIGINT  NOT NULL
);

CREATE INDEX object_deletions_by_time ON object_deletions (recorded_at_ms, object_key);

CREATE TABLE modules (
    name             TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 249),
    latest_version   BIGINT  NOT NULL CHECK (latest_version BETWEEN 0 AND 4294967295),
    created_at_ms    BIGINT  NOT NULL
);

CREATE TABLE module_versions (
    name             TEXT COLLATE "C" NOT NULL REFERENCES modules (name),
    version          BIGINT  NOT NULL CHECK (version BETWEEN 1 AND 4294967295),
    sha256           TEXT COLLATE "C" NOT NULL CHECK (length(sha256) = 64),
    size_bytes       BIGINT  NOT NULL CHECK (size_bytes > 0),
    info             JSONB   NOT NULL,
    deployed_at_ms   BIGINT  NOT NULL,
    PRIMARY KEY (name, version),
    UNIQUE (name, sha256)
);

CREATE TABLE pipelines (
    topic_id         UUID    NOT NULL REFERENCES topics (id) ON DELETE CASCADE,
    version          BIGINT  NOT NULL CHECK (version >= 1),
    stages           JSONB   NOT NULL,
    PRIMARY KEY (topic_id, version)
);

CREATE TABLE pipeline_activations (
    topic_id         UUID    NOT NULL,
    version          BIGINT  NOT NULL,
    activated_at_ms  BIGINT  NOT NULL,
    PRIMARY KEY (topic_id, version),
    FOREIGN KEY (topic_id, version) REFERENCES pipelines (topic_id, version) ON DELETE CASCADE
);
