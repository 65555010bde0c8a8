use std::sync::Mutex;

use super::*;
use crate::file::simulated::Random;

const SEED: u64 = 0x5eed_0b1e;

/// The most time between two frames.
const PACE_MS: u64 = 50;

/// Small objects, several in flight.
fn busy_settings() -> ObjectWalSettings {
    ObjectWalSettings {
        flush_interval: Duration::from_millis(10),
        flush_bytes: 400,
        ..ObjectWalSettings::default()
    }
}

fn any_fault(random: &mut Random) -> Fault {
    let time = Duration::from_millis(random.below(60));
    match random.below(16) {
        0 => Fault::Before,
        1 | 2 => Fault::After,
        3 => Fault::Twice,
        4 | 5 => Fault::Late(time * 10),
        _ => Fault::Slow(time),
    }
}

/// Submits frame after frame until the log takes none any more. Notes which were acknowledged.
async fn produce(wal: Arc<dyn Wal>, frames: Vec<Frame>, acknowledged: Arc<Mutex<Vec<Frame>>>, mut random: Random) {
    let (commits, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let waiter = tokio::spawn(async move {
        while let Some((frame, commit)) = waiting.recv().await {
            let commit: crate::wal::Commit = commit;
            if commit.await.is_ok() {
                acknowledged.lock().unwrap().push(frame);
            }
        }
    });
    for frame in frames {
        let Ok(commit) = wal.submit(frame.clone()).await else {
            break;
        };
        commits.send((frame, commit)).unwrap();
        tokio::time::sleep(Duration::from_millis(random.below(PACE_MS))).await;
    }
    drop(commits);
    waiter.await.unwrap();
}

/// Seals and reads a log, again and again where the network has failed too often.
async fn taken_over(wals: &ObjectWals, by: Uuid) -> Vec<Frame> {
    while let Err(error) = wals.seal(WAL_ID, by, 0).await {
        assert!(matches!(error, LogError::Store { .. }), "{error}");
    }
    loop {
        match replayed(wals, 0).await {
            Ok((found, _)) => return found,
            Err(error) => assert!(matches!(error, LogError::Store { .. }), "{error}"),
        }
    }
}

/// Everything that was acknowledged is found, once, in order, and nothing that was not written.
fn check(written: &[Frame], acknowledged: &[Frame], found: &[Frame], place: &str) {
    assert!(found.len() <= written.len(), "{place}");
    assert_eq!(found, &written[..found.len()], "{place}");
    assert!(
        acknowledged.len() <= found.len(),
        "{place}: {} of {}",
        found.len(),
        acknowledged.len()
    );
    assert_eq!(acknowledged, &written[..acknowledged.len()], "{place}");
}

#[tokio::test(start_paused = true)]
async fn whatever_the_network_does_everything_is_written_once_in_order() {
    println!("seed {SEED:#x}");
    for seed in SEED..SEED + 40 {
        let objects = Arc::default();
        let mut random = Random(seed);
        let (store, _) = over(&objects, move |_| any_fault(&mut random));
        let wals = ObjectWals::new(store, busy_settings());
        let wal = wals.create(WAL_ID).await.unwrap();
        write(&*wal, &frames(40)).await;
        wal.close().await;
        let sound = wals_of_single_frames(Store::over(objects));
        assert_eq!(replayed(&sound, 0).await.unwrap().0, frames(40), "seed {seed:#x}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_request_loses_nothing_that_was_acknowledged() {
    println!("seed {SEED:#x}");
    for step in 0..60 {
        for seed in SEED..SEED + 4 {
            let objects = Arc::default();
            let mut random = Random(seed);
            // From the crash on nothing of the old incarnation is answered; what was on its way may still arrive.
            let (store, faulty) = over(&objects, move |request| match any_fault(&mut random) {
                Fault::Late(time) => Fault::Late(time),
                fault if request < step => fault,
                _ => Fault::Lost,
            });
            let wal = ObjectWals::new(store, busy_settings()).create(WAL_ID).await.unwrap();
            let acknowledged = Arc::default();
            let producing = tokio::spawn(produce(wal, frames(60), Arc::clone(&acknowledged), Random(seed)));
            while faulty.requests() < step && !producing.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let sound = wals(Store::over(objects));
            let found = taken_over(&sound, SEALER).await;
            producing.abort();
            let acknowledged = acknowledged.lock().unwrap().clone();
            check(
                &frames(60),
                &acknowledged,
                &found,
                &format!("step {step}, seed {seed:#x}"),
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_seal_that_meets_a_living_writer_ends_it_without_losing_what_it_acknowledged() {
    println!("seed {SEED:#x}");
    for seed in SEED..SEED + 200 {
        let objects = Arc::default();
        let mut random = Random(seed);
        let seal_after = Duration::from_millis(random.below(1_000));
        let (store, _) = over(&objects, move |_| any_fault(&mut random));
        let wal = ObjectWals::new(store, busy_settings()).create(WAL_ID).await.unwrap();
        let mut failure = wal.failure();
        let acknowledged = Arc::default();
        let written: Vec<Frame> = frames(500);
        let producing = tokio::spawn(produce(wal, written.clone(), Arc::clone(&acknowledged), Random(seed)));
        tokio::time::sleep(seal_after).await;
        let mut random = Random(!seed);
        let (store, _) = over(&objects, move |_| any_fault(&mut random));
        let sealer = wals(store);
        let found = taken_over(&sealer, SEALER).await;
        if seed % 2 == 0 {
            sealer.remove(WAL_ID).await.unwrap();
        }
        let reason = failure.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert!(
            reason.contains(&format!("incarnation {SEALER} has sealed the log")),
            "{reason}"
        );
        producing.await.unwrap();
        let acknowledged = acknowledged.lock().unwrap().clone();
        check(&written, &acknowledged, &found, &format!("seed {seed:#x}"));
        if seed % 2 == 1 {
            assert_eq!(taken_over(&sealer, TOPIC).await, found, "seed {seed:#x}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_sealers_all_find_the_same_log() {
    println!("seed {SEED:#x}");
    for seed in SEED..SEED + 50 {
        let objects = Arc::default();
        let wal = ObjectWals::new(Store::over(Arc::clone(&objects) as _), busy_settings())
            .create(WAL_ID)
            .await
            .unwrap();
        let acknowledged = Arc::default();
        let producing = tokio::spawn(produce(wal, frames(500), Arc::clone(&acknowledged), Random(seed)));
        let found = (0..4).map(|sealer| {
            let mut random = Random(seed.wrapping_mul(sealer + 2));
            let objects = Arc::clone(&objects);
            async move {
                tokio::time::sleep(Duration::from_millis(random.below(100))).await;
                let wals = wals(over(&objects, move |_| any_fault(&mut random)).0);
                taken_over(&wals, Uuid::from_u128(u128::from(sealer))).await
            }
        });
        let found = futures::future::join_all(found).await;
        producing.await.unwrap();
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed:#x}");
        check(
            &frames(500),
            &acknowledged.lock().unwrap(),
            &found[0],
            &format!("seed {seed:#x}"),
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_panics_fails_the_log_and_one_that_was_closed_does_not() {
    let (store, _) = over(&Arc::default(), |put| {
        assert!(put < 1, "the store panics");
        DONE
    });
    let wal = wals(store).create(WAL_ID).await.unwrap();
    write(&*wal, &[frame(0, 1)]).await;
    let unanswered = wal.submit(frame(1, 1)).await.unwrap().await.unwrap_err();
    assert!(matches!(unanswered, LogError::WalClosed), "{unanswered}");
    let reason = wal.failure().borrow().clone();
    assert_eq!(reason.as_deref(), Some("the writer has ended before its time"));
    assert!(matches!(
        wal.submit(frame(2, 1)).await,
        Err(LogError::WalPoisoned { .. })
    ));
    wal.close().await;

    let wal = wals(Store::memory()).create(WAL_ID).await.unwrap();
    write(&*wal, &[frame(0, 1)]).await;
    wal.close().await;
    assert_eq!(*wal.failure().borrow(), None);
}

#[tokio::test(start_paused = true)]
async fn a_number_that_somebody_else_has_taken_fails_the_log() {
    let store = Store::memory();
    let wal = wals_of_single_frames(store.clone()).create(WAL_ID).await.unwrap();
    store
        .put_new(&key(1), vec![bytes::Bytes::from_static(b"something else")])
        .await
        .unwrap();
    write(&*wal, &[frame(0, 1)]).await;
    let mut commits = Vec::new();
    for base in 1..4 {
        commits.push(wal.submit(frame(base, 1)).await.unwrap());
    }
    for commit in commits {
        assert!(matches!(commit.await, Err(LogError::WalPoisoned { .. })));
    }
    assert!(
        wal.failure()
            .borrow()
            .as_ref()
            .unwrap()
            .contains("somebody else has written it")
    );
    assert!(matches!(
        wal.submit(frame(4, 1)).await,
        Err(LogError::WalPoisoned { .. })
    ));
    wal.close().await;
}
