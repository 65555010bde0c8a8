//! The logs under one directory.

use std::sync::Arc;

use super::*;
use crate::error::LogError;

const OTHER: Uuid = Uuid::from_u128(0x0ed);

fn wals(dir: &Path) -> DiskWals {
    DiskWals::new(DiskWalsSettings {
        file_bytes: 4 << 10,
        ..DiskWalsSettings::new(dir.join("wal"))
    })
}

async fn write(wal: &Arc<dyn Wal>, frames: &[Frame]) {
    for frame in frames {
        wal.submit(frame.clone()).await.unwrap().await.unwrap();
    }
}

#[tokio::test]
async fn a_log_of_an_earlier_incarnation_is_found_read_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let wals = wals(dir.path());
    assert!(wals.list().await.unwrap().is_empty());
    assert!(!wals.exists(WAL_ID).await.unwrap());

    let frames: Vec<Frame> = (0..40).map(|index| frame(index * 10, 10)).collect();
    let wal = wals.create(WAL_ID).await.unwrap();
    write(&wal, &frames).await;
    wal.close().await;
    wals.create(OTHER).await.unwrap().close().await;
    std::fs::create_dir(dir.path().join("wal/lost+found")).unwrap();
    assert_eq!(wals.list().await.unwrap(), [OTHER, WAL_ID]);
    assert!(wals.exists(WAL_ID).await.unwrap());

    wals.seal(WAL_ID, OTHER, 0).await.unwrap();
    let mut found = Vec::new();
    let mut visit = |frame| {
        found.push(frame);
        Ok(())
    };
    let summary = wals.replay(WAL_ID, 0, &mut visit).await.unwrap();
    assert_eq!((found, summary.frames), (frames, 40));

    wals.remove(WAL_ID).await.unwrap();
    wals.remove(WAL_ID).await.unwrap();
    assert_eq!(wals.list().await.unwrap(), [OTHER]);
}

#[tokio::test]
async fn a_visitor_that_fails_stops_the_replay_of_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let wals = wals(dir.path());
    let wal = wals.create(WAL_ID).await.unwrap();
    write(&wal, &[frame(0, 1), frame(1, 1)]).await;
    wal.close().await;
    let mut seen = 0;
    let mut visit = |_| {
        seen += 1;
        Err(LogError::WalClosed)
    };
    let stopped = wals.replay(WAL_ID, 0, &mut visit).await.unwrap_err();
    assert!(matches!(stopped, LogError::WalClosed), "{stopped}");
    assert_eq!(seen, 1);
}

#[tokio::test]
async fn a_log_that_is_not_here_is_no_empty_log() {
    let dir = tempfile::tempdir().unwrap();
    let replayed = wals(dir.path()).replay(WAL_ID, 0, &mut |_| Ok(())).await;
    assert!(matches!(replayed, Err(LogError::Io { .. })));
}

#[tokio::test]
async fn a_log_that_is_deleted_while_it_is_copied_from_is_an_error_and_no_shorter_log() {
    let dir = tempfile::tempdir().unwrap();
    let wals = wals(dir.path());
    let wal = wals.create(WAL_ID).await.unwrap();
    write(&wal, &(0..40).map(|index| frame(index * 10, 10)).collect::<Vec<_>>()).await;
    wal.close().await;
    let folder = dir.path().join("wal").join(WAL_ID.to_string());
    assert!(file_names(&folder).len() > 1);
    let replayed = replay(&folder, WAL_ID, |_| {
        let _ = std::fs::remove_dir_all(&folder);
        Ok(())
    });
    assert!(matches!(replayed, Err(LogError::Io { .. })), "{replayed:?}");
}

#[tokio::test]
async fn the_partitions_that_keep_the_oldest_files_are_named_beyond_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let wal = wals(dir.path()).create(WAL_ID).await.unwrap();
    write(&wal, &[frame_in(7, 0, 10)]).await;
    let mut base = 0;
    while wal.stats().bytes_stored < 5 * (4 << 10) {
        write(&wal, &[frame(base, 10)]).await;
        base += 10;
    }
    assert_eq!(wal.pinned_by(5 * (4 << 10)), []);
    assert_eq!(wal.pinned_by(4 * (4 << 10)), [(TOPIC, 0), (TOPIC, 7)]);
    wal.committed(TOPIC, 0, Offset(base));
    assert_eq!(
        wal.pinned_by(0),
        [(TOPIC, 7)],
        "what is in the file being written is not asked for"
    );
    let stats = wal.stats();
    assert_eq!((stats.groups, stats.frames), (base / 10 + 1, base / 10 + 1));
    assert!(stats.bytes_written > 4 * (4 << 10) - 4 * 300 && stats.bytes_written < 5 * (4 << 10));
    wal.close().await;
}

#[test]
fn a_group_is_decoded_whole_or_refused() {
    let mut payload = Vec::new();
    frame(0, 3).encode_into(&mut payload);
    frame(3, 0).encode_into(&mut payload);
    let header = group::GroupHeader {
        wal_id: WAL_ID,
        number: 0,
        position: 0,
        durable_end: 0,
        payload_len: payload.len() as u32,
        frame_count: 2,
    };
    let whole = [&header.encode(), payload.as_slice()].concat();
    assert_eq!(decode_group(&whole).unwrap(), [frame(0, 3), frame(3, 0)]);
    for length in 0..whole.len() {
        assert!(decode_group(&whole[..length]).is_err(), "{length} bytes");
    }
}
