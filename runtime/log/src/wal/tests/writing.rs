use proptest::prelude::*;

use super::*;
use crate::error::LogError;
use crate::outcome::Run;
use crate::wal::disk::{LogFile, NextGroup};
use crate::wal::frame::split_frame;

/// The headers of all groups in the file of this number, with how many bytes of it they take.
fn group_marks(dir: &Path, number: usize) -> Vec<(u64, u64)> {
    let files = crate::wal::disk::wal_files(dir).unwrap();
    let mut file = LogFile::open(&files[number].1).unwrap();
    file.header().unwrap().unwrap();
    let mut marks = Vec::new();
    while let NextGroup::Whole(header) = file.next_group(&mut Vec::new()).unwrap() {
        marks.push((header.position, header.durable_end));
    }
    marks
}

#[tokio::test]
async fn frames_come_back_as_they_were_in_the_order_they_were_submitted() {
    let dir = tempfile::tempdir().unwrap();
    let frames = [frame(0, 3), frame_in(9, 40, 1), frame(3, 0), frame(3, 100)];
    let wal = DiskWal::create(settings(dir.path()), WAL_ID).unwrap();
    write_one_by_one(&wal, &frames).await;
    wal.close().await;
    let (found, summary) = replayed(dir.path()).unwrap();
    assert_eq!(found, frames);
    assert_eq!((summary.groups, summary.frames, summary.cut_bytes), (4, 4, 0));
}

#[tokio::test]
async fn everything_queued_during_a_sync_goes_into_one_group() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, faults) = FaultyDisk::new();
    let wal = DiskWal::create_on(disk, settings(dir.path()), WAL_ID).unwrap();
    let (syncing, allow) = faults.lock().unwrap().close_gate();
    let mut commits = vec![wal.submit(frame(0, 1)).await.unwrap()];
    syncing.recv().unwrap();
    for base in 1..10 {
        commits.push(wal.submit(frame(base, 1)).await.unwrap());
    }
    drop((syncing, allow));
    for commit in commits {
        commit.await.unwrap();
    }
    wal.close().await;
    let (found, summary) = replayed(dir.path()).unwrap();
    assert_eq!(found, (0..10).map(|base| frame(base, 1)).collect::<Vec<_>>());
    assert_eq!(summary.groups, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_many_callers_keep_the_order_of_each() {
    let dir = tempfile::tempdir().unwrap();
    let wal = DiskWal::create(settings(dir.path()), WAL_ID).unwrap();
    let submit_all = |partition: u32| {
        let wal = wal.clone();
        async move {
            let mut commits = Vec::new();
            for base in 0..50 {
                commits.push(wal.submit(frame_in(partition, base, 1)).await.unwrap());
            }
            futures::future::try_join_all(commits).await.unwrap();
        }
    };
    let callers: Vec<_> = (0..8).map(|partition| tokio::spawn(submit_all(partition))).collect();
    for caller in callers {
        caller.await.unwrap();
    }
    wal.close().await;
    let (found, summary) = replayed(dir.path()).unwrap();
    assert_eq!(summary.frames, 400);
    for partition in 0..8 {
        let of_caller = found.iter().filter(|frame| frame.partition == partition);
        assert!(of_caller.map(|frame| frame.base_offset.0).eq(0..50));
    }
}

#[tokio::test]
async fn a_group_stays_within_its_limit_unless_one_frame_is_larger() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, faults) = FaultyDisk::new();
    let settings = WalSettings {
        group_bytes_max: 2 * frame(0, 1).encoded_len(),
        ..settings(dir.path())
    };
    let wal = DiskWal::create_on(disk, settings, WAL_ID).unwrap();
    let (syncing, allow) = faults.lock().unwrap().close_gate();
    let mut commits = vec![wal.submit(frame(0, 1)).await.unwrap()];
    syncing.recv().unwrap();
    for (base, count) in [(1, 1), (2, 1), (3, 1), (4, 50), (54, 1)] {
        commits.push(wal.submit(frame(base, count)).await.unwrap());
    }
    drop((syncing, allow));
    for commit in commits {
        commit.await.unwrap();
    }
    wal.close().await;
    assert_eq!(replayed(dir.path()).unwrap().1.groups, 5);
}

