//! Pipelines: the stages of a topic, one version after the other. Every activation makes a new version, going back
//! included.

use uuid::Uuid;

use crate::database::{Fields, bigint, json, sql};
use crate::{MetaError, Metadata, Result};

/// One version of a topic's pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineRow {
    /// Counts up from 1.
    pub version: u64,
    /// Its stages, as JSON.
    pub stages_json: String,
    /// When it came into force.
    pub activated_at_ms: i64,
}

impl Metadata {
    /// Makes `stages_json` the pipeline of a topic, based on `expected_version` (0: there is none yet).
    ///
    /// 1. It comes into force as version `expected_version + 1`, only where `expected_version` is the one in force: of
    ///    several calls based on one version exactly one succeeds.
    /// 2. Earlier versions stay readable as long as the topic exists.
    ///
    /// # Errors
    /// `Conflict` with the version in force, also when asked again after a lost answer; `NotFound` for the topic.
    pub async fn activate_pipeline(
        &self,
        topic_id: Uuid,
        expected_version: u64,
        stages_json: &str,
        now_ms: i64,
    ) -> Result<PipelineRow> {
        let stages = &json("a pipeline's stages", stages_json)?;
        let _forget = self.cache.forgetting(|cache| cache.forget_pipeline(topic_id));
        let activate = self.database.transaction(|mut tx| async move {
            let advance = sql(
                "UPDATE topics SET pipeline_version = pipeline_version + 1 WHERE id = $1 AND pipeline_version = $2 \
                 RETURNING pipeline_version",
            );
            let Some(row) = tx
                .one(
                    advance
                        .bind(topic_id)
                        .bind(bigint("pipeline version", expected_version)?),
                )
                .await?
            else {
                let found = tx
                    .one(sql("SELECT pipeline_version FROM topics WHERE id = $1").bind(topic_id))
                    .await?;
                let found = found.ok_or_else(|| MetaError::NotFound {
                    what: "topic",
                    name: topic_id.to_string(),
                })?;
                return Err(MetaError::Conflict {
                    what: "the pipeline version in force",
                    expected: expected_version,
                    found: found.u64("pipeline_version")?,
                });
            };
            let version = row.i64("pipeline_version")?;
            let insert = sql("INSERT INTO pipelines (topic_id, version, stages) VALUES ($1, $2, $3)");
            tx.execute(insert.bind(topic_id).bind(version).bind(stages.clone()))
                .await?;
            let activate =
                sql("INSERT INTO pipeline_activations (topic_id, version, activated_at_ms) VALUES ($1, $2, $3)");
            tx.execute(activate.bind(topic_id).bind(version).bind(now_ms)).await?;
            tx.commit().await?;
            let version = row.u64("pipeline_version")?;
            Ok(PipelineRow {
                version,
                stages_json: stages_json.to_string(),
                activated_at_ms: now_ms,
            })
        });
        activate.await
    }

    /// The pipeline in force for a topic; `None` where it never had one.
    pub async fn pipeline(&self, topic_id: Uuid) -> Result<Option<PipelineRow>> {
        let found = sql("SELECT p.version, p.stages, a.activated_at_ms FROM topics t \
             JOIN pipelines p ON p.topic_id = t.id AND p.version = t.pipeline_version \
             JOIN pipeline_activations a ON a.topic_id = p.topic_id AND a.version = p.version WHERE t.id = $1");
        let row = self.database.read_one(found.bind(topic_id)).await?;
        row.map(|row| pipeline(&row)).transpose()
    }

    /// A given version of a topic's pipeline.
    pub async fn pipeline_at(&self, topic_id: Uuid, version: u64) -> Result<Option<PipelineRow>> {
        let found = sql("SELECT p.version, p.stages, a.activated_at_ms FROM pipelines p \
             JOIN pipeline_activations a ON a.topic_id = p.topic_id AND a.version = p.version \
             WHERE p.topic_id = $1 AND p.version = $2");
        let found = found.bind(topic_id).bind(bigint("pipeline version", version)?);
        self.database
            .read_one(found)
            .await?
            .map(|row| pipeline(&row))
            .transpose()
    }
}

fn pipeline(row: &Fields) -> Result<PipelineRow> {
    Ok(PipelineRow {
        version: row.u64("version")?,
        stages_json: row.json("stages")?,
        activated_at_ms: row.i64("activated_at_ms")?,
    })
}
