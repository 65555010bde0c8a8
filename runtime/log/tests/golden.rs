//! Files of every version of the formats that was ever released stay readable, and this build still writes the same
//! bytes. With `MILLSTREAM_WRITE_GOLDEN=1` the files are written anew: only for a new version, under a new name.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use millstream_batch::{Batch, BatchBuilder, Compression, Epoch, Offset};
use millstream_log::segment::{
    PipelineRange, ProducerBatch, ProducerCheckpoint, ProducerState, SegmentReader, inspect,
};
use millstream_log::{
    BlockSettings, DiskWal, Fate, Frame, ObjectWalSettings, ObjectWals, Outcome, ProducerStamp, SegmentIdentity,
    SegmentWriter, Store, Wal, WalSettings, WalStore, replay,
};
use uuid::Uuid;

const TOPIC: Uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
const WAL_ID: Uuid = Uuid::from_u128(0xfedc_ba98_7654_3210_fedc_ba98_7654_3210);
const WAL_FILE: &str = "00000000000000000000.wal";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The golden file, or, when asked for, `bytes` written there first.
fn golden_bytes(name: &str, bytes: &[u8]) -> Bytes {
    let path = golden(name);
    if std::env::var_os("MILLSTREAM_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(&path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .into()
}

fn batch(base: u64, values: &[&str]) -> Batch {
    let mut builder = BatchBuilder::new();
    for (index, value) in (0..).zip(values) {
        let headers = [("source", Some(b"golden".as_slice())), ("empty", None)];
        builder.push(
            1_700_000_000_000 + index,
            Some(b"key"),
            Some(value.as_bytes()),
            headers.into_iter(),
        );
    }
    let mut batch = builder.build(Compression::None);
    batch.stamp(Offset(base), Epoch(6));
    batch
}

fn batches() -> Vec<Batch> {
    let repetitive = "the same again and ".repeat(20);
    vec![
        batch(1_000, &["first", "second"]),
        batch(1_002, &[&repetitive, &repetitive]),
        batch(1_004, &["last"]),
    ]
}

fn outcome() -> Outcome {
    [
        (1, Fate::Pipeline),
        (0, Fate::Skipped),
        (0, Fate::DeadLettered),
        (1, Fate::Passed),
        (300, Fate::Pipeline),
    ]
    .into_iter()
    .collect()
}

fn producers() -> ProducerCheckpoint {
    let answered = ProducerBatch {
        first_sequence: 5,
        last_sequence: 9,
        base_offset: Offset(1_003),
        outcome: outcome(),
    };
    ProducerCheckpoint {
        producers: vec![ProducerState {
            id: 77,
            epoch: 1,
            batches: vec![answered],
        }],
    }
}

fn segment(compression: Compression) -> Vec<u8> {
    let identity = SegmentIdentity {
        topic_id: TOPIC,
        partition: 9,
        base_offset: Offset(1_000),
        epoch: Epoch(6),
        created_at_ms: 1_700_000_100_000,
    };
    let mut writer = SegmentWriter::new(
        identity,
        BlockSettings {
            compression,
            raw_bytes_target: 256,
        },
    );
    for (batch, version) in batches().iter().zip([1, 1, 2]) {
        writer.append(batch, version).unwrap();
    }
    writer.set_producers(producers());
    writer.finish().unwrap().parts.concat()
}

async fn assert_segment(bytes: Bytes) {
    let report = inspect("golden", bytes.clone()).unwrap();
    assert_eq!(
        (report.footer.end_offset, report.footer.record_count),
        (Offset(1_005), 5)
    );
    let store = Store::memory();
    let length = bytes.len() as u64;
    store.put_new("golden", vec![bytes]).await.unwrap();
    let reader = SegmentReader::open(&store, "golden", length, None).await.unwrap();
    assert_eq!((reader.identity().topic_id, reader.identity().partition), (TOPIC, 9));
    let range = |first, version| PipelineRange {
        first_offset: Offset(first),
        version,
    };
    let notes = reader.notes().unwrap();
    assert_eq!(notes.pipelines, [range(1_000, 1), range(1_004, 2)]);
    assert_eq!(notes.producers, producers());
    let mut found = Vec::new();
    for block in 0..reader.block_count() {
        let mut raw = reader.read_block(&store, block).await.unwrap();
        while !raw.is_empty() {
            found.push(Batch::split_first(&mut raw).unwrap());
        }
    }
    assert_eq!(found, batches());
}

#[tokio::test]
async fn segments_of_version_1_are_read() {
    for (name, compression) in [
        ("segment_v1_none.bin", Compression::None),
        ("segment_v1_lz4.bin", Compression::Lz4),
        ("segment_v1_zstd.bin", Compression::Zstd),
    ] {
        assert_segment(golden_bytes(name, &segment(compression))).await;
    }
}

// What a compressor puts out may change with its version; so only the bytes of the uncompressed segment are fixed.
#[test]
fn segments_are_written_as_version_1_was() {
    let written = segment(Compression::None);
    assert_eq!(golden_bytes("segment_v1_none.bin", &written), written);
}

fn frames() -> Vec<Frame> {
    let frame = |base: u64, batch: Option<Batch>, producer| Frame {
        topic_id: TOPIC,
        partition: 9,
        epoch: Epoch(6),
        pipeline_version: 2,
        base_offset: Offset(base),
        producer,
        outcome: outcome(),
        batch,
    };
    let producer = ProducerStamp {
        id: 77,
        epoch: 1,
        first_sequence: 5,
        last_sequence: 9,
    };
    let mut frames: Vec<Frame> = batches()
        .into_iter()
        .map(|batch| frame(batch.base_offset().0, Some(batch), ProducerStamp::NONE))
        .collect();
    frames.push(frame(1_005, None, producer));
    frames
}

async fn written_wal() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let wal = DiskWal::create(
        WalSettings {
            file_bytes: 4 << 10,
            ..WalSettings::new(dir.path())
        },
        WAL_ID,
    )
    .unwrap();
    for frame in frames() {
        wal.submit(frame).await.unwrap().await.unwrap();
    }
    wal.close().await;
    std::fs::read(dir.path().join(WAL_FILE)).unwrap()
}

