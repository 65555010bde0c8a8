-- The first part of the WAL that is still needed. It moves before anything below it is deleted.
ALTER TABLE wal_streams ADD COLUMN trim_floor BIGINT NOT NULL DEFAULT 0 CHECK (trim_floor >= 0);

-- A topic's settings are numbered; the object that describes it is that of `manifest_version`, 0 where there is none.
ALTER TABLE topics ADD COLUMN config_version BIGINT NOT NULL DEFAULT 1 CHECK (config_version >= 1);
ALTER TABLE topics ADD COLUMN manifest_version BIGINT NOT NULL DEFAULT 0 CHECK (manifest_version >= 0);
ALTER TABLE topics ADD COLUMN manifest_key TEXT COLLATE "C";

-- Names under which a deleted topic may have left objects that no row ever named.
CREATE TABLE deleted_topics (
    id               UUID    NOT NULL PRIMARY KEY,
    name             TEXT COLLATE "C" NOT NULL,
    deleted_at_ms    BIGINT  NOT NULL
);

-- A key is never used twice; and whether a row names an object must be found fast.
CREATE UNIQUE INDEX segments_by_key ON segments (object_key);

-- One row: which database this is. The object store it is used with carries the same id.
CREATE TABLE identity (
    one              BIGINT  NOT NULL PRIMARY KEY CHECK (one = 1),
    id               UUID    NOT NULL
);
