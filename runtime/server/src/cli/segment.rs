//! `millstream segment`: what is in a segment file, with every checksum checked.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use indicatif::{BinaryBytes, HumanCount};
use millstream_log::{SegmentReport, segment::inspect};
use serde::Serialize;

use super::{
    output::{Column, OutputFormat, print, table},
    topic::show_time,
};

/// Largest file that is looked into; it is read whole.
const SEGMENT_BYTES_MAX: u64 = 2 << 30;

/// Verbs of `segment`.
#[derive(Debug, Subcommand)]
pub enum SegmentCommand {
    /// Show a segment file: header, blocks, notes and footer
    Dump {
        /// The file
        file: PathBuf,
    },
}

/// Runs a verb.
pub async fn run(command: SegmentCommand, output: OutputFormat) -> anyhow::Result<()> {
    let SegmentCommand::Dump { file } = command;
    let bytes = read(&file).await.with_context(|| file.display().to_string())?;
    let report = inspect(&file.display().to_string(), bytes.into())?;
    let view = SegmentView::new(&report);
    print(output, &view, || view.text())
}

async fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = tokio::fs::metadata(file).await?.len();
    if bytes > SEGMENT_BYTES_MAX {
        anyhow::bail!("{bytes} bytes are above the limit of {SEGMENT_BYTES_MAX} bytes for a segment");
    }
    Ok(tokio::fs::read(file).await?)
}

/// A segment as `--output json` shows it.
#[derive(Serialize)]
struct SegmentView {
    topic_id: String,
    partition: u32,
    base_offset: u64,
    end_offset: u64,
    record_count: u64,
    epoch: u64,
    created_at_ms: i64,
    min_timestamp_ms: i64,
    max_timestamp_ms: i64,
    raw_bytes: u64,
    stored_bytes: u64,
    blocks: Vec<BlockView>,
    pipelines: Vec<PipelineView>,
    producer_count: usize,
}

#[derive(Serialize)]
struct BlockView {
    position: u64,
    first_offset: u64,
    batch_count: u32,
    raw_bytes: u32,
    stored_bytes: u32,
    codec: String,
    max_timestamp_ms: i64,
}

#[derive(Serialize)]
struct PipelineView {
    first_offset: u64,
    version: u64,
}

impl SegmentView {
    fn new(report: &SegmentReport) -> SegmentView {
        let SegmentReport {
            header,
            footer,
            blocks,
            notes,
        } = report;
        let blocks: Vec<_> = blocks
            .iter()
            .map(|block| BlockView {
                position: block.position,
                first_offset: block.first_offset.0,
                batch_count: block.batch_count,
                raw_bytes: block.raw_len,
                stored_bytes: block.stored_len,
                codec: block.codec.to_string(),
                max_timestamp_ms: block.max_timestamp_ms,
            })
            .collect();
        let pipelines = notes
            .pipelines
            .iter()
            .map(|range| PipelineView {
                first_offset: range.first_offset.0,
                version: range.version,
            })
            .collect();
        SegmentView {
            topic_id: header.topic_id.to_string(),
            partition: header.partition,
            base_offset: header.base_offset.0,
            end_offset: footer.end_offset.0,
            record_count: footer.record_count,
            epoch: header.epoch.0,
            created_at_ms: header.created_at_ms,
            min_timestamp_ms: footer.min_timestamp_ms,
            max_timestamp_ms: footer.max_timestamp_ms,
            raw_bytes: blocks.iter().map(|block| u64::from(block.raw_bytes)).sum(),
            stored_bytes: blocks.iter().map(|block| u64::from(block.stored_bytes)).sum(),
            blocks,
            pipelines,
            producer_count: notes.producers.producers.len(),
        }
    }

    fn text(&self) -> String {
        let facts = [
            ("topic id", self.topic_id.clone()),
            ("partition", self.partition.to_string()),
            ("offsets", format!("{} to {}", self.base_offset, self.end_offset)),
            ("records", HumanCount(self.record_count).to_string()),
            ("epoch", self.epoch.to_string()),
            ("created", show_time(self.created_at_ms)),
            (
                "timestamps",
                format!(
                    "{} to {}",
                    show_time(self.min_timestamp_ms),
                    show_time(self.max_timestamp_ms)
                ),
            ),
            ("batches, raw", BinaryBytes(self.raw_bytes).to_string()),
            ("batches, stored", BinaryBytes(self.stored_bytes).to_string()),
            ("pipeline versions", self.pipelines_text()),
            ("producers", self.producer_count.to_string()),
        ];
        let facts = facts.into_iter().map(|(name, fact)| vec![name.to_owned(), fact]);
        let facts = table(&[Column::Left("segment"), Column::Left("")], facts);
        format!("{facts}\n{}", self.block_table())
    }

    fn pipelines_text(&self) -> String {
        let ranges: Vec<_> = self
            .pipelines
            .iter()
            .map(|range| format!("{} from offset {}", range.version, range.first_offset))
            .collect();
        ranges.join(", ")
    }

    fn block_table(&self) -> String {
        let columns = [
            Column::Right("block"),
            Column::Right("position"),
            Column::Right("first offset"),
            Column::Right("batches"),
            Column::Right("raw"),
            Column::Right("stored"),
            Column::Left("codec"),
            Column::Left("latest record"),
        ];
        let rows = self.blocks.iter().enumerate().map(|(i, block)| {
            vec![
                i.to_string(),
                block.position.to_string(),
                block.first_offset.to_string(),
                block.batch_count.to_string(),
                BinaryBytes(block.raw_bytes.into()).to_string(),
                BinaryBytes(block.stored_bytes.into()).to_string(),
                block.codec.clone(),
                show_time(block.max_timestamp_ms),
            ]
        });
        table(&columns, rows)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millstream_batch::{BatchBuilder, Compression, Epoch, Offset};
    use millstream_log::{BlockSettings, SegmentIdentity, SegmentWriter};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_written_segment_is_shown_as_it_is() {
        let identity = SegmentIdentity {
            topic_id: Uuid::from_u128(7),
            partition: 3,
            base_offset: Offset(100),
            epoch: Epoch(2),
            created_at_ms: 1_735_689_600_000,
        };
        let mut builder = BatchBuilder::new();
        for i in 0..10 {
            builder.push(1_735_689_600_000 + i, None, Some(b"value"), std::iter::empty());
        }
        let mut batch = builder.build(Compression::None);
        batch.stamp(Offset(100), Epoch(2));
        let settings = BlockSettings {
            compression: Compression::Lz4,
            ..BlockSettings::default()
        };
        let mut writer = SegmentWriter::new(identity, settings);
        writer.append(&batch, 4).unwrap();
        let bytes: Bytes = writer.finish().unwrap().parts.concat().into();

        let view = SegmentView::new(&inspect("seg", bytes).unwrap());

        assert_eq!((view.base_offset, view.end_offset, view.record_count), (100, 110, 10));
        assert_eq!(
            (view.blocks.len(), view.pipelines_text()),
            (1, "4 from offset 100".to_owned())
        );
        let text = view.text();
        assert!(
            text.contains("100 to 110") && text.contains("2025-01-01T00:00:00Z"),
            "{text}"
        );
    }
}
