//! Pipelines: the stages of a topic, one version after the other. Every activation makes a new version, going back
//! included.

use uuid::Uuid;

use crate::activations::next_activation;
use crate::database::{Fields, Tx, bigint, json, sql};
use crate::{MetaError, Metadata, Result};

/// Most versions that one call of [`Metadata::pipeline_history`] gives.
pub const HISTORY_PAGE_MAX: u32 = 1_000;

/// One version of a topic's pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineRow {
    /// Counts up from 1.
    pub version: u64,
    /// Its stages, as JSON.
    pub stages_json: String,
    /// When it came into force.
    pub activated_at_ms: i64,
    /// Why it came into force; empty for what is older than reasons are.
    pub reason: String,
    /// The number of the activation in which it came into force; 0 for what is older than these numbers are.
    pub activation: u64,
}

/// The pipeline in force for a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineInForce {
    /// The topic.
    pub topic_id: Uuid,
    /// Its name.
    pub topic: String,
    /// Its pipeline.
    pub row: PipelineRow,
}

/// A pipeline that is to come into force.
#[derive(Clone, Debug)]
pub struct NewPipeline {
    /// For which topic.
    pub topic_id: Uuid,
    /// The version that it is based on; 0: there is none yet.
    pub expected_version: u64,
    /// Its stages, as JSON.
    pub stages_json: String,
}

/// Another version of a module that is to become the current one.
#[derive(Clone, Debug)]
pub struct NewCurrent {
    /// The module.
    pub module: String,
    /// What is current now; 0: none.
    pub from: u32,
    /// What becomes current.
    pub to: u32,
    /// [`ModuleState::followed`](crate::ModuleState::followed) as it was before the pipelines in force were read.
    pub followed: u64,
    /// Whether a rollback from the new version leads to the one of now; so it is of a deployment, not of a rollback.
    pub replaces: bool,
}

/// Pipelines and the current version of a module that change together.
#[derive(Clone, Debug, Default)]
pub struct PipelineChanges {
    /// At most one for each topic.
    pub pipelines: Vec<NewPipeline>,
    /// Modules that some of these pipelines follow, and the current version that they were made for. Not the one that moves.
    pub follows: Vec<(String, u32)>,
    /// The module whose current version moves.
    pub current: Option<NewCurrent>,
    /// Why, for people.
    pub reason: String,
}

/// What a change of pipelines came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelinesChanged {
    /// The pipelines that came into force, all in one activation, in the order in which they were given.
    pub rows: Vec<PipelineRow>,
    /// Whether no other agent can serve any of them by the pipeline before.
    pub is_alone: bool,
}

impl Metadata {
    /// Makes pipelines come into force, and with them the version of a module that they follow.
    ///
    /// 1. All or nothing: one transaction. So there is no moment, and no crash, between a version of a module that is
    ///    current and the pipelines that follow it.
    /// 2. Each pipeline comes into force as version `expected_version + 1`, only where `expected_version` is the one in
    ///    force: of several calls based on one version exactly one succeeds.
    /// 3. The current version moves only from `from`, and only where no pipeline that follows the module was activated
    ///    since `followed` was read: none is left behind. Each of `follows` is current still.
    /// 4. Earlier versions of a pipeline stay readable as long as the topic exists.
    /// 5. All of them get one number of an activation, greater than all before, also those of topics that are deleted.
    ///
    /// # Errors
    /// `Conflict` with what is in force, also when asked again after a lost answer; `NotFound` for a topic or module.
    pub async fn change_pipelines(&self, changes: &PipelineChanges, now_ms: i64) -> Result<PipelinesChanged> {
        let stages = changes.pipelines.iter();
        let stages = stages.map(|new| json("a pipeline's stages", &new.stages_json));
        let stages = &stages.collect::<Result<Vec<_>>>()?;
        let _forget = self.cache.forgetting(|cache| {
            for new in &changes.pipelines {
                cache.forget_pipeline(new.topic_id);
            }
        });
        let change = self.database.transaction(|mut tx| async move {
            if let Some(current) = &changes.current {
                move_current(&mut tx, current).await?;
            }
            for (module, version) in &changes.follows {
                follow(&mut tx, module, *version).await?;
            }
            let mut rows = Vec::with_capacity(changes.pipelines.len());
            let (activation, is_alone) = match changes.pipelines.is_empty() {
                false => next_activation(&mut tx).await?,
                true => (0, true),
            };
            for (new, stages) in changes.pipelines.iter().zip(stages) {
                let version = advance(&mut tx, new).await?;
                let insert = sql("INSERT INTO pipelines (topic_id, version, stages) VALUES ($1, $2, $3)");
                let insert = insert.bind(new.topic_id).bind(bigint("pipeline version", version)?);
                tx.execute(insert.bind(stages.clone())).await?;
                let activate = sql(
                    "INSERT INTO pipeline_activations (topic_id, version, activated_at_ms, reason, activation) \
                     VALUES ($1, $2, $3, $4, $5)",
                );
                let activate = activate.bind(new.topic_id).bind(bigint("pipeline version", version)?);
                let activate = activate.bind(now_ms).bind(&changes.reason);
                tx.execute(activate.bind(bigint("activation", activation)?)).await?;
                rows.push(PipelineRow {
                    version,
                    stages_json: new.stages_json.clone(),
                    activated_at_ms: now_ms,
                    reason: changes.reason.clone(),
                    activation,
                });
            }
            tx.commit().await?;
            Ok(PipelinesChanged { rows, is_alone })
        });
        change.await
    }

