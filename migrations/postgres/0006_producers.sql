-- Producers that keep their id from one start to the next, by name.
CREATE TABLE producers (
    name                TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 249),
    producer_id         BIGINT  NOT NULL CHECK (producer_id >= 0),
    producer_epoch      BIGINT  NOT NULL CHECK (producer_epoch BETWEEN 0 AND 32767),
    initialized_at_ms   BIGINT  NOT NULL
);

CREATE INDEX producers_by_time ON producers (initialized_at_ms, name);

-- What a partition knows of its idempotent producers at the committed end: the checkpoint of its last segment, or a later one.
-- Base64 of the bytes that a segment's notes have. None: it had no such producer.
CREATE TABLE partition_producers (
    topic_id            UUID    NOT NULL,
    partition           BIGINT  NOT NULL,
    state               TEXT    NOT NULL,
    PRIMARY KEY (topic_id, partition),
    FOREIGN KEY (topic_id, partition) REFERENCES partitions (topic_id, partition) ON DELETE CASCADE
);
