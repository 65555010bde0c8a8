//! One side of a pipeline as a row of instances, owned by one partition.

use std::sync::Arc;

use bytes::Bytes;
use millstream_batch::{Batch, Offset};
use millstream_log::{Fate as RecordFate, Outcome};
use millstream_wasm::{Input, Instance, Limits, ModuleError, StageContext};

use super::{
    Pipeline, Side, Work,
    work::{Fate, Unfit},
};
use crate::error::{BrokerError, RejectedRecord, Result};

/// Bound on the uncompressed records of one batch.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// The instances of one side, made when first needed and replaced after a failure.
pub(crate) struct Chain {
    topic: String,
    partition: u32,
    side: Side,
    pipeline: Arc<Pipeline>,
    limits: Limits,
    instances: Vec<Option<Instance>>,
}

/// What a chain belongs to.
#[derive(Clone)]
pub(crate) struct ChainContext {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) limits: Limits,
}

/// A batch that went through a produce chain.
pub(crate) struct Produced {
    /// `None` when every record was dropped.
    pub(crate) batch: Option<Batch>,
    pub(crate) fate: Fate,
    /// For each record the input record it came from; `None` where each came from its own.
    pub(crate) sources: Option<Vec<u32>>,
}

impl Produced {
    /// A batch that went through no stage.
    pub(crate) fn untouched(batch: Batch) -> Produced {
        Produced {
            batch: Some(batch),
            fate: Fate::default(),
            sources: None,
        }
    }

    /// What each of `input_count` records became, for the WAL frame.
    pub(crate) fn outcome(&self, input_count: u32) -> Outcome {
        let Some(sources) = &self.sources else {
            return Outcome::all_kept(input_count);
        };
        let mut counts = vec![0; input_count as usize];
        for source in sources {
            counts[*source as usize] += 1;
        }
        counts
            .into_iter()
            .map(|emitted| (emitted, RecordFate::Pipeline))
            .collect()
    }
}

impl Chain {
    pub(crate) fn new(context: &ChainContext, side: Side, pipeline: Arc<Pipeline>) -> Chain {
        Chain {
            topic: context.topic.clone(),
            partition: context.partition,
            side,
            limits: context.limits.clone(),
            instances: pipeline.side(side).iter().map(|_| None).collect(),
            pipeline,
        }
    }

    /// Runs a produced batch through all stages. Either every record that the stages keep comes out, or an error does.
    pub(crate) fn produce(&mut self, batch: Batch, append_time_ms: i64, limits: OutputLimits) -> Result<Produced> {
        let input_count = batch.record_count();
        let mut work = Work::new(self.side, &batch, decompressed(&batch)?);
        for stage in 0..self.instances.len() {
            let spec = self.pipeline.side(self.side)[stage].spec.clone();
            let failed = |source| BrokerError::ModuleOnProduce {
                module: spec.module.clone(),
                version: spec.version,
                source,
            };
            let rejects = match self.stage(stage, &mut work, None, append_time_ms)? {
                Ok(rejects) => rejects,
                Err(StageError::Module(source)) => return Err(failed(source)),
                Err(StageError::Unfit(_)) => unreachable!("on produce a record may become several"),
            };
            if !rejects.is_empty() {
                return Err(BrokerError::Rejected {
                    module: spec.module,
                    version: spec.version,
                    count: input_count,
                    rejects,
                });
            }
        }
        let (fate, sources) = (work.fate(), work.sources().map(<[u32]>::to_vec));
        let batch = work.into_produced(batch)?;
        if let Some(batch) = batch.as_ref().filter(|_| sources.is_some()) {
            self.check_output(batch, limits)?;
        }
        Ok(Produced { batch, fate, sources })
    }