    /// Makes `stages_json` the pipeline of one topic: [`Metadata::change_pipelines`] for a pipeline that follows no module.
    ///
    /// # Errors
    /// As there.
    pub async fn activate_pipeline(
        &self,
        topic_id: Uuid,
        expected_version: u64,
        stages_json: &str,
        reason: &str,
        now_ms: i64,
    ) -> Result<PipelineRow> {
        let new = NewPipeline {
            topic_id,
            expected_version,
            stages_json: stages_json.to_owned(),
        };
        let changes = PipelineChanges {
            pipelines: vec![new],
            reason: reason.to_owned(),
            ..PipelineChanges::default()
        };
        let changed = self.change_pipelines(&changes, now_ms).await?;
        Ok(changed.rows.into_iter().next().expect("one pipeline has one row"))
    }

    /// The pipeline in force for a topic; `None` where it never had one.
    pub async fn pipeline(&self, topic_id: Uuid) -> Result<Option<PipelineRow>> {
        let found = sql(
            "SELECT p.version, p.stages, a.activated_at_ms, a.reason, a.activation FROM topics t \
             JOIN pipelines p ON p.topic_id = t.id AND p.version = t.pipeline_version \
             JOIN pipeline_activations a ON a.topic_id = p.topic_id AND a.version = p.version WHERE t.id = $1",
        );
        let row = self.database.read_one(found.bind(topic_id)).await?;
        row.map(|row| pipeline(&row)).transpose()
    }

    /// A given version of a topic's pipeline.
    pub async fn pipeline_at(&self, topic_id: Uuid, version: u64) -> Result<Option<PipelineRow>> {
        let found = sql(
            "SELECT p.version, p.stages, a.activated_at_ms, a.reason, a.activation FROM pipelines p \
             JOIN pipeline_activations a ON a.topic_id = p.topic_id AND a.version = p.version \
             WHERE p.topic_id = $1 AND p.version = $2",
        );
        let found = found.bind(topic_id).bind(bigint("pipeline version", version)?);
        let row = self.database.read_one(found).await?;
        row.map(|row| pipeline(&row)).transpose()
    }

    /// The pipelines in force for all topics that ever had one, in no order.
    pub async fn pipelines_in_force(&self) -> Result<Vec<PipelineInForce>> {
        let found = sql(
            "SELECT t.id, t.name, p.version, p.stages, a.activated_at_ms, a.reason, a.activation FROM topics t \
             JOIN pipelines p ON p.topic_id = t.id AND p.version = t.pipeline_version \
             JOIN pipeline_activations a ON a.topic_id = p.topic_id AND a.version = p.version",
        );
        let rows = self.database.read_all(found).await?;
        rows.iter().map(in_force).collect()
    }

