-- HOST:PORT at which an agent answers other agents.
ALTER TABLE agents ADD COLUMN address TEXT NOT NULL DEFAULT '';
-- How long an agent's leases live after it was heard of, and until when: by the database's clock. 0: they are over.
ALTER TABLE agents ADD COLUMN lease_ms BIGINT NOT NULL DEFAULT 0 CHECK (lease_ms >= 0);
ALTER TABLE agents ADD COLUMN lease_expires_at_ms BIGINT NOT NULL DEFAULT 0 CHECK (lease_expires_at_ms >= 0);

CREATE INDEX agents_by_incarnation ON agents (incarnation);
CREATE INDEX wal_streams_by_agent ON wal_streams (agent);
CREATE INDEX wal_streams_left ON wal_streams (created_at_ms, id) WHERE NOT deleted;
CREATE INDEX partition_leases_by_incarnation ON partition_leases (incarnation);
CREATE INDEX topics_by_manifest ON topics (manifest_key) WHERE manifest_key IS NOT NULL;
CREATE INDEX topics_without_manifest ON topics (name) WHERE manifest_version <> config_version;
CREATE INDEX deleted_topics_by_time ON deleted_topics (deleted_at_ms, id);

-- Consumers that read together.
CREATE TABLE consumer_groups (
    name             TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 249),
    generation       BIGINT  NOT NULL DEFAULT 0 CHECK (generation >= 0),
    created_at_ms    BIGINT  NOT NULL
);

-- Where a group goes on reading a partition.
CREATE TABLE consumer_offsets (
    group_name       TEXT COLLATE "C" NOT NULL REFERENCES consumer_groups (name) ON DELETE CASCADE,
    topic_id         UUID    NOT NULL,
    partition        BIGINT  NOT NULL,
    next_offset      BIGINT  NOT NULL CHECK (next_offset >= 0),
    committed_at_ms  BIGINT  NOT NULL,
    PRIMARY KEY (group_name, topic_id, partition),
    FOREIGN KEY (topic_id, partition) REFERENCES partitions (topic_id, partition) ON DELETE CASCADE
);

CREATE INDEX consumer_offsets_by_partition ON consumer_offsets (topic_id, partition);

-- The database whose object store this one goes on with, until the store's mark names this one.
ALTER TABLE identity ADD COLUMN former UUID;