#[tokio::test]
async fn a_log_goes_on_in_a_new_file_when_one_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let wal = DiskWal::create(settings(dir.path()), WAL_ID).unwrap();
    let frames: Vec<Frame> = (0..60).map(|index| frame(index * 10, 10)).collect();
    write_one_by_one(&wal, &frames).await;
    assert_eq!(
        wal.stats().bytes_stored,
        file_names(dir.path()).len() as u64 * (4 << 10)
    );
    wal.close().await;
    assert!(file_names(dir.path()).len() > 3);
    assert_eq!(file_names(dir.path())[0], "00000000000000000000.wal");
    assert_eq!(replayed(dir.path()).unwrap().0, frames);
}

#[tokio::test]
async fn a_group_larger_than_a_file_gets_a_larger_file() {
    let dir = tempfile::tempdir().unwrap();
    let wal = DiskWal::create(settings(dir.path()), WAL_ID).unwrap();
    let frames = [frame(0, 1), frame(1, 2_000), frame(2_001, 1)];
    write_one_by_one(&wal, &frames).await;
    wal.close().await;
    assert_eq!(file_names(dir.path()).len(), 3);
    assert_eq!(replayed(dir.path()).unwrap().0, frames);
}

#[tokio::test]
async fn a_first_group_larger_than_a_file_makes_it_longer() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, faults) = FaultyDisk::new();
    let wal = DiskWal::create_on(disk, settings(dir.path()), WAL_ID).unwrap();
    faults.lock().unwrap().create = Some(io::ErrorKind::StorageFull);
    assert!(
        wal.submit(frame(0, 2_000))
            .await
            .unwrap()
            .await
            .unwrap_err()
            .is_disk_full()
    );
    faults.lock().unwrap().create = None;
    let frames = [frame(0, 2_000), frame(2_000, 1)];
    write_one_by_one(&wal, &frames).await;
    let bytes_on_disk = wal.stats().bytes_stored;
    wal.close().await;
    assert_eq!(file_names(dir.path()).len(), 2);
    let lengths: u64 = file_names(dir.path())
        .iter()
        .map(|name| dir.path().join(name).metadata().unwrap().len())
        .sum();
    assert_eq!(bytes_on_disk, lengths);
    assert_eq!(replayed(dir.path()).unwrap().0, frames);
}

#[tokio::test]
async fn a_synced_group_knows_that_the_one_before_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let wal = DiskWal::create(settings(dir.path()), WAL_ID).unwrap();
    write_one_by_one(&wal, &[frame(0, 1), frame(1, 1), frame(2, 1)]).await;
    wal.close().await;
    let marks = group_marks(dir.path(), 0);
    assert_eq!(marks.len(), 3);
    assert!(marks.iter().all(|(position, durable_end)| position == durable_end));
}

#[tokio::test]
async fn without_syncs_no_group_claims_that_anything_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let wal = DiskWal::create(
        WalSettings {
            sync: SyncPolicy::Never,
            ..settings(dir.path())
        },
        WAL_ID,
    )
    .unwrap();
    write_one_by_one(&wal, &[frame(0, 1), frame(1, 1), frame(2, 1)]).await;
    wal.close().await;
    assert!(
        group_marks(dir.path(), 0)
            .iter()
            .all(|(_, durable_end)| *durable_end == 0)
    );
}

#[tokio::test]
async fn under_an_interval_answers_come_before_the_sync_and_marks_after_it() {
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
    let (syncing, allow) = faults.lock().unwrap().close_gate();
    write_one_by_one(&wal, &[frame(0, 1)]).await;
    syncing.recv().unwrap();
    write_one_by_one(&wal, &[frame(1, 1)]).await;
    // The sync of the first group ends; that of the second is only asked for once the first one's is accounted for.
    allow.send(()).unwrap();
    syncing.recv().unwrap();
    write_one_by_one(&wal, &[frame(2, 1)]).await;
    drop((syncing, allow));
    wal.close().await;
    let marks = group_marks(dir.path(), 0);
    assert_eq!((marks[0].1, marks[1].1), (0, 0));
    assert!(
        marks[2].1 == marks[1].0,
        "the first group was synced before the third was written"
    );
}

