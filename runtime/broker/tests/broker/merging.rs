//! Many small segments become few, and nobody sees a difference.

use std::time::Duration;

use millstream_batch::Offset;
use millstream_broker::TopicConfig;
use millstream_log::SegmentReader;

use crate::support::{World, numbered, read_all, segment, status, topic};

fn forever() -> TopicConfig {
    TopicConfig {
        retention_ms: None,
        ..TopicConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_segments_become_one_with_the_same_records() {
    let world = World::new();
    let broker = world
        .open(|settings| settings.deletion_grace = Duration::from_secs(60))
        .await;
    let t = topic(&broker, "t", forever()).await;
    for n in 0..6 {
        segment(&broker, "t", 0, n * 10..n * 10 + 10).await;
        world.clock.advance(Duration::from_secs(1));
    }
    let before = status(&broker, "t", 0).await;
    assert_eq!(before.segment_count, 6);
    broker.sweep().await.unwrap();
    let after = status(&broker, "t", 0).await;
    assert_eq!((after.segment_count, after.raw_bytes), (1, before.raw_bytes));
    assert_eq!(broker.stats().merges_done, 1);
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..60));

    let rows = world.metadata().await.segments(t.id, 0, Offset(0), 10).await.unwrap();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(
        row.created_at_ms,
        crate::support::NOW_MS + 5_000,
        "as young as its youngest source"
    );
    let store = world.store();
    let reader = SegmentReader::open(&store, &row.key, row.stored_bytes, row.etag.as_deref())
        .await
        .unwrap();
    assert_eq!(reader.notes().unwrap().pipelines.len(), 1);
    assert_eq!(reader.identity().created_at_ms, row.created_at_ms);

    assert_eq!(
        world.segments("t").await.len(),
        7,
        "a reader may still hold the old index"
    );
    world.clock.advance(Duration::from_secs(61));
    broker.sweep().await.unwrap();
    assert_eq!(world.segments("t").await, std::slice::from_ref(&row.key));
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..60));
    let again = world.open(|_| {}).await;
    assert_eq!(read_all(&again, "t", 0).await, numbered(0..60));
}

#[tokio::test(flavor = "multi_thread")]
async fn merging_goes_on_while_segments_come_and_go() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", forever()).await;
    for n in 0..40 {
        segment(&broker, "t", 0, n * 10..n * 10 + 10).await;
        if n == 20 {
            broker.truncate("t", 0, Offset(55)).await.unwrap();
        }
        broker.sweep().await.unwrap();
    }
    let status = status(&broker, "t", 0).await;
    assert!(status.segment_count < 12, "{status:?}");
    assert_eq!(read_all(&broker, "t", 0).await, numbered(55..400));
    assert_eq!(world.segments("t").await.len() as u64, status.segment_count);
}