#[tokio::test]
async fn write_ahead_logs_of_version_1_are_replayed_and_written() {
    let written = written_wal().await;
    let bytes = golden_bytes("wal_v1.wal", &written);
    assert_eq!(bytes, written);

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(WAL_FILE), &bytes).unwrap();
    let mut found = Vec::new();
    let summary = replay(dir.path(), WAL_ID, |frame| {
        found.push(frame);
        Ok(())
    });
    assert_eq!(found, frames());
    assert_eq!((summary.clone().unwrap().groups, summary.unwrap().cut_bytes), (4, 0));
}

/// The keys of a log's first group and of what follows it.
fn wal_objects() -> [String; 2] {
    [0, 1].map(|number| format!("_wal/{WAL_ID}/{number:020}.wal"))
}

/// A group of all frames, and the seal behind it.
async fn written_objects() -> [Bytes; 2] {
    let store = Store::memory();
    let wals = ObjectWals::new(store.clone(), ObjectWalSettings::default());
    let wal = wals.create(WAL_ID).await.unwrap();
    let mut commits = Vec::new();
    for frame in frames() {
        commits.push(wal.submit(frame).await.unwrap());
    }
    wal.close().await;
    for commit in commits {
        commit.await.unwrap();
    }
    wals.seal(WAL_ID, TOPIC, 0).await.unwrap();
    let [group, seal] = wal_objects();
    [store.get(&group).await.unwrap(), store.get(&seal).await.unwrap()]
}

#[tokio::test]
async fn write_ahead_logs_in_objects_of_version_1_are_replayed_and_written() {
    let written = written_objects().await;
    let store = Store::memory();
    let names = ["wal_object_v1.wal", "wal_seal_v1.wal"];
    for ((name, written), key) in names.iter().zip(&written).zip(wal_objects()) {
        let bytes = golden_bytes(name, written);
        assert_eq!(&bytes, written, "{name}");
        store.put_new(&key, vec![bytes]).await.unwrap();
    }
    let mut found = Vec::new();
    let mut visit = |frame| {
        found.push(frame);
        Ok(())
    };
    let wals = ObjectWals::new(store, ObjectWalSettings::default());
    let summary = wals.replay(WAL_ID, 0, &mut visit).await.unwrap();
    assert_eq!((found, summary.groups, summary.cut_bytes), (frames(), 1, 0));
}
