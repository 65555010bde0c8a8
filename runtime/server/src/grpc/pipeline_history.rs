//! `GetPipelineHistory`: which pipeline versions there were, and which wrote what.

use std::collections::BTreeSet;

use millstream_broker::{Broker, HISTORY_MAX, Offset, PipelineRow, PipelineSpec, Result};
use millstream_proto::v1;
use tonic::Status;

use super::{pipeline_message::pipeline_message, status::status};

pub(super) async fn get(
    broker: &Broker,
    request: v1::GetPipelineHistoryRequest,
) -> Result<v1::GetPipelineHistoryResponse, Status> {
    let v1::GetPipelineHistoryRequest {
        topic,
        partition,
        offset,
    } = request;
    match partition {
        None if offset.is_some() => Err(Status::invalid_argument(
            "an offset is one of a partition: name the partition too",
        )),
        None => topics(broker, &topic).await.map_err(status),
        Some(partition) => partitions(broker, &topic, partition, offset.map(Offset))
            .await
            .map_err(status),
    }
}

async fn topics(broker: &Broker, topic: &str) -> Result<v1::GetPipelineHistoryResponse> {
    let history = broker.pipeline_history(topic).await?;
    Ok(v1::GetPipelineHistoryResponse {
        activations: history.into_iter().map(activation).collect(),
        ranges: Vec::new(),
    })
}

async fn partitions(
    broker: &Broker,
    topic: &str,
    partition: u32,
    offset: Option<Offset>,
) -> Result<v1::GetPipelineHistoryResponse> {
    let ranges = broker.written(topic, partition, offset).await?;
    let versions: BTreeSet<u64> = ranges.iter().map(|range| range.pipeline_version).collect();
    let mut activations = Vec::new();
    for version in versions.into_iter().rev().take(HISTORY_MAX as usize) {
        // Version 0 is no pipeline; those of before a rebuild are lost.
        activations.extend(broker.pipeline_version(topic, version).await?.map(activation));
    }
    let ranges = ranges.into_iter().map(|range| v1::WrittenRange {
        base_offset: range.base_offset.0,
        end_offset: range.end_offset.0,
        pipeline_version: range.pipeline_version,
    });
    Ok(v1::GetPipelineHistoryResponse {
        activations,
        ranges: ranges.collect(),
    })
}

fn activation((row, spec): (PipelineRow, PipelineSpec)) -> v1::PipelineActivation {
    v1::PipelineActivation {
        pipeline: Some(pipeline_message(row.version, spec)),
        activated_at_ms: row.activated_at_ms,
        reason: row.reason,
    }
}
