//! What the modules are measured on.

use std::fmt::Write as _;

use millstream_batch::{Batch, BatchBuilder, Compression};
use millstream_tests::Random;

/// Batches of a measurement, so that no processor learns one of them by heart.
const BATCHES: u64 = 16;
/// The records of every run are the same.
const SEED: u64 = 0x6d69_6c6c;
const INFALLIBLE: &str = "writing to a string does not fail";
const BASE_TIMESTAMP_MS: i64 = 1_767_225_600_000;

/// Records of a batch of lines, and bytes of each.
pub const LINES: u64 = 1_000;
const LINE_BYTES: usize = 100;
/// Every fourth line contains it.
pub const WORD: &str = "timeout";
const WORDS: [&str; 10] = [
    "GET",
    "request",
    "upstream",
    "took",
    "time",
    "retry",
    "of",
    "connection",
    "10.0.7.19",
    "tile",
];

/// Batches of 1,000 lines of a log, 100 bytes each.
pub fn lines() -> Vec<Batch> {
    batches(LINES, |random, _| {
        let word_at = match random.within(0..4) {
            0 => random.within(0..80) as usize,
            _ => usize::MAX,
        };
        let mut line = String::new();
        while line.len() < LINE_BYTES {
            let ends_in = LINE_BYTES - line.len();
            if line.len() >= word_at && !line.contains(WORD) && ends_in >= WORD.len() {
                line.push_str(WORD);
            } else {
                line.push_str(WORDS[random.within(0..WORDS.len() as u64) as usize]);
            }
            line.push(' ');
        }
        line.truncate(LINE_BYTES);
        (None, line)
    })
}

/// Records of a batch of orders.
pub const ORDERS: u64 = 500;

/// Batches of 500 orders of a shop, as JSON of about 640 bytes.
pub fn orders() -> Vec<Batch> {
    batches(ORDERS, |random, seq| {
        let customer = random.within(0..60_000);
        let mut json = format!(
            r#"{{"seq":{seq},"order":"order-{seq}","placed_at":{at},"status":"paid","customer":{{"id":"c-{customer:05}","name":"Zoë Lindqvist"}},"email":"customer.{customer:05}@example.org","card":{{"number":"4000{card:012}","expires":"11/29"}},"payment":{{"method":"card","authorised":true}},"shipping":{{"street":"Hauptstraße {house}","city":"Uppsala","postcode":"{postcode:05}","carrier":"postnord"}},"items":["#,
            at = BASE_TIMESTAMP_MS + seq as i64 * 250,
            card = random.within(0..1_000_000_000_000),
            house = random.within(1..180),
            postcode = random.within(10_000..99_999),
        );
        for i in 0..random.within(2..5) {
            let comma = if i == 0 { "" } else { "," };
            let (sku, cents) = (random.within(0..100_000), random.within(600..4_300));
            write!(
                json,
                r#"{comma}{{"sku":"M-{sku:05}","name":"oak cutting board","quantity":{i},"price_cents":{cents}}}"#
            )
            .expect(INFALLIBLE);
        }
        write!(
            json,
            r#"],"total_cents":{},"currency":"EUR"}}"#,
            random.within(600..20_000)
        )
        .expect("writing to a string does not fail");
        (Some(format!("order-{seq}")), json)
    })
}

fn batches(count: u64, mut record: impl FnMut(&mut Random, u64) -> (Option<String>, String)) -> Vec<Batch> {
    let mut random = Random::from_seed(SEED);
    (0..BATCHES)
        .map(|batch| {
            let mut builder = BatchBuilder::new();
            for index in 0..count {
                let (key, value) = record(&mut random, batch * count + index);
                let timestamp_ms = BASE_TIMESTAMP_MS + index as i64;
                let key = key.as_deref().map(str::as_bytes);
                builder.push(timestamp_ms, key, Some(value.as_bytes()), std::iter::empty());
            }
            builder.build(Compression::None)
        })
        .collect()
}
