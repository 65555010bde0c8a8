//! Where a log begins whose trim floor nobody knows any more.

use super::*;
use crate::file::simulated::Random;

const OBJECTS: u64 = 40;
const FLOOR: u64 = 16;

/// One frame in each object, each durable before the next one is put.
async fn written(store: &Store) -> (ObjectWals, Arc<dyn Wal>) {
    let wals = wals_of_single_frames(store.clone());
    let wal = wals.create(WAL_ID).await.unwrap();
    for frame in frames(OBJECTS) {
        write(&*wal, &[frame]).await;
    }
    (wals, wal)
}

async fn delete(store: &Store, numbers: impl IntoIterator<Item = u64>) {
    store.delete_all(numbers.into_iter().map(key).collect()).await.unwrap();
}

/// The floor that is found, and the frames from there on.
async fn found(wals: &ObjectWals) -> (u64, Vec<Frame>) {
    let floor = wals.first_kept(WAL_ID).await.unwrap();
    (floor, replayed(wals, floor).await.unwrap().0)
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_never_trimmed_begins_at_its_beginning() {
    let store = Store::memory();
    assert_eq!(wals(store.clone()).first_kept(WAL_ID).await.unwrap(), 0);
    let (wals, _) = written(&store).await;
    assert_eq!(found(&wals).await, (0, frames(OBJECTS)));
    wals.seal(WAL_ID, SEALER, 0).await.unwrap();
    assert_eq!(found(&wals).await, (0, frames(OBJECTS)));
}

#[tokio::test(start_paused = true)]
async fn what_a_half_done_trim_left_lies_below() {
    let mut random = Random(0xf1002);
    for _ in 0..50 {
        let store = Store::memory();
        let (wals, _) = written(&store).await;
        let left: Vec<u64> = (0..FLOOR).filter(|_| random.below(3) == 0).collect();
        // The last one below the floor has gone, else nothing tells it from what was kept.
        let gone = (0..FLOOR).filter(|number| *number == FLOOR - 1 || !left.contains(number));
        delete(&store, gone).await;
        for sealed in [false, true] {
            if sealed {
                wals.seal(WAL_ID, SEALER, FLOOR).await.unwrap();
            }
            let kept = frames(OBJECTS)[FLOOR as usize..].to_vec();
            assert_eq!(found(&wals).await, (FLOOR, kept), "left {left:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_seal_at_a_number_that_was_trimmed_is_not_where_it_begins() {
    let store = Store::memory();
    let (wals, _) = written(&store).await;
    delete(&store, 0..FLOOR).await;
    // Of a sealer that had read the floor before it moved.
    wals.seal(WAL_ID, SEALER, 0).await.unwrap();
    let kept = frames(OBJECTS)[FLOOR as usize..].to_vec();
    assert_eq!(found(&wals).await, (FLOOR, kept.clone()));
    wals.seal(WAL_ID, TOPIC, FLOOR).await.unwrap();
    assert_eq!(found(&wals).await, (FLOOR, kept));
}

#[tokio::test(start_paused = true)]
async fn what_was_put_behind_a_gap_is_not_where_it_begins() {
    // The put of number 30 never comes to an end, and those behind it were on their way together with it.
    let objects = Arc::default();
    let (store, _) = over(&objects, |put| if put == 30 { Fault::Lost } else { DONE });
    let wal = wals_of_single_frames(store).create(WAL_ID).await.unwrap();
    write(&*wal, &frames(30)).await;
    for frame in &frames(34)[30..] {
        drop(wal.submit(frame.clone()).await.unwrap());
    }
    tokio::time::sleep(INTERVAL / 4).await;
    let store = Store::over(objects);
    let there = store.list("_wal").await.unwrap();
    assert!(!there.contains(&key(30)) && there.contains(&key(31)), "{there:?}");
    let wals = wals(store.clone());
    assert_eq!(found(&wals).await, (0, frames(30)));
    // Nor where it was trimmed below.
    delete(&store, 0..FLOOR).await;
    let kept = frames(30)[FLOOR as usize..].to_vec();
    assert_eq!(found(&wals).await, (FLOOR, kept.clone()));
    wals.seal(WAL_ID, SEALER, FLOOR).await.unwrap();
    assert_eq!(found(&wals).await, (FLOOR, kept));
}

#[tokio::test(start_paused = true)]
async fn of_a_removal_that_is_half_done_nothing_is_kept() {
    let store = Store::memory();
    let (wals, _) = written(&store).await;
    wals.seal(WAL_ID, SEALER, 0).await.unwrap();
    delete(&store, (0..OBJECTS).filter(|number| ![3, 4, 30].contains(number))).await;
    assert_eq!(found(&wals).await, (OBJECTS, Vec::new()));
}
