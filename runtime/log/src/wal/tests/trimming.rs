use super::*;

/// A log of several files; each holds frames of partition 0, and the second one also a frame of partition 1.
async fn log_of_files(dir: &Path) -> (DiskWal, Vec<Frame>) {
    let wal = DiskWal::create(settings(dir), WAL_ID).unwrap();
    let mut frames = Vec::new();
    let mut base = 0;
    while file_names(dir).len() < 5 {
        let straggler = file_names(dir).len() == 2 && !frames.iter().any(|frame: &Frame| frame.partition == 1);
        let next = if straggler {
            frame_in(1, 70, 10)
        } else {
            frame(base, 10)
        };
        base += if straggler { 0 } else { 10 };
        write_one_by_one(&wal, std::slice::from_ref(&next)).await;
        frames.push(next);
    }
    (wal, frames)
}

/// What is left once everything that was asked for has happened.
async fn left_in(dir: &Path, wal: DiskWal) -> Vec<Frame> {
    wal.close().await;
    replayed(dir).unwrap().0
}

#[tokio::test]
async fn files_go_once_all_their_frames_are_in_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, frames) = log_of_files(dir.path()).await;
    wal.committed(TOPIC, 0, Offset(u64::MAX));
    wal.committed(TOPIC, 1, Offset(79));
    let left = left_in(dir.path(), wal).await;
    assert_eq!(
        file_names(dir.path()).len(),
        4,
        "the second file holds offset 79 of partition 1"
    );
    assert_eq!(left, frames[frames.len() - left.len()..]);
    assert!(left.iter().any(|frame| frame.partition == 1));
}

#[tokio::test]
async fn the_file_being_written_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, frames) = log_of_files(dir.path()).await;
    wal.committed(TOPIC, 1, Offset(80));
    wal.committed(TOPIC, 0, Offset(u64::MAX));
    let left = left_in(dir.path(), wal).await;
    assert_eq!(file_names(dir.path()).len(), 1);
    assert_eq!(left, frames[frames.len() - 1..]);
}

#[tokio::test]
async fn a_log_whose_files_were_deleted_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, frames) = log_of_files(dir.path()).await;
    wal.committed(TOPIC, 0, Offset(u64::MAX));
    wal.committed(TOPIC, 1, Offset(u64::MAX));
    let next = frame_in(2, 0, 1);
    write_one_by_one(&wal, std::slice::from_ref(&next)).await;
    let left = left_in(dir.path(), wal).await;
    assert_eq!(left, [frames[frames.len() - 1].clone(), next]);
}

#[tokio::test]
async fn the_frames_of_a_deleted_topic_hold_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = log_of_files(dir.path()).await;
    wal.forget_topic(TOPIC);
    left_in(dir.path(), wal).await;
    assert_eq!(file_names(dir.path()).len(), 1);
}

#[tokio::test]
async fn a_frame_without_a_batch_is_needed_until_a_segment_goes_beyond_it() {
    let dir = tempfile::tempdir().unwrap();
    let wal = DiskWal::create(settings(dir.path()), WAL_ID).unwrap();
    write_one_by_one(&wal, &[frame(50, 0)]).await;
    while file_names(dir.path()).len() < 2 {
        write_one_by_one(&wal, &[frame_in(1, 0, 50)]).await;
    }
    wal.committed(TOPIC, 1, Offset(50));
    wal.committed(TOPIC, 0, Offset(50));
    let before = wal.stats().bytes_stored;
    wal.committed(TOPIC, 0, Offset(51));
    left_in(dir.path(), wal).await;
    assert_eq!((before, file_names(dir.path()).len()), (2 * (4 << 10), 1));
}
