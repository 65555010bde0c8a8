//! Batches that are none, and records above the limit.

use bytes::Bytes;
use millstream_batch::{BatchBuilder, Compression};
use millstream_tests::{Agent, Grpc, record};
use tonic::Code;

use crate::{assert_refused, assert_says};

/// Where the header has what is damaged here, and where the checksummed part begins.
const LENGTH: usize = 8;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const COUNT: usize = 57;
const HEADER_BYTES: usize = 61;

/// Above this a record is refused where its topic says nothing else.
const RECORD_BYTES_MAX: usize = 1 << 20;

fn batch() -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    for value in ["one", "two", "three"] {
        builder.push(1_735_689_600_000, Some(b"key"), Some(value.as_bytes()), [].into_iter());
    }
    builder.build(Compression::None).to_bytes().to_vec()
}

/// A batch with other bytes at a position, and a checksum that is right.
fn changed(position: usize, bytes: &[u8]) -> Bytes {
    let mut batch = batch();
    batch[position..position + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c::crc32c(&batch[ATTRIBUTES..]);
    batch[CRC..ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

/// The batch is refused, nothing of it is stored, and a good one goes into the same place.
async fn assert_batch_refused(batch: impl Into<Bytes>, words: &[&str]) {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    assert_refused(
        grpc.produce_batch("t", 0, batch.into()).await,
        Code::InvalidArgument,
        words,
    );
    assert_takes(&grpc, 0).await;
}

async fn assert_takes(grpc: &Grpc, base_offset: u64) {
    let answer = grpc.produce_batch("t", 0, batch().into()).await.unwrap();
    assert_eq!((answer.base_offset, answer.record_count), (base_offset, 3));
    assert_eq!(grpc.read("t", 0, 0).await.unwrap().len() as u64, base_offset + 3);
}

#[tokio::test]
async fn a_batch_with_a_wrong_checksum_is_refused() {
    let mut batch = batch();
    *batch.last_mut().unwrap() ^= 1;
    assert_batch_refused(batch, &["batch is refused", "crc", "computed"]).await;
}

#[tokio::test]
async fn a_batch_with_a_wrong_count_is_refused() {
    assert_batch_refused(changed(COUNT, &4i32.to_be_bytes()), &["batch is refused", "4 records"]).await;
}

#[tokio::test]
async fn a_batch_that_counts_fewer_records_than_it_has_is_refused() {
    assert_batch_refused(changed(COUNT, &2i32.to_be_bytes()), &["batch is refused", "2 records"]).await;
}

#[tokio::test]
async fn a_batch_that_counts_billions_of_records_is_refused() {
    assert_batch_refused(
        changed(COUNT, &i32::MAX.to_be_bytes()),
        &["batch is refused", "2147483647"],
    )
    .await;
}

#[tokio::test]
async fn an_empty_batch_is_refused() {
    assert_batch_refused(changed(COUNT, &0i32.to_be_bytes()), &["batch is refused", "0 records"]).await;
    assert_batch_refused(Bytes::new(), &["batch is refused", "cut short: 0 bytes"]).await;
}

#[tokio::test]
async fn a_batch_whose_length_goes_past_its_end_is_refused() {
    let length = (batch().len() - LENGTH - 4) as i32;
    let longer = changed(LENGTH, &(length + 1).to_be_bytes());
    assert_batch_refused(longer, &["batch is refused", "cut short"]).await;
    let shorter = changed(LENGTH, &(length - 1).to_be_bytes());
    assert_batch_refused(shorter, &["batch is refused", "1 bytes follow"]).await;
}

#[tokio::test]
async fn a_record_whose_length_goes_past_its_end_is_refused() {
    assert_batch_refused(
        changed(HEADER_BYTES, &[0x7e]),
        &["batch is refused", "record 0", "length"],
    )
    .await;
}

#[tokio::test]
async fn a_batch_of_an_unknown_codec_is_refused_with_those_that_are_known() {
    for (code, name) in [(1u16, "1"), (2, "2"), (5, "5"), (7, "7")] {
        let words = [
            "batch is refused",
            &format!("unknown codec {name}"),
            "3 (lz4)",
            "4 (zstd)",
        ];
        assert_batch_refused(changed(ATTRIBUTES, &code.to_be_bytes()), &words).await;
    }
}

#[tokio::test]
async fn a_batch_that_does_not_decompress_is_refused() {
    for code in [3u16, 4] {
        assert_batch_refused(
            changed(ATTRIBUTES, &code.to_be_bytes()),
            &["batch is refused", "decompress"],
        )
        .await;
    }
}

#[tokio::test]
async fn a_record_above_the_limit_is_refused_with_its_size_and_the_limit() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    let too_large = vec![b'x'; RECORD_BYTES_MAX];
    let words = ["record 1", "above the limit of 1048576"];
    let records = vec![record("small"), record(too_large.clone())];
    assert_refused(grpc.produce("t", 0, records).await, Code::InvalidArgument, &words);
    let error = agent
        .cli_reading(["produce", "t"], &[b"small\n", &too_large[..]].concat())
        .error();
    let fate = "1 of the 2 records sent were acknowledged, the first that was not is line 2";
    assert_says(&error, &["above the limit of 1048576", fate]);

    // Close below the limit it is fine.
    let fits = vec![b'x'; RECORD_BYTES_MAX - 100];
    let answer = grpc.produce("t", 0, vec![record(fits)]).await.unwrap();
    assert_eq!(answer.base_offset, 1);
    assert_takes(&grpc, 2).await;
}

#[tokio::test]
async fn a_request_without_records_is_refused() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    assert_refused(
        grpc.produce("t", 0, vec![]).await,
        Code::InvalidArgument,
        &["no records"],
    );
    let request = millstream_proto::v1::ProduceRequest {
        topic: "t".to_owned(),
        ..Default::default()
    };
    assert_refused(
        grpc.producer().produce(request).await,
        Code::InvalidArgument,
        &["no payload"],
    );
    assert_takes(&grpc, 0).await;
}

#[tokio::test]
async fn small_batches_that_hold_much_are_answered_in_bounded_pieces() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    let zeros = vec![0; RECORD_BYTES_MAX / 2];
    let mut builder = BatchBuilder::new();
    for _ in 0..20 {
        builder.push(0, None, Some(&zeros), [].into_iter());
    }
    let batch = builder.build(Compression::Zstd).to_bytes();
    assert!(batch.len() < 10_000, "{} bytes", batch.len());
    for _ in 0..10 {
        grpc.produce_batch("t", 0, batch.clone()).await.unwrap();
    }

    // 100 MiB in all. Two batches pass the 16 MiB that are asked for, so no answer has more.
    let mut offset = 0;
    while offset < 200 {
        let answer = grpc.fetch("t", 0, offset).await.unwrap();
        assert_eq!((answer.records.len(), answer.next_offset), (40, offset + 40));
        offset = answer.next_offset;
    }
}
