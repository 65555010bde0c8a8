//! A full disk, at startup and while running.

use std::sync::Arc;

use bytes::Bytes;
use millstream_tests::{Grpc, Setup, SmallDisk, record, skip};
use tonic::{Code, Status};

const DISK_BYTES: u64 = 24 << 20;
const VALUE_BYTES: usize = 64 << 10;
/// More than the disk holds.
const VALUES_MAX: usize = DISK_BYTES as usize / VALUE_BYTES * 2;

/// A small disk, and an agent's setup on it; none where this machine does not permit it.
fn small_disk(test: &str) -> Option<(Arc<SmallDisk>, Setup)> {
    let disk = SmallDisk::mount(DISK_BYTES)
        .map_err(|reason| skip(test, &reason))
        .ok()?;
    let setup = Setup::new()
        .on(&disk)
        .env("MILLSTREAM_WAL_FILE_BYTES", 1 << 20)
        .env("MILLSTREAM_SEGMENT_BYTES", 1 << 20);
    Some((disk, setup))
}

fn value(number: usize) -> Bytes {
    let mut value = vec![b'x'; VALUE_BYTES];
    // Nothing that compresses away.
    let mut state = number as u64 + 1;
    for byte in &mut value[8..] {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
    value[..8].copy_from_slice(&(number as u64).to_be_bytes());
    value.into()
}

/// Produces until the disk is full; the refusal.
async fn produce_until_full(grpc: &Grpc, acked: &mut Vec<Bytes>) -> Status {
    for _ in 0..VALUES_MAX {
        let value = value(acked.len());
        match grpc.produce("t", 0, vec![record(value.clone())]).await {
            Ok(answer) => {
                assert_eq!(answer.base_offset as usize, acked.len());
                acked.push(value);
            }
            Err(status) => return status,
        }
    }
    panic!("more than the disk holds was acknowledged");
}

async fn assert_holds(grpc: &Grpc, acked: &[Bytes]) {
    let read = grpc.read("t", 0, 0).await.unwrap();
    assert_eq!(read.len(), acked.len());
    for (read, acked) in read.iter().zip(acked) {
        assert!(read.value.as_ref() == Some(acked), "another value at {}", read.offset);
    }
}

#[track_caller]
fn assert_full(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_says_full(status.message());
}

#[track_caller]
fn assert_says_full(message: &str) {
    let says = ["disk is full", "no space left on its disk", "No space left on device"];
    assert!(says.iter().any(|words| message.contains(words)), "{message}");
}

#[tokio::test]
async fn a_disk_that_fills_refuses_writes_serves_reads_and_goes_on_once_there_is_room() {
    let Some((disk, setup)) = small_disk("a disk that fills") else {
        return;
    };
    let agent = setup.start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    let mut acked = Vec::new();
    for _ in 0..10 {
        let value = value(acked.len());
        grpc.produce("t", 0, vec![record(value.clone())]).await.unwrap();
        acked.push(value);
    }
    disk.fill();

    let status = produce_until_full(&grpc, &mut acked).await;
    assert_full(&status);
    assert_holds(&grpc, &acked).await;
    let again = grpc
        .produce("t", 0, vec![record(value(0))])
        .await
        .expect_err("the disk is full");
    assert_full(&again);
    assert_full(&grpc.create_topic("u", 1).await.expect_err("the disk is full"));

    disk.free();
    let value = value(acked.len());
    let answer = grpc.produce("t", 0, vec![record(value.clone())]).await.unwrap();
    assert_eq!(answer.base_offset as usize, acked.len());
    acked.push(value);
    assert_holds(&grpc, &acked).await;

    let agent = agent.kill9().start();
    assert_holds(&agent.grpc().await, &acked).await;
}

#[tokio::test]
async fn what_was_acknowledged_on_a_full_disk_survives_a_kill() {
    let Some((disk, setup)) = small_disk("a kill on a full disk") else {
        return;
    };
    let agent = setup.start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    grpc.produce("t", 0, vec![record(value(0))]).await.unwrap();
    let mut acked = vec![value(0)];
    disk.fill();
    assert_full(&produce_until_full(&grpc, &mut acked).await);
    let setup = agent.kill9();

    // At startup there is no room for a write-ahead log.
    let ended = setup.try_start().expect_err("the disk is full");
    assert_says_full(ended.error());

    disk.free();
    let agent = setup.start();
    let grpc = agent.grpc().await;
    assert_holds(&grpc, &acked).await;
    grpc.assert_serves("other").await;
}

#[test]
fn a_full_disk_at_the_first_start_is_an_error_that_says_so() {
    let Some((disk, setup)) = small_disk("a first start on a full disk") else {
        return;
    };
    disk.fill();
    let ended = setup.try_start().expect_err("the disk is full");
    assert_says_full(ended.error());
    disk.free();
    drop(setup.start());
}
