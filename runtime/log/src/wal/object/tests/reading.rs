use bytes::Bytes;
use millstream_batch::Offset;
use object_store::{ObjectStoreExt, path::Path};

use super::*;

async fn sealed_log(objects: &Arc<InMemory>) -> ObjectWals {
    let wals = wals_of_single_frames(Store::over(objects.clone()));
    let wal = wals.create(WAL_ID).await.unwrap();
    write(&*wal, &frames(30)).await;
    wals.seal(WAL_ID, SEALER, 0).await.unwrap();
    wals
}

async fn overwrite(objects: &InMemory, number: u64, bytes: Bytes) {
    objects.put(&Path::from(key(number)), bytes.into()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_sealed_log_is_read_up_to_its_seal_and_may_be_sealed_again() {
    let objects = Arc::default();
    let wals = sealed_log(&objects).await;
    let store = Store::over(objects);
    let before = store.list("_wal").await.unwrap();
    assert_eq!(before[30], key(30));
    wals.seal(WAL_ID, TOPIC, 0).await.unwrap();
    wals.seal(WAL_ID, TOPIC, 5).await.unwrap();
    assert_eq!(store.list("_wal").await.unwrap(), before);
    assert_eq!(replayed(&wals, 0).await.unwrap().0, frames(30));
    assert_eq!(replayed(&wals, 7).await.unwrap().0, frames(30)[7..]);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_never_wrote_anything_can_be_sealed_and_read() {
    let store = Store::memory();
    let wals = wals(store.clone());
    let wal = wals.create(WAL_ID).await.unwrap();
    assert!(wals.exists(WAL_ID).await.unwrap());
    wals.seal(WAL_ID, SEALER, 0).await.unwrap();
    assert_eq!(
        replayed(&wals, 0).await.unwrap(),
        (Vec::new(), ReplaySummary::default())
    );
    let refused = wal.submit(frame(0, 1)).await.unwrap().await.unwrap_err();
    assert!(
        refused
            .to_string()
            .contains(&format!("incarnation {SEALER} has sealed")),
        "{refused}"
    );
}

#[tokio::test(start_paused = true)]
async fn any_damaged_byte_of_an_object_is_an_error() {
    let objects = Arc::default();
    let wals = sealed_log(&objects).await;
    let store = Store::over(objects.clone());
    for number in [0, 7, 29, 30] {
        let whole = store.get(&key(number)).await.unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.to_vec();
            damaged[at] ^= 0x20;
            overwrite(&objects, number, damaged.into()).await;
            assert!(replayed(&wals, 0).await.is_err(), "object {number}, byte {at}");
        }
        overwrite(&objects, number, whole.slice(..whole.len() - 1)).await;
        assert!(replayed(&wals, 0).await.is_err(), "object {number}, cut");
        overwrite(&objects, number, whole).await;
    }
    assert_eq!(replayed(&wals, 0).await.unwrap().0, frames(30));
}

#[tokio::test(start_paused = true)]
async fn a_missing_object_that_was_acknowledged_is_an_error() {
    for sealed in [false, true] {
        let store = Store::memory();
        let wals = wals_of_single_frames(store.clone());
        let wal = wals.create(WAL_ID).await.unwrap();
        for frame in frames(10) {
            write(&*wal, &[frame]).await;
        }
        store.delete(&key(4)).await.unwrap();
        if sealed {
            wals.seal(WAL_ID, SEALER, 0).await.unwrap();
        }
        for floor in [0, 4] {
            let refused = replayed(&wals, floor).await.unwrap_err();
            assert!(matches!(refused, LogError::WalDamaged { .. }), "{refused}");
        }
        assert_eq!(replayed(&wals, 5).await.unwrap().0, frames(10)[5..]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_object_of_another_log_or_number_is_refused() {
    let objects = Arc::default();
    let wals = sealed_log(&objects).await;
    let store = Store::over(objects.clone());
    let other = store.get(&key(3)).await.unwrap();
    overwrite(&objects, 5, other).await;
    assert!(matches!(replayed(&wals, 0).await, Err(LogError::WalDamaged { .. })));
    let foreign = seal::Seal {
        wal_id: TOPIC,
        number: 5,
        by: SEALER,
        present_end: 5,
    };
    overwrite(&objects, 5, Bytes::copy_from_slice(&foreign.encode())).await;
    assert!(matches!(replayed(&wals, 0).await, Err(LogError::WalOther { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_claims_more_than_any_has_is_not_fetched() {
    let (store, faulty) = over(&Arc::default(), |_| DONE);
    let claimed = (crate::wal::group::GROUP_BYTES_MAX + 65) as u64;
    let refused = replay::get_whole(&store, &key(0), claimed).await.unwrap_err();
    assert!(matches!(refused, LogError::WalNotUnderstood { .. }), "{refused}");
    assert_eq!(faulty.requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_visitor_that_fails_stops_the_replay() {
    let wals = sealed_log(&Arc::default()).await;
    let mut seen = 0;
    let mut visit = |_| {
        seen += 1;
        Err(LogError::ReplayStopped {
            reason: "enough".into(),
        })
    };
    let stopped = wals.replay(WAL_ID, 0, &mut visit).await.unwrap_err();
    assert_eq!((stopped.to_string().as_str(), seen), ("replay was stopped: enough", 1));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_deleted_while_it_is_copied_from_is_an_error_and_no_shorter_log() {
    let objects = Arc::default();
    let others = sealed_log(&objects).await;
    let (store, _) = over(&objects, |_| Fault::Slow(INTERVAL));
    let copying = tokio::spawn(async move { replayed(&wals(store), 0).await });
    tokio::time::sleep(INTERVAL * 3 / 2).await;
    others.remove(WAL_ID).await.unwrap();
    let refused = copying.await.unwrap().unwrap_err();
    assert!(matches!(refused, LogError::NotFound { .. }), "{refused}");
    // Nor is one that was deleted before.
    let refused = replayed(&others, 0).await.unwrap_err();
    assert!(matches!(refused, LogError::WalDamaged { .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_removed_log_keeps_its_seals_and_is_not_listed() {
    let objects = Arc::default();
    let wals = sealed_log(&objects).await;
    let store = Store::over(objects);
    store
        .put_new("_wal/notes.txt", vec![Bytes::from_static(b"not a log")])
        .await
        .unwrap();
    assert_eq!(wals.list().await.unwrap(), [WAL_ID]);
    wals.remove(WAL_ID).await.unwrap();
    wals.remove(WAL_ID).await.unwrap();
    assert!(wals.list().await.unwrap().is_empty());
    let left = store.list("_wal").await.unwrap();
    assert_eq!((&left[0], left.last().unwrap().as_str()), (&key(30), "_wal/notes.txt"));
    assert_eq!(left.len(), 2, "one seal, and what is no log");
}

#[tokio::test(start_paused = true)]
async fn a_removed_log_stays_sealed_though_its_lowest_seal_is_below_the_trim_floor() {
    let objects = Arc::default();
    // The put of number 128 is on its way until after the removal.
    let (store, _) = over(&objects, |put| match put {
        128 => Fault::Slow(10 * INTERVAL),
        _ => DONE,
    });
    let wal = wals_of_single_frames(store).create(WAL_ID).await.unwrap();
    write(&*wal, &frames(128)).await;
    let late = wal.submit(frame(128, 1)).await.unwrap();
    tokio::time::sleep(INTERVAL).await;
    wal.committed(TOPIC, 0, Offset(128));
    wal.trim(wal.trimmable()).await.unwrap();
    assert_eq!(wal.trimmable(), 128);

    // The sealer had read the floor before it moved, and reads it again afterwards.
    let sealer = wals(Store::over(objects));
    sealer.seal(WAL_ID, SEALER, 0).await.unwrap();
    sealer.seal(WAL_ID, SEALER, 128).await.unwrap();
    sealer.remove(WAL_ID).await.unwrap();
    assert!(late.await.unwrap_err().to_string().contains("has sealed the log"));
}

#[tokio::test(start_paused = true)]
async fn a_seal_whose_number_was_taken_meanwhile_stands_behind_what_was_put() {
    let objects = Arc::default();
    let written = wals_of_single_frames(Store::over(Arc::clone(&objects) as _));
    let wal = written.create(WAL_ID).await.unwrap();
    write(&*wal, &frames(3)).await;
    let (store, _) = over(&objects, |request| match request {
        0 => Fault::Slow(2 * INTERVAL),
        _ => DONE,
    });
    let sealing = tokio::spawn(async move { wals(store).seal(WAL_ID, SEALER, 0).await });
    tokio::time::sleep(INTERVAL).await;
    write(&*wal, &frames(5)[3..]).await;
    sealing.await.unwrap().unwrap();
    let refused = wal.submit(frame(5, 1)).await.unwrap().await.unwrap_err();
    assert!(refused.to_string().contains("has sealed the log"), "{refused}");
    assert_eq!(replayed(&written, 0).await.unwrap().0, frames(5));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_closed_is_removed_whole() {
    let store = Store::memory();
    let wals = wals(store.clone());
    let wal = wals.create(WAL_ID).await.unwrap();
    write(&*wal, &frames(3)).await;
    wal.close().await;
    wals.remove(WAL_ID).await.unwrap();
    assert!(store.list("").await.unwrap().is_empty());
}
