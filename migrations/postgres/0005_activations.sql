-- One row: the number of the last activation. It never falls, whatever is deleted; none: there was no activation yet.
CREATE TABLE activation_counter (
    one              BIGINT  NOT NULL PRIMARY KEY CHECK (one = 1),
    last             BIGINT  NOT NULL CHECK (last >= 1)
);
-- In which activation a pipeline version came into force, with all others of the same number; 0: before they were numbered.
ALTER TABLE pipeline_activations ADD COLUMN activation BIGINT NOT NULL DEFAULT 0 CHECK (activation >= 0);
-- Everything that the agent serves runs what was activated up to this number, or something newer; but for these topics, a JSON
-- list of ids without hyphens, which may run something older.
ALTER TABLE agents ADD COLUMN activation_reached BIGINT NOT NULL DEFAULT 0 CHECK (activation_reached >= 0);
ALTER TABLE agents ADD COLUMN topics_behind JSONB NOT NULL DEFAULT '[]';

CREATE INDEX pipeline_activations_by_number ON pipeline_activations (activation, topic_id);
