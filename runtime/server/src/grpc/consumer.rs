//! `ConsumerService`.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{
    StreamExt,
    future::ready,
    stream::{self, BoxStream},
};
use millstream_batch::Offset;
use millstream_broker::{Broker, BrokerError, FetchEach, FetchedEach, PartitionOffset, Read, Room};
use millstream_proto::v1;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Api,
    charged::{LeavingRooms, charged},
    compression,
    enums::is_plain,
    plain::PlainRecords,
    stage::stage_spec,
    status::{Refusal, status},
    stopping,
    subscribe::Subscription,
    whole::{Answer, Answers, FETCHED_TAG, PARTITIONS_TAG, Part},
};

const FETCH_BYTES_DEFAULT: u32 = 1 << 20;
const FETCH_BYTES_MAX: u32 = 16 << 20;
const WAIT_MS_MAX: u32 = 30_000;
const PARTITIONS_MAX: usize = 1_000;

#[tonic::async_trait]
impl v1::consumer_service_server::ConsumerService for Api {
    type SubscribeStream = BoxStream<'static, Result<v1::SubscribeResponse, Status>>;

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        let compressed = compression::is_wanted(&request);
        let request = request.into_inner();
        check_partitions(&request.partitions)?;
        let plain = is_plain(request.format)?;
        let in_place = !plain && !compressed;
        let bytes_max = bytes_max(request.max_bytes);
        let query = FetchEach {
            partitions: request.partitions.into_iter().map(place).collect(),
            bytes_max,
            bytes_min: request.min_bytes as usize,
            wait: Duration::from_millis(u64::from(request.max_wait_ms.min(WAIT_MS_MAX))),
            stage: request.stage.map(stage_spec).transpose()?,
        };
        let places = query.partitions.clone();
        let mut fetched = self.fetch_or_stop(query).await.map_err(status)?;
        name_nearest(&self.broker, &mut fetched).await;
        let (parts, room) = answer(places, fetched, plain, bytes_max).await.map_err(status)?;
        if in_place {
            let answer = Answer {
                rest: v1::FetchResponse::default(),
                parts,
                room: Some(room),
            };
            let answers = Answers::new(PARTITIONS_TAG, stream::once(ready(Ok(answer))));
            return Ok(answers.into_response(v1::FetchResponse::default()));
        }
        let partitions = parts.into_iter().map(Part::joined).collect();
        let mut response = Response::new(v1::FetchResponse { partitions });
        // `charged` holds it until the answer is out.
        response.extensions_mut().insert(room);
        Ok(response)
    }

    async fn subscribe(
        &self,
        request: Request<Streaming<v1::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (charge, last_frame) = charged(&request);
        let compressed = compression::is_wanted(&request);
        let subscription = Subscription::open(self, request.into_inner(), charge, last_frame).await?;
        if !subscription.plain && !compressed {
            let answers = Answers::new(FETCHED_TAG, subscription.answers());
            return Ok(answers.into_response(stream::empty().boxed()));
        }
        let rooms = Arc::<LeavingRooms>::default();
        let leaving = rooms.clone();
        let joined = move |answer: Answer<v1::SubscribeResponse>| {
            answer.room.into_iter().for_each(|room| leaving.push(room));
            v1::SubscribeResponse {
                fetched: answer.parts.into_iter().next().map(Part::joined),
                ..answer.rest
            }
        };
        let answers = subscription.answers().map(move |answer| answer.map(&joined));
        let mut response = Response::new(answers.boxed());
        response.extensions_mut().insert(rooms);
        Ok(response)
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let request = request.into_inner();
        let offsets = self.broker.offsets(&request.topic, request.partition).await;
        let (log_start, high_watermark) = self.told(offsets).await?;
        let offset_at = match request.timestamp_ms {
            None => None,
            Some(ms) => self
                .broker
                .offset_at(&request.topic, request.partition, ms)
                .await
                .map_err(status)?,
        };
        Ok(Response::new(v1::ListOffsetsResponse {
            log_start_offset: log_start.0,
            high_watermark: high_watermark.0,
            offset_at: offset_at.map(|offset| offset.0),
        }))
    }
}

impl Api {
    /// A fetch that waits is answered with what there is as soon as the agent begins to stop.
    async fn fetch_or_stop(&self, query: FetchEach) -> Result<FetchedEach, BrokerError> {
        if query.wait.is_zero() {
            return self.broker.fetch_each(query).await;
        }
        let at_once = FetchEach {
            wait: Duration::ZERO,
            ..query.clone()
        };
        tokio::select! {
            fetched = self.broker.fetch_each(query) => fetched,
            () = stopping(self.stop.clone()) => self.broker.fetch_each(at_once).await,
        }
    }
}