    /// The versions of a topic's pipeline below `before`, the newest first, at most `limit` of them and never more than
    /// [`HISTORY_PAGE_MAX`].
    pub async fn pipeline_history(&self, topic_id: Uuid, before: u64, limit: u32) -> Result<Vec<PipelineRow>> {
        let found = sql(
            "SELECT p.version, p.stages, a.activated_at_ms, a.reason, a.activation FROM pipelines p \
             JOIN pipeline_activations a ON a.topic_id = p.topic_id AND a.version = p.version \
             WHERE p.topic_id = $1 AND p.version < $2 ORDER BY p.version DESC LIMIT $3",
        );
        // No version is above what the column holds.
        let before = i64::try_from(before).unwrap_or(i64::MAX);
        let found = found.bind(topic_id).bind(before).bind(limit.min(HISTORY_PAGE_MAX));
        self.database.read_all(found).await?.iter().map(pipeline).collect()
    }
}

/// Advances a topic's pipeline version from the one that is expected; the new one.
async fn advance(tx: &mut Tx, new: &NewPipeline) -> Result<u64> {
    let advance = sql(
        "UPDATE topics SET pipeline_version = pipeline_version + 1 WHERE id = $1 AND pipeline_version = $2 \
         RETURNING pipeline_version",
    );
    let expected = bigint("pipeline version", new.expected_version)?;
    if let Some(row) = tx.one(advance.bind(new.topic_id).bind(expected)).await? {
        return row.u64("pipeline_version");
    }
    let found = sql("SELECT pipeline_version FROM topics WHERE id = $1").bind(new.topic_id);
    let found = tx.one(found).await?.ok_or_else(|| MetaError::NotFound {
        what: "topic",
        name: new.topic_id.to_string(),
    })?;
    Err(MetaError::Conflict {
        what: "the pipeline version in force",
        expected: new.expected_version,
        found: found.u64("pipeline_version")?,
    })
}

/// Counts one more that follows a module, whose current version has to be this one.
async fn follow(tx: &mut Tx, module: &str, version: u32) -> Result<()> {
    let count = sql("UPDATE modules SET followed = followed + 1 WHERE name = $1 AND current_version = $2");
    match tx.execute(count.bind(module).bind(version)).await? {
        0 => Err(moved(tx, module, version).await?),
        _ => Ok(()),
    }
}

async fn move_current(tx: &mut Tx, current: &NewCurrent) -> Result<()> {
    let NewCurrent {
        module,
        from,
        to,
        followed,
        replaces,
    } = current;
    let advance = sql("UPDATE modules SET current_version = $2, followed = followed + 1 \
         WHERE name = $1 AND current_version = $3 AND followed = $4");
    let advance = advance.bind(module).bind(*to).bind(*from);
    if tx
        .execute(advance.bind(bigint("count of followers", *followed)?))
        .await?
        == 0
    {
        return Err(moved(tx, module, *from).await?);
    }
    let found = sql("SELECT version FROM module_versions WHERE name = $1 AND version = $2");
    if tx.one(found.bind(module).bind(*to)).await?.is_none() {
        return Err(MetaError::NotFound {
            what: "module",
            name: format!("{module}@{to}"),
        });
    }
    // What was current has a `replaces`, be it 0.
    let (remember, replaced) = match *replaces && from != to {
        true => (
            "UPDATE module_versions SET replaces = $3 WHERE name = $1 AND version = $2",
            *from,
        ),
        false => (
            "UPDATE module_versions SET replaces = COALESCE(replaces, $3) WHERE name = $1 AND version = $2",
            0,
        ),
    };
    tx.execute(sql(remember).bind(module).bind(*to).bind(replaced)).await?;
    Ok(())
}

/// The error for a module that is not at what was expected.
async fn moved(tx: &mut Tx, module: &str, expected: u32) -> Result<MetaError> {
    let found = sql("SELECT current_version FROM modules WHERE name = $1").bind(module);
    let found = tx.one(found).await?.ok_or_else(|| MetaError::NotFound {
        what: "module",
        name: module.to_owned(),
    })?;
    Ok(MetaError::Conflict {
        what: "the current version of a module that pipelines follow",
        expected: u64::from(expected),
        found: found.u64("current_version")?,
    })
}

pub(crate) fn in_force(row: &Fields) -> Result<PipelineInForce> {
    Ok(PipelineInForce {
        topic_id: row.uuid("id")?,
        topic: row.text("name")?,
        row: pipeline(row)?,
    })
}

fn pipeline(row: &Fields) -> Result<PipelineRow> {
    Ok(PipelineRow {
        version: row.u64("version")?,
        stages_json: row.json("stages")?,
        activated_at_ms: row.i64("activated_at_ms")?,
        reason: row.text("reason")?,
        activation: row.u64("activation")?,
    })
}
