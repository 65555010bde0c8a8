use futures::poll;
use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn frames_come_back_as_they_were_in_the_order_they_were_submitted() {
    let wals = wals(Store::memory());
    let wal = wals.create(WAL_ID).await.unwrap();
    let written = [frame(0, 3), frame_in(9, 40, 1), frame(3, 0), frame(3, 100)];
    write(&*wal, &written[..2]).await;
    write(&*wal, &written[2..]).await;
    wal.close().await;
    let (found, summary) = replayed(&wals, 0).await.unwrap();
    assert_eq!(found, written);
    assert_eq!((summary.groups, summary.frames, summary.cut_bytes), (2, 4, 0));
    let stats = wal.stats();
    assert_eq!((stats.groups, stats.frames), (2, 4));
    assert_eq!(
        (stats.bytes_written, stats.bytes_stored),
        (summary.durable_end, summary.durable_end)
    );
}

#[tokio::test(start_paused = true)]
async fn a_frame_waits_for_the_flush_interval_and_no_longer() {
    let wals = wals(Store::memory());
    let wal = wals.create(WAL_ID).await.unwrap();
    for start in [0, 1] {
        let before = Instant::now();
        write(&*wal, &[frame(start, 1)]).await;
        assert_eq!(before.elapsed(), INTERVAL);
        tokio::time::sleep(INTERVAL * 7 / 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_object_is_put_at_once() {
    let wals = wals_of_single_frames(Store::memory());
    let wal = wals.create(WAL_ID).await.unwrap();
    let before = Instant::now();
    write(&*wal, &frames(10)).await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(replayed(&wals, 0).await.unwrap().1.groups, 10);
}

#[tokio::test(start_paused = true)]
async fn an_object_stays_within_its_bytes_unless_one_frame_is_larger() {
    let store = Store::memory();
    let settings = ObjectWalSettings {
        flush_bytes: 2 * frame(0, 1).encoded_len(),
        ..ObjectWalSettings::default()
    };
    let wals = ObjectWals::new(store, settings);
    let wal = wals.create(WAL_ID).await.unwrap();
    let written = [frame(0, 1), frame(1, 1), frame(2, 1), frame(3, 50), frame(53, 1)];
    write(&*wal, &written).await;
    let (found, summary) = replayed(&wals, 0).await.unwrap();
    assert_eq!((found.as_slice(), summary.groups), (written.as_slice(), 4));
}

#[tokio::test(start_paused = true)]
async fn an_idle_log_asks_nothing_of_the_store() {
    let (store, faulty) = over(&Arc::default(), |_| DONE);
    let wals = wals(store);
    let wal = wals.create(WAL_ID).await.unwrap();
    tokio::time::sleep(INTERVAL * 1_000).await;
    assert_eq!(faulty.requests(), 0);
    write(&*wal, &[frame(0, 1)]).await;
    tokio::time::sleep(INTERVAL * 1_000).await;
    assert_eq!(faulty.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_puts_does_not_grow_with_the_partitions() {
    let mut puts = Vec::new();
    for partitions in [1, 100, 1_000] {
        let (store, faulty) = over(&Arc::default(), |_| DONE);
        let wals = wals(store);
        let wal = wals.create(WAL_ID).await.unwrap();
        for round in 0..10 {
            let of_round: Vec<Frame> = (0..partitions).map(|partition| frame_in(partition, round, 1)).collect();
            write(&*wal, &of_round).await;
        }
        puts.push(faulty.requests());
    }
    assert_eq!(puts, [10, 10, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_durable_ack_is_not_given_by_an_empty_flush() {
    let (store, _) = over(&Arc::default(), |_| Fault::Slow(INTERVAL * 50));
    let wals = wals(store);
    let wal = wals.create(WAL_ID).await.unwrap();
    let mut commit = wal.submit(frame(0, 1)).await.unwrap();
    // Many intervals pass, in which there is nothing more to flush.
    tokio::time::sleep(INTERVAL * 40).await;
    assert!(poll!(&mut commit).is_pending());
    assert_eq!(replayed(&wals, 0).await.unwrap().0, []);
    commit.await.unwrap();
    assert_eq!(replayed(&wals, 0).await.unwrap().0, [frame(0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn answers_keep_their_order_when_the_puts_do_not() {
    let delays = [5, 1, 3, 1].map(|intervals| Fault::Slow(INTERVAL * intervals));
    let (store, _) = over(&Arc::default(), move |put| delays.get(put).copied().unwrap_or(DONE));
    let wal = wals_of_single_frames(store).create(WAL_ID).await.unwrap();
    let started = Instant::now();
    let answered_after = frames(5).into_iter().map(|frame| {
        let wal = wal.clone();
        async move {
            wal.submit(frame).await.unwrap().await.unwrap();
            started.elapsed()
        }
    });
    let answered_after = futures::future::join_all(answered_after).await;
    assert_eq!(
        answered_after,
        [INTERVAL * 5; 5],
        "the fifth starts when the first has ended"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_behind_a_missing_number_is_not_acknowledged() {
    let objects = Arc::default();
    let (store, faulty) = over(&objects, |put| if put == 0 { Fault::Lost } else { DONE });
    let wal = wals_of_single_frames(store).create(WAL_ID).await.unwrap();
    let mut commits = Vec::new();
    for frame in frames(6) {
        commits.push(wal.submit(frame).await.unwrap());
    }
    tokio::time::sleep(INTERVAL * 100).await;
    assert_eq!(faulty.requests(), 4, "no more are put than may be in flight");
    for commit in &mut commits {
        assert!(poll!(commit).is_pending());
    }
    let wals = wals(Store::over(objects));
    let (found, summary) = replayed(&wals, 0).await.unwrap();
    assert_eq!(found, []);
    assert_eq!(summary.cut_bytes, 3 * (64 + frame(0, 1).encoded_len() as u64));
}

#[tokio::test(start_paused = true)]
async fn submitting_waits_while_the_store_does_not_answer_and_the_queue_is_full() {
    let (store, _) = over(&Arc::default(), |_| Fault::Lost);
    let wal = wals(store).create(WAL_ID).await.unwrap();
    // Each counts as 1 KiB at least.
    let mut commits = Vec::new();
    for base in 0..(crate::wal::QUEUE_BYTES_MAX >> 10) as u64 {
        commits.push(wal.submit(frame(base, 1)).await.unwrap());
    }
    assert!(poll!(&mut wal.submit(frame(0, 1))).is_pending());
}

#[tokio::test(start_paused = true)]
async fn a_closed_log_has_put_everything_and_takes_nothing_more() {
    let wals = wals(Store::memory());
    let wal = wals.create(WAL_ID).await.unwrap();
    let mut commits = Vec::new();
    for frame in frames(100) {
        commits.push(wal.submit(frame).await.unwrap());
    }
    let before = Instant::now();
    wal.close().await;
    assert_eq!(before.elapsed(), Duration::ZERO, "closing waits for no interval");
    futures::future::try_join_all(commits).await.unwrap();
    assert!(matches!(wal.submit(frame(100, 1)).await, Err(LogError::WalClosed)));
    wal.close().await;
    assert_eq!(replayed(&wals, 0).await.unwrap().0, frames(100));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_log_still_answers_what_was_queued() {
    let wal = wals(Store::memory()).create(WAL_ID).await.unwrap();
    let commit = wal.submit(frame(0, 1)).await.unwrap();
    drop(wal);
    commit.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_log_is_created_once_and_with_settings_within_bounds() {
    let store = Store::memory();
    let wals = wals(store.clone());
    let wal = wals.create(WAL_ID).await.unwrap();
    write(&*wal, &[frame(0, 1)]).await;
    assert!(matches!(wals.create(WAL_ID).await, Err(LogError::WalExists { .. })));
    let settings = ObjectWalSettings {
        puts_max: 0,
        ..ObjectWalSettings::default()
    };
    let refused = ObjectWals::new(store, settings).create(TOPIC).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "write-ahead log settings: puts_max is 0, allowed are 1 to 64"
    );
}
