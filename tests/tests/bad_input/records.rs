//! Records at their edges: every byte in headers, values that are empty or as large as they may be, and null beside empty. They
//! come back as they went in, out of memory and out of segments.

use bytes::Bytes;
use millstream_batch::{Batch, BatchBuilder, Compression, RecordIter, encode_record};
use millstream_proto::v1;
use millstream_tests::{Agent, Grpc, place};
use tonic::Code;

use crate::assert_refused;

const TIMESTAMP_MS: i64 = 1_700_000_000_000;
/// Where a batch's header has its checksum, and where the checksummed part begins.
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;

fn header(key: impl Into<String>, value: Option<&[u8]>) -> v1::Header {
    v1::Header {
        key: key.into(),
        value: value.map(Bytes::copy_from_slice),
    }
}

fn plain(key: Option<&[u8]>, value: Option<&[u8]>, headers: Vec<v1::Header>) -> v1::Record {
    v1::Record {
        key: key.map(Bytes::copy_from_slice),
        value: value.map(Bytes::copy_from_slice),
        headers,
        timestamp_ms: Some(TIMESTAMP_MS),
        offset: 0,
    }
}

/// The same records as one encoded batch.
fn encoded(records: &[v1::Record], compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new();
    for record in records {
        let headers = record
            .headers
            .iter()
            .map(|header| (header.key.as_str(), header.value.as_deref()));
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder.push(TIMESTAMP_MS, key, value, headers);
    }
    builder.build(compression).to_bytes()
}

/// What a partition holds, as batches that are decoded here.
async fn read_batches(grpc: &Grpc, topic: &str) -> Vec<v1::Record> {
    let request = v1::FetchRequest {
        partitions: vec![place(topic, 0, 0)],
        max_bytes: 16 << 20,
        format: v1::FetchFormat::Batches.into(),
        ..v1::FetchRequest::default()
    };
    let answer = grpc.consumer().fetch(request).await.unwrap().into_inner();
    let mut rest = answer.partitions[0].batches.clone();
    let mut records = Vec::new();
    while !rest.is_empty() {
        let batch = Batch::split_first(&mut rest).unwrap();
        let decoded = batch.decompressed(64 << 20).unwrap();
        records.extend(RecordIter::new(&decoded).map(|view| {
            let view = view.unwrap();
            let headers = view.headers().map(|(key, value)| header(key, value)).collect();
            plain(view.key, view.value, headers)
        }));
    }
    records
}

/// Every way of writing and of reading gives the same records.
async fn assert_come_back(records: &[v1::Record]) {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    for topic in ["plain", "batch", "lz4", "zstd"] {
        grpc.create_topic(topic, 1).await.unwrap();
        let produced = match topic {
            "plain" => grpc.produce(topic, 0, records.to_vec()).await,
            "batch" => grpc.produce_batch(topic, 0, encoded(records, Compression::None)).await,
            "lz4" => grpc.produce_batch(topic, 0, encoded(records, Compression::Lz4)).await,
            _ => grpc.produce_batch(topic, 0, encoded(records, Compression::Zstd)).await,
        };
        assert_eq!(produced.unwrap().record_count as usize, records.len());
        for flush in [false, true] {
            grpc.partitions(topic, flush).await.unwrap();
            let read = grpc.read(topic, 0, 0).await.unwrap();
            let read = read.into_iter().map(|record| v1::Record { offset: 0, ..record });
            assert!(read.eq(records.iter().cloned()), "{topic}, flushed: {flush}");
            assert!(read_batches(&grpc, topic).await == records, "{topic}, flushed: {flush}");
        }
    }
    // Nothing of it is in memory any more.
    let agent = agent.kill9().start();
    let grpc = agent.grpc().await;
    for topic in ["plain", "batch", "lz4", "zstd"] {
        assert!(read_batches(&grpc, topic).await == records, "{topic}");
    }
}

#[tokio::test]
async fn headers_of_every_byte_come_back() {
    let mut records: Vec<_> = (0..=u8::MAX)
        .map(|byte| {
            // Below 0x80 a key has the byte itself, above it a character whose bytes are others.
            let key = format!("k{}", char::from(byte));
            plain(None, Some(b"v"), vec![header(key, Some(&[byte, b'v', byte]))])
        })
        .collect();
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let odd = ["", "\0", "\u{7ff}\u{ffff}\u{10ffff}", "same", "same"];
    let odd = odd.map(|key| header(key, Some(&all))).to_vec();
    records.push(plain(Some(&all), Some(&all), odd));
    assert_come_back(&records).await;
}

#[tokio::test]
async fn null_is_not_empty_in_keys_values_and_headers() {
    let choices = [None, Some(&b""[..]), Some(&b"x"[..])];
    let mut records = Vec::new();
    for key in choices {
        for value in choices {
            records.push(plain(key, value, Vec::new()));
            records.push(plain(key, value, choices.map(|of| header("", of)).to_vec()));
        }
    }
    assert_come_back(&records).await;
}

