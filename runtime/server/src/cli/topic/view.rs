//! Topics as tables and as JSON.

use std::time::{Duration, UNIX_EPOCH};

use indicatif::{BinaryBytes, HumanCount};
use millstream_client::v1;
use serde::Serialize;
use uuid::Uuid;

use crate::cli::{
    output::{Column, table},
    retention::{Retention, RetentionBytes},
};

/// Where a partition begins after it was truncated.
#[derive(Serialize)]
pub(super) struct PartitionStart {
    pub(super) partition: u32,
    pub(super) log_start_offset: u64,
}

pub(super) fn start_table(starts: &[PartitionStart]) -> String {
    let columns = [Column::Right("partition"), Column::Right("from")];
    let rows = starts.iter().map(|start| {
        let from = HumanCount(start.log_start_offset).to_string();
        vec![start.partition.to_string(), from]
    });
    table(&columns, rows)
}

/// A topic as `--output json` shows it.
#[derive(Serialize)]
pub(super) struct TopicView {
    name: String,
    id: String,
    partitions: u32,
    retention: Retention,
    retention_ms: u64,
    retention_bytes: RetentionBytes,
    compression: &'static str,
    segment_bytes: u64,
    segment_age_ms: u64,
    record_bytes_max: u32,
    timestamps: &'static str,
    acks: &'static str,
    created_at_ms: i64,
}

/// A topic and its partitions.
#[derive(Serialize)]
pub(super) struct StatusView {
    #[serde(flatten)]
    pub(super) topic: TopicView,
    pub(super) status: Vec<PartitionView>,
}

/// One partition.
#[derive(Serialize)]
pub(super) struct PartitionView {
    partition: u32,
    log_start_offset: u64,
    high_watermark: u64,
    committed_end: u64,
    segment_count: u64,
    raw_bytes: u64,
    stored_bytes: u64,
}

impl From<v1::Topic> for TopicView {
    fn from(topic: v1::Topic) -> TopicView {
        let config = topic.config.unwrap_or_default();
        let retention_ms = config.retention_ms.unwrap_or_default();
        let compression = match config.compression() {
            v1::Compression::None => "none",
            v1::Compression::Unspecified | v1::Compression::Lz4 => "lz4",
            v1::Compression::Zstd => "zstd",
        };
        let timestamps = match config.timestamp_type() {
            v1::TimestampType::Unspecified | v1::TimestampType::Create => "create",
            v1::TimestampType::Append => "append",
        };
        let acks = match config.default_acks() {
            v1::Acks::Unspecified | v1::Acks::Durable => "durable",
            v1::Acks::Memory => "memory",
        };
        TopicView {
            name: topic.name,
            id: Uuid::from_slice(&topic.id).map_or_else(|_| String::new(), |id| id.to_string()),
            partitions: topic.partitions,
            retention: Retention::from_config_ms(retention_ms),
            retention_ms,
            retention_bytes: RetentionBytes::from_config(config.retention_bytes.unwrap_or_default()),
            compression,
            segment_bytes: config.segment_bytes.unwrap_or_default(),
            segment_age_ms: config.segment_age_ms.unwrap_or_default(),
            record_bytes_max: config.record_bytes_max.unwrap_or_default(),
            timestamps,
            acks,
            created_at_ms: topic.created_at_ms,
        }
    }
}

impl From<v1::PartitionStatus> for PartitionView {
    fn from(status: v1::PartitionStatus) -> PartitionView {
        let v1::PartitionStatus {
            partition,
            log_start_offset,
            high_watermark,
            committed_end,
            segment_count,
            raw_bytes,
            stored_bytes,
        } = status;
        PartitionView {
            partition,
            log_start_offset,
            high_watermark,
            committed_end,
            segment_count,
            raw_bytes,
            stored_bytes,
        }
    }
}

pub(super) fn topic_table(topics: &[TopicView]) -> String {
    let columns = [
        Column::Left("topic"),
        Column::Right("partitions"),
        Column::Right("retention"),
        Column::Right("at most"),
        Column::Left("compression"),
        Column::Right("segments of"),
        Column::Right("or after"),
        Column::Left("timestamps"),
        Column::Left("acks"),
        Column::Left("created"),
    ];
    let rows = topics.iter().map(|topic| {
        vec![
            topic.name.clone(),
            HumanCount(topic.partitions.into()).to_string(),
            topic.retention.to_string(),
            topic.retention_bytes.to_string(),
            topic.compression.to_owned(),
            BinaryBytes(topic.segment_bytes).to_string(),
            humantime::format_duration(Duration::from_millis(topic.segment_age_ms)).to_string(),
            topic.timestamps.to_owned(),
            topic.acks.to_owned(),
            show_time(topic.created_at_ms),
        ]
    });
    table(&columns, rows)
}

pub(super) fn partition_table(partitions: &[PartitionView]) -> String {
    let columns = [
        Column::Right("partition"),
        Column::Right("from"),
        Column::Right("to"),
        Column::Right("in segments to"),
        Column::Right("segments"),
        Column::Right("raw"),
        Column::Right("stored"),
    ];
    let rows = partitions.iter().map(|status| {
        vec![
            status.partition.to_string(),
            HumanCount(status.log_start_offset).to_string(),
            HumanCount(status.high_watermark).to_string(),
            HumanCount(status.committed_end).to_string(),
            HumanCount(status.segment_count).to_string(),
            BinaryBytes(status.raw_bytes).to_string(),
            BinaryBytes(status.stored_bytes).to_string(),
        ]
    });
    table(&columns, rows)
}

/// Milliseconds since the Unix epoch as a date and time in UTC.
pub fn show_time(ms: i64) -> String {
    u64::try_from(ms)
        .ok()
        .and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)))
        // RFC 3339 ends with the year 9999.
        .filter(|_| ms < 253_402_300_800_000)
        .map_or_else(
            || ms.to_string(),
            |time| humantime::format_rfc3339_seconds(time).to_string(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc_and_absurd_ones_as_they_are() {
        assert_eq!(show_time(1_735_689_600_999), "2025-01-01T00:00:00Z");
        assert_eq!(show_time(-1), "-1");
        assert_eq!(show_time(i64::MAX), i64::MAX.to_string());
    }

    #[test]
    fn a_topic_in_json_has_plain_fields() {
        let topic = v1::Topic {
            name: "orders".to_owned(),
            id: vec![1; 16].into(),
            partitions: 3,
            config: Some(v1::TopicConfig {
                retention_ms: Some(604_800_000),
                compression: v1::Compression::Zstd.into(),
                record_bytes_max: Some(1 << 20),
                retention_bytes: Some(5_000),
                segment_bytes: Some(1 << 26),
                segment_age_ms: Some(600_000),
                timestamp_type: v1::TimestampType::Append.into(),
                default_acks: v1::Acks::Memory.into(),
            }),
            created_at_ms: 5,
        };
        let json = serde_json::to_value(TopicView::from(topic)).unwrap();
        let expected = serde_json::json!({
            "name": "orders", "id": "01010101-0101-0101-0101-010101010101", "partitions": 3, "retention": "7d",
            "retention_ms": 604_800_000, "retention_bytes": 5_000, "compression": "zstd",
            "segment_bytes": 67_108_864, "segment_age_ms": 600_000, "record_bytes_max": 1_048_576, "timestamps": "append", "acks": "memory",
            "created_at_ms": 5,
        });
        assert_eq!(json, expected);
    }
}
