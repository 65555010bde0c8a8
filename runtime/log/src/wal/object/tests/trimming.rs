use millstream_batch::Offset;

use super::*;

/// Two parts and a bit, one frame in each object.
const OBJECTS: u64 = 150;

async fn written(store: &Store) -> (ObjectWals, Arc<dyn Wal>) {
    let wals = wals_of_single_frames(store.clone());
    let wal = wals.create(WAL_ID).await.unwrap();
    write(&*wal, &frames(OBJECTS)).await;
    (wals, wal)
}

#[tokio::test(start_paused = true)]
async fn objects_go_once_all_frames_of_their_part_are_in_segments() {
    let store = Store::memory();
    let (wals, wal) = written(&store).await;
    assert_eq!(wal.trimmable(), 0);
    wal.committed(TOPIC, 0, Offset(127));
    assert_eq!(wal.trimmable(), 64, "object 127 holds offset 127");
    wal.committed(TOPIC, 0, Offset(OBJECTS));
    assert_eq!(wal.trimmable(), 128, "the part being written stays");
    wal.trim(128).await.unwrap();
    assert_eq!(store.list("_wal").await.unwrap().first(), Some(&key(128)));
    assert_eq!(replayed(&wals, 128).await.unwrap().0, frames(OBJECTS)[128..]);
    let stored = store.list_objects("_wal").await.unwrap();
    assert_eq!(
        wal.stats().bytes_stored,
        stored.iter().map(|object| object.bytes).sum::<u64>()
    );
    wal.trim(128).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_log_is_not_truncated_past_data_whose_upload_failed() {
    let store = Store::memory();
    let wals = wals_of_single_frames(store.clone());
    let wal = wals.create(WAL_ID).await.unwrap();
    write(&*wal, &[frame_in(1, 0, 1)]).await;
    write(&*wal, &frames(OBJECTS)).await;
    // Partition 0 is in segments; the upload of partition 1 fails, so nobody says that it is.
    wal.committed(TOPIC, 0, Offset(OBJECTS));
    assert_eq!(wal.trimmable(), 0);
    wal.trim(u64::MAX).await.unwrap();
    assert_eq!(store.list("_wal").await.unwrap().len() as u64, OBJECTS + 1);
    assert_eq!(wal.pinned_by(wal.stats().bytes_stored), []);
    assert_eq!(wal.pinned_by(wal.stats().bytes_stored - 1), [(TOPIC, 1)]);
    wal.committed(TOPIC, 1, Offset(1));
    assert_eq!(wal.trimmable(), 128);
}

#[tokio::test(start_paused = true)]
async fn the_frames_of_a_deleted_topic_hold_no_object() {
    let (_, wal) = written(&Store::memory()).await;
    wal.forget_topic(TOPIC);
    assert_eq!(wal.trimmable(), 128);
}

#[tokio::test(start_paused = true)]
async fn the_trim_floor_stays_below_what_is_in_flight() {
    let (store, _) = over(&Arc::default(), |put| if put == 63 { Fault::Lost } else { DONE });
    let wal = wals_of_single_frames(store).create(WAL_ID).await.unwrap();
    let mut commits = Vec::new();
    for frame in frames(OBJECTS) {
        commits.push(wal.submit(frame).await.unwrap());
    }
    tokio::time::sleep(INTERVAL).await;
    wal.committed(TOPIC, 0, Offset(OBJECTS));
    assert_eq!(wal.trimmable(), 63, "object 64 begins a part, and 63 is not there yet");
}

#[tokio::test(start_paused = true)]
async fn a_replay_from_below_the_trim_floor_is_refused() {
    let store = Store::memory();
    let (wals, wal) = written(&store).await;
    wal.committed(TOPIC, 0, Offset(OBJECTS));
    wal.trim(wal.trimmable()).await.unwrap();
    let refused = replayed(&wals, 0).await.unwrap_err();
    assert!(matches!(refused, LogError::WalDamaged { .. }), "{refused}");
}
