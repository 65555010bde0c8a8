-- Grows with each change of the row, and begins at the database's time: a group that is deleted and made again has another.
ALTER TABLE consumer_groups ADD COLUMN version BIGINT NOT NULL DEFAULT 0 CHECK (version >= 0);
-- The members, what each reads, and until when it is taken to live: one document, which the broker alone understands.
ALTER TABLE consumer_groups ADD COLUMN members JSONB NOT NULL DEFAULT '{}';
-- Whatever the one who committed wants to find again.
ALTER TABLE consumer_offsets ADD COLUMN metadata TEXT NOT NULL DEFAULT '' CHECK (length(metadata) <= 4096);
