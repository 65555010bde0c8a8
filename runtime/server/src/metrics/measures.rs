//! What the broker and its write-ahead log measure, under the names that it is known by.

use millstream_broker::Broker;
use prometheus_client::registry::Registry;

pub(super) fn register(registry: &mut Registry, broker: &Broker) {
    let measures = broker.measures().clone();
    registry.register(
        "produce_seconds",
        "From a batch's arrival to its answer",
        measures.produce_seconds,
    );
    registry.register("produced_records", "Records stored", measures.produce_records);
    registry.register(
        "produced_bytes",
        "Bytes of the batches that were acknowledged, as they came",
        measures.produce_bytes,
    );
    registry.register(
        "producer_batches",
        "Batches of idempotent producers by what their numbers said",
        measures.producer_batches,
    );
    registry.register(
        "fetch_seconds",
        "Reading one partition for an answer, without the wait for records",
        measures.fetch_seconds,
    );
    registry.register(
        "fetched_records",
        "Records in answers to fetches",
        measures.fetch_records,
    );
    registry.register(
        "fetched_bytes",
        "Bytes of the batches in answers to fetches",
        measures.fetch_bytes,
    );
    registry.register(
        "upload_seconds",
        "From the marking of a range of records to the commit of its segment",
        measures.upload_seconds,
    );
    registry.register(
        "uploaded_bytes",
        "Bytes of the segments that were committed, as stored",
        measures.upload_bytes,
    );
    let wal = broker.wal_measures();
    registry.register(
        "wal_group_bytes",
        "Bytes of a group of the write-ahead log",
        wal.group_bytes,
    );
    registry.register(
        "wal_sync_seconds",
        "How long a group of the write-ahead log took to become durable: a sync, or the put of an object",
        wal.sync_seconds,
    );
}
