//! `GetPipelineHistory`: which pipeline versions there were, and which wrote what.

use std::collections::BTreeSet;

use millstream_broker::{
    Broker, HISTORY_MAX, Offset, PipelineRow, PipelineSpec, RANGES_MAX, Result, Written, WrittenPage,
};
use millstream_proto::v1;
use tonic::Status;

use super::{Api, pipeline_message::pipeline_message, status::Refusal};

pub(super) async fn get(
    api: &Api,
    request: v1::GetPipelineHistoryRequest,
) -> Result<v1::GetPipelineHistoryResponse, Status> {
    let answer = match request.partition {
        Some(_) if request.before_version.is_some() => Err("before_version goes without a partition"),
        Some(partition) => match request.offset {
            Some(_) if request.from_offset.is_some() => Err("ask for one offset, or for what comes from one on"),
            Some(offset) => Ok(at(&api.broker, &request.topic, partition, Offset(offset)).await),
            None => Ok(ranges(&api.broker, &request, partition).await),
        },
        None if request.offset.or(request.from_offset).is_some() => {
            Err("an offset is one of a partition: name the partition too")
        }
        None => Ok(versions(&api.broker, &request).await),
    };
    api.told(answer.map_err(|wrong| Refusal::invalid("ARGUMENT_INVALID", wrong))?)
        .await
}

/// Most that a page holds.
fn limit(asked: u32, most: u32) -> u32 {
    match asked {
        0 => most,
        asked => asked.min(most),
    }
}

async fn versions(broker: &Broker, request: &v1::GetPipelineHistoryRequest) -> Result<v1::GetPipelineHistoryResponse> {
    let limit = limit(request.limit, HISTORY_MAX);
    let before = request.before_version.unwrap_or(u64::MAX);
    let history = broker.pipeline_history(&request.topic, before, limit).await?;
    // The first version is 1. What a full page ends with may be the last there is of what a rebuild left: then the next is empty.
    let last = history.last().map(|(row, _)| row.version);
    let next = last.filter(|last| history.len() >= limit as usize && *last > 1);
    Ok(v1::GetPipelineHistoryResponse {
        activations: history.into_iter().map(activation).collect(),
        next_before_version: next,
        ..v1::GetPipelineHistoryResponse::default()
    })
}

async fn ranges(
    broker: &Broker,
    request: &v1::GetPipelineHistoryRequest,
    partition: u32,
) -> Result<v1::GetPipelineHistoryResponse> {
    let from = Offset(request.from_offset.unwrap_or_default());
    let limit = limit(request.limit, RANGES_MAX as u32);
    let page = broker.written(&request.topic, partition, from, limit as usize).await?;
    written(broker, &request.topic, page).await
}

async fn at(broker: &Broker, topic: &str, partition: u32, offset: Offset) -> Result<v1::GetPipelineHistoryResponse> {
    let ranges = vec![broker.written_at(topic, partition, offset).await?];
    let page = WrittenPage { ranges, next: None };
    written(broker, topic, page).await
}

/// Ranges, and the versions that wrote them.
async fn written(broker: &Broker, topic: &str, page: WrittenPage) -> Result<v1::GetPipelineHistoryResponse> {
    let versions: BTreeSet<u64> = page.ranges.iter().map(|range| range.pipeline_version).collect();
    let mut activations = Vec::new();
    for version in versions.into_iter().rev() {
        // Version 0 is no pipeline; those of before a rebuild are lost.
        activations.extend(broker.pipeline_version(topic, version).await?.map(activation));
    }
    Ok(v1::GetPipelineHistoryResponse {
        activations,
        ranges: page.ranges.into_iter().map(range_message).collect(),
        next_before_version: None,
        next_from_offset: page.next.map(|next| next.0),
    })
}

fn range_message(range: Written) -> v1::WrittenRange {
    v1::WrittenRange {
        base_offset: range.base_offset.0,
        end_offset: range.end_offset.0,
        pipeline_version: range.pipeline_version,
    }
}

fn activation((row, spec): (PipelineRow, PipelineSpec)) -> v1::PipelineActivation {
    v1::PipelineActivation {
        pipeline: Some(pipeline_message(row.version, spec)),
        activated_at_ms: row.activated_at_ms,
        reason: row.reason,
    }
}