    /// Runs a stored batch through all stages for a reader; `None` when nothing of it is left.
    pub(crate) fn fetch(&mut self, batch: Batch) -> Result<Option<Batch>> {
        let base = batch.base_offset();
        let mut work = Work::new(self.side, &batch, decompressed(&batch)?);
        let append_time_ms = batch.header().max_timestamp_ms;
        for stage in 0..self.instances.len() {
            let outcome = self.stage(stage, &mut work, Some(base), append_time_ms)?;
            let spec = &self.pipeline.side(self.side)[stage].spec;
            let (module, version) = (spec.module.clone(), spec.version);
            match outcome {
                Ok(rejects) => {
                    if let Some(reject) = rejects.into_iter().next() {
                        let offset = base + u64::from(reject.index);
                        let source = ModuleError::Failed {
                            message: format!("it rejected the record: {}", reject.reason),
                        };
                        return Err(BrokerError::ModuleOnFetch {
                            module,
                            version,
                            offset,
                            source,
                        });
                    }
                }
                Err(StageError::Module(source)) => {
                    return Err(BrokerError::ModuleOnFetch {
                        module,
                        version,
                        offset: base,
                        source,
                    });
                }
                Err(StageError::Unfit(Unfit::Multiplied { source, count })) => {
                    let offset = base + u64::from(source);
                    return Err(BrokerError::MultipliedOnFetch {
                        module,
                        version,
                        offset,
                        count,
                    });
                }
            }
        }
        work.into_fetched(batch)
    }

    /// Runs one stage; the inner error is the module's, the rejects name input records.
    fn stage(
        &mut self,
        stage: usize,
        work: &mut Work,
        first_offset: Option<Offset>,
        append_time_ms: i64,
    ) -> Result<Result<Vec<RejectedRecord>, StageError>> {
        if work.count() == 0 {
            return Ok(Ok(Vec::new()));
        }
        let mut instance = match self.instances[stage].take() {
            Some(instance) => instance,
            None => match self.instantiate(stage) {
                Ok(instance) => instance,
                Err(source) => return Ok(Err(StageError::Module(source))),
            },
        };
        let records: Bytes = work.records().clone();
        let outcome = match instance.process(Input {
            partition: self.partition,
            first_offset: first_offset.map(|offset| offset.0),
            append_time_ms,
            base_timestamp_ms: work.base_timestamp_ms(),
            count: work.count(),
            records: &records,
        }) {
            Ok(outcome) => outcome,
            // The instance is dead or in doubt: it is dropped, and the next batch gets a new one.
            Err(source) => return Ok(Err(StageError::Module(source))),
        };
        self.instances[stage] = Some(instance);

        let rejects: Vec<RejectedRecord> = outcome
            .rejects
            .iter()
            .map(|reject| RejectedRecord {
                index: work.source(reject.index),
                reason: reject.reason.clone(),
            })
            .collect();
        if !rejects.is_empty() {
            return Ok(Ok(rejects));
        }
        Ok(work.apply(&outcome)?.map(|()| Vec::new()).map_err(StageError::Unfit))
    }

    fn instantiate(&self, stage: usize) -> Result<Instance, ModuleError> {
        let stage = &self.pipeline.side(self.side)[stage];
        let params: Vec<(String, String)> = stage
            .spec
            .params
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let context = StageContext {
            topic: self.topic.clone(),
            on_fetch: self.side == Side::Fetch,
        };
        Instance::new(&stage.module, &self.limits, &context, &params)
    }

    /// What a module made is held to the limits that hold for what a client sends.
    fn check_output(&self, batch: &Batch, limits: OutputLimits) -> Result<()> {
        let last = &self
            .pipeline
            .side(self.side)
            .last()
            .expect("a chain that changed a batch has a stage")
            .spec;
        let (module, version) = (last.module.clone(), last.version);
        if batch.encoded_len() > limits.batch_bytes_max {
            let (bytes, bytes_max) = (batch.encoded_len(), limits.batch_bytes_max);
            return Err(BrokerError::OutputTooLarge {
                module,
                version,
                bytes,
                bytes_max,
            });
        }
        for record in millstream_batch::RecordIter::new(batch.records()) {
            let bytes = record?.encoded().len();
            if bytes > limits.record_bytes_max {
                let bytes_max = limits.record_bytes_max;
                return Err(BrokerError::OutputRecordTooLarge {
                    module,
                    version,
                    bytes,
                    bytes_max,
                });
            }
        }
        Ok(())
    }
}

fn decompressed(batch: &Batch) -> Result<Bytes> {
    batch
        .decompressed(DECOMPRESSED_BYTES_MAX)
        .map_err(BrokerError::StoredBatch)
}

/// Bounds on what a produce chain puts out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutputLimits {
    pub(crate) batch_bytes_max: usize,
    pub(crate) record_bytes_max: usize,
}

enum StageError {
    Module(ModuleError),
    Unfit(Unfit),
}
