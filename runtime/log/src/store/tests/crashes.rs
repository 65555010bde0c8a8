//! A crash at every write and every sync of local puts, over a disk that loses, tears and reorders what was not synced.

use std::sync::Mutex;

use super::super::local::LocalObjects;
use super::*;
use crate::file::simulated::{Random, SimulatedDisk};

const SEED: u64 = 0x5eed_0b01;
/// What may be left after one crash is tried out this often.
const SURVIVORS: usize = 8;

/// An object that was put, and after how many steps of the disk its put was answered.
struct Put {
    key: String,
    content: Vec<u8>,
    answered_at: usize,
}

fn store_on(disk: &SimulatedDisk, dir: &FilePath) -> Store {
    Store {
        objects: Arc::new(LocalObjects::over(Arc::new(disk.clone()), dir).unwrap()),
        etags: false,
    }
}

/// Reads what crashes after every step leave, through a store that is opened there anew.
async fn check_survivors(disk: &SimulatedDisk, puts: &[Put]) {
    println!("seed {SEED:#x}");
    let mut random = Random(SEED);
    for step in 0..=disk.steps() {
        for survivor in 0..SURVIVORS {
            let left = tempfile::tempdir().unwrap();
            disk.survivors(step, &mut random, left.path());
            let place = format!("seed {SEED:#x}, step {step}, survivor {survivor}");
            let store = Store::local(left.path()).unwrap();
            let mut found = store.list("").await.unwrap();
            for put in puts {
                match store.get(&put.key).await {
                    Ok(content) => assert!(content == put.content, "{place}: {} is torn", put.key),
                    Err(LogError::NotFound { .. }) => {
                        assert!(put.answered_at > step, "{place}: {} is lost", put.key);
                    }
                    Err(error) => panic!("{place}: {error}"),
                }
                found.retain(|key| *key != put.key);
            }
            assert!(found.is_empty(), "{place}: {found:?} were never put");
            let staged = std::fs::read_dir(left.path().join("#staged")).unwrap().count();
            assert_eq!(staged, 0, "{place}: half-written files are taken away");
        }
    }
}

#[tokio::test]
async fn an_object_whose_put_was_answered_is_whole_after_any_crash_and_no_other_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimulatedDisk::new(dir.path());
    let store = store_on(&disk, dir.path());
    let mut puts = Vec::new();
    for (number, bytes) in [0usize, 1, 511, 512, 5_000, 40].into_iter().enumerate() {
        let content: Vec<u8> = (0..bytes).map(|at| (at * 7 + number) as u8 | 1).collect();
        let key = format!("topic/{}/seg_{number}", number % 3);
        let parts = content.chunks(300).map(Bytes::copy_from_slice).collect();
        store.put_new(&key, parts).await.unwrap();
        puts.push(Put {
            key,
            content,
            answered_at: disk.steps(),
        });
    }
    assert!(disk.steps() > 40, "{} steps", disk.steps());
    check_survivors(&disk, &puts).await;
}

/// Where two puts need the same new directory, one makes it and the other finds it, maybe before it is durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn puts_that_meet_in_a_new_directory_are_durable_each_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimulatedDisk::new(dir.path());
    let store = store_on(&disk, dir.path());
    let puts = Arc::new(Mutex::new(Vec::new()));
    for round in 0..4 {
        let put = |writer: usize| {
            let (store, disk, puts) = (store.clone(), disk.clone(), puts.clone());
            tokio::spawn(async move {
                let (key, content) = (format!("new/{round}/deep/{writer}"), vec![writer as u8 + 1; 700]);
                store.put_new(&key, vec![content.clone().into()]).await.unwrap();
                let answered_at = disk.steps();
                puts.lock().unwrap().push(Put {
                    key,
                    content,
                    answered_at,
                });
            })
        };
        for writer in [put(0), put(1), put(2)] {
            writer.await.unwrap();
        }
    }
    let puts = std::mem::take(&mut *puts.lock().unwrap());
    check_survivors(&disk, &puts).await;
}