/// A header's key has to be text, which only an encoded batch can break.
#[tokio::test]
async fn a_header_key_that_is_no_text_is_refused() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    let good = encoded(&[plain(None, Some(b"v"), vec![header("k~k", None)])], Compression::None);
    let at = good.iter().position(|byte| *byte == b'~').unwrap();
    for byte in 0x80..=u8::MAX {
        let mut batch = good.to_vec();
        batch[at] = byte;
        let crc = crc32c::crc32c(&batch[ATTRIBUTES..]);
        batch[CRC..ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
        let words = ["batch is refused", "record 0", "header key", "UTF-8"];
        assert_refused(
            grpc.produce_batch("t", 0, batch.into()).await,
            Code::InvalidArgument,
            &words,
        );
    }
    assert_eq!(grpc.produce_batch("t", 0, good).await.unwrap().base_offset, 0);
}

/// Bytes of a record with a value of so many bytes.
fn record_bytes(value_bytes: usize) -> usize {
    let mut encoded = Vec::new();
    encode_record(&mut encoded, 0, 0, None, Some(&vec![0; value_bytes]), [].into_iter());
    encoded.len()
}

/// The value with which a record has as many bytes as its topic takes.
fn largest_value(record_bytes_max: usize) -> usize {
    let value = (0..=record_bytes_max)
        .rev()
        .find(|bytes| record_bytes(*bytes) <= record_bytes_max);
    value.expect("an empty one has room")
}

#[tokio::test]
async fn a_value_of_nothing_and_one_of_the_limit_are_taken_and_a_byte_more_is_not() {
    // Where lengths take one, two and three bytes, and the default.
    for limit in [20, 1_000, 100_000, 1 << 20] {
        let largest = largest_value(limit);
        assert_eq!(record_bytes(largest), limit, "the limit is one that a record can have");
        let (fits, too_large) = (vec![b'x'; largest], vec![b'x'; largest + 1]);
        let agent = Agent::start();
        let grpc = agent.grpc().await;
        let request = v1::CreateTopicRequest {
            name: "t".to_owned(),
            partitions: 1,
            config: Some(v1::TopicConfig {
                record_bytes_max: Some(limit as u32),
                ..v1::TopicConfig::default()
            }),
        };
        grpc.topics().create_topic(request).await.unwrap();
        let words = [
            format!("{} bytes", record_bytes(largest + 1)),
            format!("above the limit of {limit}"),
        ];
        let words = [words[0].as_str(), words[1].as_str()];
        let one = |value: &[u8]| vec![plain(None, Some(value), Vec::new())];

        let refused = grpc.produce("t", 0, one(&too_large)).await;
        assert_refused(refused, Code::InvalidArgument, &words);
        let mut taken = Vec::new();
        for value in [&b""[..], &fits] {
            grpc.produce("t", 0, one(value)).await.unwrap();
            taken.extend(one(value));
        }
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let refused = grpc.produce_batch("t", 0, encoded(&one(&too_large), compression)).await;
            assert_refused(refused, Code::InvalidArgument, &words);
            for value in [&b""[..], &fits] {
                grpc.produce_batch("t", 0, encoded(&one(value), compression))
                    .await
                    .unwrap();
                taken.extend(one(value));
            }
        }
        for flush in [false, true] {
            grpc.partitions("t", flush).await.unwrap();
            assert!(
                read_batches(&grpc, "t").await == taken,
                "limit {limit}, flushed: {flush}"
            );
        }
    }
}

/// A batch has room for 16 MiB, its own header among them: a record of as much is one that no batch can have.
#[tokio::test]
async fn of_the_greatest_limit_a_record_has_room_that_fits_a_batch() {
    const LIMIT: usize = 16 << 20;
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    let request = v1::CreateTopicRequest {
        name: "t".to_owned(),
        partitions: 1,
        config: Some(v1::TopicConfig {
            record_bytes_max: Some(LIMIT as u32),
            ..v1::TopicConfig::default()
        }),
    };
    grpc.topics().create_topic(request).await.unwrap();
    let one = |bytes: usize| vec![plain(None, Some(&vec![b'x'; bytes]), Vec::new())];
    let overhead = encoded(&one(LIMIT / 2), Compression::None).len() - LIMIT / 2;
    let largest = LIMIT - overhead;
    for records in [one(largest + 1), one(LIMIT)] {
        let words = ["above the limit of 16777216"];
        let refused = grpc.produce("t", 0, records.clone()).await;
        assert_refused(refused, Code::InvalidArgument, &words);
        let refused = grpc.produce_batch("t", 0, encoded(&records, Compression::None)).await;
        assert_refused(refused, Code::InvalidArgument, &words);
    }
    let largest = one(largest);
    grpc.produce("t", 0, largest.clone()).await.unwrap();
    grpc.partitions("t", true).await.unwrap();
    assert!(read_batches(&grpc, "t").await == largest);
}
