//! Modules that refuse or fail on the records that hold an X, and topics that run them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use millstream_batch::{BatchBuilder, Compression, Offset, RecordIter, encode_record};
use millstream_broker::{
    Acks, Broker, BrokerError, ChangeOptions, DeployOptions, FetchQuery, OnError, Receipt, Side, StageFigures,
    StageSpec,
};

#[path = "../../../../tests/src/wat.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod wat;

pub use wat::{HALVES, KEEPS, TRAPS, answers, module, stamps};

/// Walks over records of less than 64 bytes; `found` runs once for each that holds an X, with its number in `$n`.
fn on_x(found: &str, end: &str) -> String {
    format!(
        r#"(local $p i32) (local $e i32) (local $n i32) (local $r i32)
    (local.set $p (local.get $ptr))
    (block $end (loop $records
      (br_if $end (i32.ge_u (local.get $n) (local.get $count)))
      (local.set $e (i32.add (i32.add (local.get $p) (i32.const 1)) (i32.shr_u (i32.load8_u (local.get $p)) (i32.const 1))))
      (block $next (loop $bytes
        (br_if $next (i32.ge_u (local.get $p) (local.get $e)))
        (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 88)) (then {found} (br $next)))
        (local.set $p (i32.add (local.get $p) (i32.const 1)))
        (br $bytes)))
      (local.set $p (local.get $e))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br $records)))
    {end} (i32.const 1024)"#
    )
}

/// Traps on a record with an X.
pub fn traps_on_x() -> Bytes {
    module(&on_x("(unreachable)", ""))
}

/// Another version of it.
pub fn traps_on_x_too() -> Bytes {
    module(&on_x("(nop) (unreachable)", ""))
}

/// Never comes back from a record with an X.
pub fn loops_on_x() -> Bytes {
    module(&on_x("(loop $for_ever (br $for_ever))", ""))
}

/// Refuses a record with an X: "test".
pub fn rejects_x() -> Bytes {
    let reject = "(i32.store (i32.add (i32.const 4096) (i32.mul (local.get $r) (i32.const 12))) (local.get $n))
        (i32.store (i32.add (i32.const 4100) (i32.mul (local.get $r) (i32.const 12))) (i32.const 3000))
        (i32.store (i32.add (i32.const 4104) (i32.mul (local.get $r) (i32.const 12))) (i32.const 4))
        (local.set $r (i32.add (local.get $r) (i32.const 1)))";
    let end = "(i32.store (i32.const 1048) (i32.const 4096)) (i32.store (i32.const 1052) (local.get $r))";
    module(&on_x(reject, end))
}

/// Makes these of the only record of a batch.
pub fn becomes(values: &[&str]) -> Bytes {
    rewrites(&[values.len() as u32], values)
}

/// Makes the first of these of the first record of a batch, and so on.
pub fn each_becomes(values: &[&str]) -> Bytes {
    rewrites(&vec![1; values.len()], values)
}

fn rewrites(counts: &[u32], values: &[&str]) -> Bytes {
    let mut records = Vec::new();
    for value in values {
        encode_record(&mut records, 0, 0, None, Some(value.as_bytes()), [].into_iter());
    }
    let text = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\{byte:02x}")).collect::<String>();
    let counts = counts.iter().flat_map(|count| count.to_le_bytes()).collect::<Vec<_>>();
    let parts = wat::Parts {
        items: &format!(
            r#"(data (i32.const 4096) "{}") (data (i32.const 8192) "{}")"#,
            text(&counts),
            text(&records)
        ),
        process: &format!(
            "(call $rewrite (i32.const 4096) (local.get $count) (i32.const 8192) (i32.const {}))",
            records.len()
        ),
        ..wat::Parts::default()
    };
    parts.module()
}

/// Drops every record of a batch that has this word of four letters in it.
pub fn drops_where_it_says(word: &str) -> Bytes {
    let none = wat::KEEPS_NONE;
    module(&wat::where_it_says(
        word,
        &format!("(return (block (result i32) {none}))"),
    ))
}

/// Logs two hundred lines.
pub fn logs_a_lot() -> Bytes {
    let parts = wat::Parts {
        imports: wat::LOG,
        process: wat::LOGS_A_LOT,
        ..wat::Parts::default()
    };
    parts.module()
}

/// Deploys a module.
pub async fn deploy(broker: &Arc<Broker>, name: &str, component: Bytes) {
    broker
        .deploy_module(name, component, DeployOptions::default())
        .await
        .unwrap();
}

/// Binds a deployed module to a topic.
pub async fn bind(
    broker: &Arc<Broker>,
    topic: &str,
    side: Side,
    module: &str,
    on_error: OnError,
) -> Result<(), BrokerError> {
    bind_with(broker, topic, side, module, |stage| stage.on_error = Some(on_error)).await
}

pub async fn bind_with(
    broker: &Arc<Broker>,
    topic: &str,
    side: Side,
    module: &str,
    change: impl FnOnce(&mut StageSpec),
) -> Result<(), BrokerError> {
    let mut stage = StageSpec::new(module, 1);
    change(&mut stage);
    let options = ChangeOptions {
        no_trial_call: true,
        ..ChangeOptions::default()
    };
    broker.add_stage(topic, side, stage, options).await.map(drop)
}

/// A batch of these values, each with a key and a header.
pub fn batch_of(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for (i, value) in values.iter().enumerate() {
        let header = ("h", Some(&b"1"[..]));
        builder.push(
            1_000 + i as i64,
            Some(b"k"),
            Some(value.as_bytes()),
            [header].into_iter(),
        );
    }
    builder.build(Compression::None).to_bytes()
}

pub async fn produce(broker: &Broker, topic: &str, values: &[&str]) -> Result<Receipt, BrokerError> {
    broker.produce(topic, 0, batch_of(values), Acks::Durable).await
}

/// Offsets and values from an offset on, and where the reader is then.
pub async fn fetch(broker: &Broker, topic: &str, offset: u64) -> Result<(Vec<(u64, String)>, u64), BrokerError> {
    let query = FetchQuery {
        topic: topic.to_owned(),
        partition: 0,
        offset: Offset(offset),
        bytes_max: 1 << 20,
        bytes_min: 0,
        wait: Duration::ZERO,
        stage: None,
    };
    let fetched = broker.fetch(query).await?;
    let mut found = Vec::new();
    for batch in &fetched.batches {
        for record in RecordIter::new(batch.records()) {
            let record = record.unwrap();
            let at = batch.base_offset().0 + record.offset_delta as u64;
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            if at >= offset {
                found.push((at, value));
            }
        }
    }
    Ok((found, fetched.next_offset.0))
}

/// The values of a whole partition.
pub async fn values(broker: &Broker, topic: &str) -> Vec<String> {
    let (found, _) = fetch(broker, topic, 0).await.unwrap();
    found.into_iter().map(|(_, value)| value).collect()
}

/// How a topic's only stage has fared.
pub fn figures(broker: &Broker, topic: &str) -> StageFigures {
    let all = broker.stage_figures().into_iter();
    let mut of_topic: Vec<_> = all.filter(|figures| figures.topic == topic).collect();
    assert_eq!(of_topic.len(), 1);
    of_topic.remove(0)
}