#[tokio::test]
async fn a_closed_log_has_written_everything_and_takes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let wal = DiskWal::create(settings(dir.path()), WAL_ID).unwrap();
    let other = wal.clone();
    let commit = wal.submit(frame(0, 1)).await.unwrap();
    wal.close().await;
    commit.await.unwrap();
    assert!(matches!(other.submit(frame(1, 1)).await, Err(LogError::WalClosed)));
    assert_eq!(replayed(dir.path()).unwrap().0, [frame(0, 1)]);
}

#[tokio::test]
async fn a_dropped_log_still_answers_what_was_queued() {
    let dir = tempfile::tempdir().unwrap();
    let wal = DiskWal::create(settings(dir.path()), WAL_ID).unwrap();
    let commit = wal.submit(frame(0, 1)).await.unwrap();
    drop(wal);
    commit.await.unwrap();
}

#[tokio::test]
async fn a_directory_with_a_log_takes_no_second_one() {
    let dir = tempfile::tempdir().unwrap();
    let wal = DiskWal::create(settings(dir.path()), WAL_ID).unwrap();
    assert!(matches!(
        DiskWal::create(settings(dir.path()), WAL_ID),
        Err(LogError::WalExists { .. })
    ));
    wal.close().await;
}

#[tokio::test]
async fn a_frame_that_names_another_offset_than_its_batch_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let wal = DiskWal::create(settings(dir.path()), WAL_ID).unwrap();
    let mismatched = Frame {
        base_offset: Offset(5),
        ..frame(0, 1)
    };
    assert!(matches!(
        wal.submit(mismatched).await,
        Err(LogError::FrameMismatch { .. })
    ));
    wal.close().await;
}

#[test]
fn settings_out_of_bounds_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let error = DiskWal::create(
        WalSettings {
            group_bytes_max: 0,
            ..settings(dir.path())
        },
        WAL_ID,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "write-ahead log settings: group_bytes_max is 0, allowed are 1 to 134217728"
    );
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let runs = proptest::collection::vec((any::<u32>(), 1..1000u32), 0..5);
    let ids = (any::<u128>(), any::<u32>(), any::<u64>(), any::<u64>());
    let producer = (any::<i64>(), any::<i16>(), any::<i32>(), any::<i32>());
    (ids, producer, runs, 0..1u64 << 40, 0..4u32).prop_map(|(ids, producer, runs, base, count)| {
        let mut outcome = Outcome::default();
        for (emitted, length) in runs {
            outcome.push_run(Run {
                emitted,
                fate: Fate::DeadLettered,
                length,
            });
        }
        let (id, epoch, first_sequence, last_sequence) = producer;
        Frame {
            topic_id: Uuid::from_u128(ids.0),
            partition: ids.1,
            epoch: Epoch(ids.2),
            pipeline_version: ids.3,
            base_offset: Offset(base),
            producer: ProducerStamp {
                id,
                epoch,
                first_sequence,
                last_sequence,
            },
            outcome,
            batch: (count > 0).then(|| batch(base, count)),
        }
    })
}

proptest! {
    #[test]
    fn frames_round_trip(frame in any_frame()) {
        let mut bytes = Vec::new();
        frame.encode_into(&mut bytes);
        prop_assert_eq!(bytes.len(), frame.encoded_len());
        let mut rest = bytes.as_slice();
        prop_assert_eq!(Frame::decode(split_frame(&mut rest).unwrap()).unwrap(), frame);
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn any_bytes_are_a_frame_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = split_frame(&mut bytes.as_slice());
        let _ = Frame::decode(&bytes);
        let _ = Frame::decode(&[&[1u8], bytes.as_slice()].concat());
    }
}
