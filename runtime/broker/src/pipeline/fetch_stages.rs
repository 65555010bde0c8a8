//! The stages that one reader's records go through: the topic's fetch pipeline, then the stage that the reader asked for.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::{OnError, Pipeline, Side, Stage, StageLimits};

/// The stages on fetch as one reader goes through them.
#[derive(Clone)]
pub(crate) struct FetchStages {
    pub(crate) pipeline: Arc<Pipeline>,
    /// Everything that decides on what comes out, written in one way only.
    pub(crate) form: Arc<str>,
}

/// One stage of the canonical form.
#[derive(Serialize)]
struct Form<'a> {
    sha256: &'a str,
    params: &'a BTreeMap<String, String>,
    on_error: OnError,
    limits: &'a StageLimits,
}

impl FetchStages {
    /// Those of a pipeline on a partition.
    pub(crate) fn new(pipeline: Arc<Pipeline>, partition: u32) -> FetchStages {
        let forms: Vec<_> = pipeline.fetch.iter().map(|stage| form(stage, partition)).collect();
        let form = serde_json::to_string(&forms).expect("structs of strings and numbers always become JSON");
        FetchStages {
            form: form.into(),
            pipeline,
        }
    }

    /// The same, and another stage behind them.
    pub(crate) fn and(&self, further: &Stage, partition: u32) -> FetchStages {
        let mut pipeline = Pipeline::clone(&self.pipeline);
        pipeline.spec.fetch.push(further.spec.clone());
        pipeline.fetch.push(further.clone());
        FetchStages::new(Arc::new(pipeline), partition)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pipeline.fetch.is_empty()
    }
}

fn form(stage: &Stage, partition: u32) -> Form<'_> {
    Form {
        sha256: stage.module_on(partition).1.sha256(),
        params: &stage.spec.params,
        on_error: stage.spec.on_error(Side::Fetch),
        limits: &stage.spec.limits,
    }
}