/// Gives the first error the nearest name, where it is that a name is not known.
async fn name_nearest(broker: &Broker, fetched: &mut FetchedEach) {
    if let Some(first) = fetched.parts.iter_mut().find(|part| part.is_err()) {
        let part = std::mem::replace(first, Err(BrokerError::Stopping));
        *first = match part {
            Err(error) => Err(broker.with_nearest_name(error).await),
            read => read,
        };
    }
}

fn check_partitions(partitions: &[v1::FetchPartition]) -> Result<(), Refusal> {
    let count = partitions.len();
    if !(1..=PARTITIONS_MAX).contains(&count) {
        let message = format!("a fetch names 1 to {PARTITIONS_MAX} partitions, not {count}");
        return Err(Refusal::invalid("PARTITIONS_INVALID", message));
    }
    let mut seen = HashSet::with_capacity(count);
    match partitions
        .iter()
        .find(|wanted| !seen.insert((&wanted.topic, wanted.partition)))
    {
        None => Ok(()),
        Some(v1::FetchPartition { topic, partition, .. }) => {
            let message = format!("partition {partition} of topic {topic:?} is named twice");
            Err(Refusal::invalid("PARTITIONS_INVALID", message))
        }
    }
}

pub(super) fn bytes_max(asked: u32) -> usize {
    match asked {
        0 => FETCH_BYTES_DEFAULT as usize,
        asked => asked.min(FETCH_BYTES_MAX) as usize,
    }
}

fn place(wanted: v1::FetchPartition) -> PartitionOffset {
    PartitionOffset {
        topic: wanted.topic,
        partition: wanted.partition,
        offset: Offset(wanted.offset),
    }
}

/// What was read, part by part; the batches apart, or their records in the message where they are wanted `plain`.
pub(super) async fn answer(
    places: Vec<PartitionOffset>,
    fetched: FetchedEach,
    plain: bool,
    bytes_max: usize,
) -> Result<(Vec<Part>, Room), BrokerError> {
    let FetchedEach { parts, mut room } = fetched;
    let wanted = places.into_iter().zip(parts);
    if !plain {
        let whole = wanted.map(|(place, read)| told(place, read.map(whole)));
        return Ok((whole.collect(), room));
    }
    let mut left = PlainRecords::new(bytes_max);
    // What is stored compressed takes more once it is not.
    room = room.exchange(left.bytes_max).await?;
    let mut answered = Vec::with_capacity(wanted.len());
    for (place, read) in wanted {
        let part = match read {
            Ok(read) => plain_records(&read, place.offset, bytes_max, &mut left),
            Err(error) => Err(error),
        };
        // What was added before an error is no part of the others.
        left.records.clear();
        answered.push(told(place, part));
    }
    room.shrink(left.bytes);
    Ok((answered, room))
}

/// A part of an answer, or why there is none.
fn told(place: PartitionOffset, part: Result<Part, BrokerError>) -> Part {
    let Part { told, batches } = part.unwrap_or_else(|error| Part {
        told: v1::FetchedPartition {
            error: Some(Refusal::from(error).message()),
            ..v1::FetchedPartition::default()
        },
        batches: Vec::new(),
    });
    let told = v1::FetchedPartition {
        topic: place.topic,
        partition: place.partition,
        lag: told.high_watermark.saturating_sub(told.next_offset),
        ..told
    };
    Part { told, batches }
}

/// The batches as they are.
fn whole(read: Read) -> Part {
    let told = v1::FetchedPartition {
        next_offset: read.next_offset.0,
        high_watermark: read.high_watermark.0,
        log_start_offset: read.log_start.0,
        ..v1::FetchedPartition::default()
    };
    Part {
        told,
        batches: read.batches,
    }
}

/// Their records, as many as have room.
fn plain_records(read: &Read, from: Offset, bytes_max: usize, plain: &mut PlainRecords) -> Result<Part, BrokerError> {
    let mut next = read.next_offset;
    for batch in &read.batches {
        // A small batch may hold many bytes: what has no room is left for the next request.
        let left = match plain.is_full(bytes_max) {
            true => Some(batch.base_offset().max(from)),
            false => plain.add(batch, from)?,
        };
        if let Some(left) = left {
            next = left;
            break;
        }
    }
    let told = v1::FetchedPartition {
        records: plain.take(),
        next_offset: next.0,
        high_watermark: read.high_watermark.0,
        log_start_offset: read.log_start.0,
        ..v1::FetchedPartition::default()
    };
    Ok(Part {
        told,
        batches: Vec::new(),
    })
}
