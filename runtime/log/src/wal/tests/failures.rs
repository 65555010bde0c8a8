use super::*;
use crate::error::LogError;

/// Frames that fill the first file, so that the next group needs another.
async fn fill_first_file(wal: &DiskWal, dir: &Path) -> Vec<Frame> {
    let mut frames = vec![frame(0, 10)];
    let group_bytes = 64 + frames[0].encoded_len();
    for base in 1..(((4 << 10) - 64) / group_bytes) as u64 {
        frames.push(frame(base * 10, 10));
    }
    write_one_by_one(wal, &frames).await;
    assert_eq!(file_names(dir).len(), 1);
    frames
}

#[tokio::test]
async fn a_full_disk_fails_the_group_that_needs_a_new_file_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, faults) = FaultyDisk::new();
    let wal = DiskWal::create_on(disk, settings(dir.path()), WAL_ID).unwrap();
    let mut frames = fill_first_file(&wal, dir.path()).await;
    let next = frames.len() as u64 * 10;

    faults.lock().unwrap().create = Some(io::ErrorKind::StorageFull);
    let error = wal.submit(frame(next, 10)).await.unwrap().await.unwrap_err();
    assert!(error.is_disk_full(), "{error}");
    assert!(
        error.to_string().contains("the disk is full, 4096 bytes are needed"),
        "{error}"
    );
    assert_eq!(*wal.failure().borrow(), None);

    faults.lock().unwrap().create = None;
    frames.push(frame(next, 10));
    write_one_by_one(&wal, &frames[frames.len() - 1..]).await;
    wal.close().await;
    assert_eq!(replayed(dir.path()).unwrap().0, frames);
}

#[tokio::test]
async fn frames_behind_a_failed_one_fail_until_their_partition_starts_again_there() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, faults) = FaultyDisk::new();
    let wal = DiskWal::create_on(disk, settings(dir.path()), WAL_ID).unwrap();
    let mut frames = fill_first_file(&wal, dir.path()).await;
    let next = frames.len() as u64 * 10;

    faults.lock().unwrap().create = Some(io::ErrorKind::StorageFull);
    wal.submit(frame(next, 10)).await.unwrap().await.unwrap_err();
    faults.lock().unwrap().create = None;
    let behind = wal.submit(frame(next + 10, 10)).await.unwrap();
    let elsewhere = wal.submit(frame_in(1, 500, 10)).await.unwrap();
    assert!(behind.await.unwrap_err().is_disk_full());
    elsewhere.await.unwrap();
    frames.push(frame_in(1, 500, 10));
    frames.extend([frame(next, 5), frame(next + 5, 5)]);
    write_one_by_one(&wal, &frames[frames.len() - 2..]).await;
    wal.close().await;
    assert_eq!(replayed(dir.path()).unwrap().0, frames);
}

async fn assert_poisoned(wal: DiskWal, dir: &Path) {
    let mut failure = wal.failure();
    let error = wal.submit(frame(1, 1)).await.unwrap().await.unwrap_err();
    assert!(matches!(&error, LogError::WalPoisoned { .. }), "{error}");
    let reason = failure.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(error.to_string().contains(&reason), "{error} does not say {reason}");
    assert!(matches!(
        wal.submit(frame(2, 1)).await,
        Err(LogError::WalPoisoned { .. })
    ));
    wal.close().await;
    let (found, _) = replayed(dir).unwrap();
    assert_eq!(found[0], frame(0, 1));
}

#[tokio::test]
async fn a_failed_write_takes_the_log_out_of_use() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, faults) = FaultyDisk::new();
    let wal = DiskWal::create_on(disk, settings(dir.path()), WAL_ID).unwrap();
    write_one_by_one(&wal, &[frame(0, 1)]).await;
    faults.lock().unwrap().write = Some(io::ErrorKind::TimedOut);
    assert_poisoned(wal, dir.path()).await;
}

