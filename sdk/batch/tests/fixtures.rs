//! Batches that an independent Kafka client wrote, with what they hold, and the bytes that we write.

#![cfg(feature = "codecs")]

mod support;

use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use millstream_batch::{Batch, BatchBuilder, Compression, Epoch, Limits, Offset};
use serde_json::Value;
use support::{Record, read};

const UNCOMPRESSED: [&str; 6] = [
    "one",
    "nulls",
    "headers",
    "time_goes_back",
    "large_value",
    "thousand_none",
];
const COMPRESSED: [&str; 2] = ["thousand_lz4", "thousand_zstd"];

fn fixture(name: &str) -> (Bytes, Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    let bytes = fs::read(path.with_extension("bin")).unwrap();
    let json = fs::read(path.with_extension("json")).unwrap();
    (bytes.into(), serde_json::from_slice(&json).unwrap())
}

fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    value.as_str().map(|text| BASE64_STANDARD.decode(text).unwrap())
}

fn record_of(value: &Value) -> Record {
    let headers = value["headers"].as_array().unwrap().iter();
    Record {
        timestamp_ms: value["timestamp"].as_i64().unwrap(),
        key: bytes_of(&value["key"]),
        value: bytes_of(&value["value"]),
        headers: headers
            .map(|header| (header[0].as_str().unwrap().to_owned(), bytes_of(&header[1])))
            .collect(),
    }
}

#[test]
fn every_foreign_batch_reads_as_what_it_holds() {
    for name in UNCOMPRESSED.into_iter().chain(COMPRESSED) {
        let (bytes, json) = fixture(name);
        let batch =
            Batch::validate(bytes.clone(), &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let header = batch.header();
        assert_eq!(batch.compression().name(), json["codec"], "{name}");
        assert_eq!(header.base_offset, json["base_offset"], "{name}");
        assert_eq!(header.producer_id, json["producer_id"], "{name}");
        assert_eq!(header.producer_epoch, json["producer_epoch"], "{name}");
        assert_eq!(header.base_sequence, json["base_sequence"], "{name}");
        assert_eq!(header.crc, json["crc32c"], "{name}");
        assert_eq!(header.record_count, json["count"], "{name}");
        assert_eq!(header.base_timestamp_ms, json["base_timestamp"], "{name}");
        assert_eq!(header.max_timestamp_ms, json["max_timestamp"], "{name}");

        let records = json["records"].as_array().unwrap();
        assert_eq!(
            read(&batch),
            records.iter().map(record_of).collect::<Vec<_>>(),
            "{name}"
        );
        for (record, offset) in records.iter().zip(batch.base_offset().0..) {
            assert_eq!(offset, record["offset"], "{name}");
        }
        assert_eq!(
            batch.next_offset(),
            batch.base_offset() + records.len() as u64,
            "{name}"
        );
        assert_eq!(batch.encoded_len(), bytes.len(), "{name}");
        assert_eq!(batch.to_bytes(), bytes, "{name}");
    }
}

#[test]
fn uncompressed_foreign_batches_are_written_back_byte_for_byte() {
    for name in UNCOMPRESSED {
        let (bytes, json) = fixture(name);
        let mut builder = BatchBuilder::new();
        for record in json["records"].as_array().unwrap().iter().map(record_of) {
            builder.push(
                record.timestamp_ms,
                record.key.as_deref(),
                record.value.as_deref(),
                record.headers(),
            );
        }
        let number = |field: &str| json[field].as_i64().unwrap();
        let mut batch = builder.build(Compression::None).with_producer(
            number("producer_id"),
            number("producer_epoch") as i16,
            number("base_sequence") as i32,
        );
        batch.stamp(Offset(number("base_offset") as u64), Epoch(0));
        assert_eq!(batch.to_bytes(), bytes, "{name}");
    }
}

#[test]
fn compressed_foreign_batches_hold_the_records_of_the_uncompressed_one() {
    let (plain, _) = fixture("thousand_none");
    let plain = Batch::validate(plain, &Limits::default()).unwrap();
    for name in COMPRESSED {
        let (bytes, _) = fixture(name);
        let batch = Batch::validate(bytes, &Limits::default()).unwrap();
        assert_eq!(&batch.decompressed(64 << 20).unwrap(), plain.records(), "{name}");
    }
}

#[test]
fn batches_back_to_back_come_off_one_by_one() {
    let mut all = BytesMut::new();
    let batches = UNCOMPRESSED.map(|name| Batch::validate(fixture(name).0, &Limits::default()).unwrap());
    batches.iter().for_each(|batch| batch.encode_into(&mut all));
    let mut rest = all.freeze();
    for batch in &batches {
        assert_eq!(&Batch::split_first(&mut rest).unwrap(), batch);
    }
    assert!(rest.is_empty());
}

#[test]
fn the_builder_writes_the_golden_bytes() {
    let mut builder = BatchBuilder::new();
    builder.push(
        1_000,
        Some(b"k"),
        Some(b"value"),
        [("h", Some(&b"x"[..])), ("n", None)].into_iter(),
    );
    builder.push(936, None, Some(b""), std::iter::empty());
    let mut batch = builder.build(Compression::None).with_producer(7, 1, 5);
    batch.stamp(Offset(258), Epoch(3));
    let golden = [
        &b"\x00\x00\x00\x00\x00\x00\x01\x02"[..],                 // base offset
        b"\x00\x00\x00\x4c",                                      // length
        b"\x00\x00\x00\x03",                                      // leader epoch
        b"\x02",                                                  // magic
        b"\xc7\xf7\x3b\xb0",                                      // crc
        b"\x00\x00",                                              // attributes
        b"\x00\x00\x00\x01",                                      // last offset delta
        b"\x00\x00\x00\x00\x00\x00\x03\xe8",                      // base timestamp
        b"\x00\x00\x00\x00\x00\x00\x03\xe8",                      // max timestamp
        b"\x00\x00\x00\x00\x00\x00\x00\x07",                      // producer id
        b"\x00\x01",                                              // producer epoch
        b"\x00\x00\x00\x05",                                      // base sequence
        b"\x00\x00\x00\x02",                                      // record count
        b"\x26\x00\x00\x00\x02k\x0avalue\x04\x02h\x02x\x02n\x01", // first record
        b"\x0c\x00\x7f\x02\x01\x00\x00",                          // second record
    ]
    .concat();
    assert_eq!(batch.to_bytes(), golden);
}
