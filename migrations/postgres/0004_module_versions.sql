-- What "latest" means now; 0: no version is in force yet. It moves with the pipelines of all that follow it.
ALTER TABLE modules ADD COLUMN current_version BIGINT NOT NULL DEFAULT 0 CHECK (current_version BETWEEN 0 AND 4294967295);
-- Counts the pipelines that were activated with a stage that follows the module, and its moves: whoever moves it says which
-- count it knows, so that none that follows is left behind.
ALTER TABLE modules ADD COLUMN followed BIGINT NOT NULL DEFAULT 0 CHECK (followed >= 0);
-- The version that was current before this one became so, where a rollback leads; 0: there was none, or it came by a rollback.
-- NULL: it was never current.
ALTER TABLE module_versions ADD COLUMN replaces BIGINT CHECK (replaces BETWEEN 0 AND 4294967295);
-- Why a pipeline version came into force.
ALTER TABLE pipeline_activations ADD COLUMN reason TEXT NOT NULL DEFAULT '';

UPDATE modules SET current_version = latest_version;
UPDATE module_versions SET replaces = version - 1;