#[tokio::test]
async fn a_failed_sync_takes_the_log_out_of_use_and_is_not_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, faults) = FaultyDisk::new();
    let wal = DiskWal::create_on(disk, settings(dir.path()), WAL_ID).unwrap();
    write_one_by_one(&wal, &[frame(0, 1)]).await;
    faults.lock().unwrap().sync = Some(io::ErrorKind::StorageFull);
    assert_poisoned(wal, dir.path()).await;
}

#[tokio::test]
async fn a_failed_background_sync_takes_the_log_out_of_use() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, faults) = FaultyDisk::new();
    let sync = SyncPolicy::Interval(std::time::Duration::from_millis(1));
    let wal = DiskWal::create_on(
        disk,
        WalSettings {
            sync,
            ..settings(dir.path())
        },
        WAL_ID,
    )
    .unwrap();
    faults.lock().unwrap().sync = Some(io::ErrorKind::TimedOut);
    write_one_by_one(&wal, &[frame(0, 1)]).await;
    wal.failure().wait_for(Option::is_some).await.unwrap();
    assert!(matches!(
        wal.submit(frame(1, 1)).await,
        Err(LogError::WalPoisoned { .. })
    ));
    wal.close().await;
}

#[tokio::test]
async fn a_committer_that_panics_takes_the_log_out_of_use() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, faults) = FaultyDisk::new();
    let wal = DiskWal::create_on(disk, settings(dir.path()), WAL_ID).unwrap();
    write_one_by_one(&wal, &[frame(0, 1)]).await;
    faults.lock().unwrap().panics = true;
    wal.submit(frame(1, 1)).await.unwrap().await.unwrap_err();
    assert_told_of_end(wal, "committer").await;
}

#[tokio::test]
async fn a_keeper_that_panics_takes_the_log_out_of_use() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, faults) = FaultyDisk::new();
    let sync = SyncPolicy::Never;
    let wal = DiskWal::create_on(
        disk,
        WalSettings {
            sync,
            ..settings(dir.path())
        },
        WAL_ID,
    )
    .unwrap();
    write_one_by_one(&wal, &[frame(0, 1)]).await;
    faults.lock().unwrap().panics = true;
    // What is left is synced at the end.
    wal.close().await;
    assert_told_of_end(wal, "keeper").await;
}

async fn assert_told_of_end(wal: DiskWal, who: &str) {
    let mut failure = wal.failure();
    let reason = failure.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!(reason, format!("the {who} has ended before its time"));
    assert!(matches!(
        wal.submit(frame(2, 1)).await,
        Err(LogError::WalPoisoned { .. })
    ));
    wal.close().await;
}

#[tokio::test]
async fn a_closed_log_has_not_failed() {
    let dir = tempfile::tempdir().unwrap();
    let wal = DiskWal::create(settings(dir.path()), WAL_ID).unwrap();
    write_one_by_one(&wal, &[frame(0, 1)]).await;
    wal.close().await;
    assert_eq!(*wal.failure().borrow(), None);
}

#[tokio::test]
async fn everyone_who_waits_is_told_of_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, faults) = FaultyDisk::new();
    let wal = DiskWal::create_on(disk, settings(dir.path()), WAL_ID).unwrap();
    let (syncing, allow) = faults.lock().unwrap().close_gate();
    let mut commits = vec![wal.submit(frame(0, 1)).await.unwrap()];
    syncing.recv().unwrap();
    commits.push(wal.submit(frame(1, 1)).await.unwrap());
    commits.push(wal.submit(frame_in(4, 1, 1)).await.unwrap());
    faults.lock().unwrap().sync = Some(io::ErrorKind::TimedOut);
    drop((syncing, allow));
    for commit in commits {
        assert!(matches!(commit.await, Err(LogError::WalPoisoned { .. })));
    }
    wal.close().await;
}

#[test]
fn a_log_that_finds_no_room_at_all_is_not_created() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, faults) = FaultyDisk::new();
    faults.lock().unwrap().create = Some(io::ErrorKind::StorageFull);
    assert!(
        DiskWal::create_on(disk, settings(dir.path()), WAL_ID)
            .unwrap_err()
            .is_disk_full()
    );
    assert!(file_names(dir.path()).is_empty());
}
