//! Whatever was acknowledged is there again.

use std::time::Duration;

use millstream_batch::Offset;
use millstream_broker::{
    Acks, Broker, BrokerError, Settings, TimestampType, TopicConfig, WalKind,
    rebuild::{RebuildSettings, rebuild},
};
use millstream_log::Store;
use uuid::Uuid;

use crate::{
    another_database, rebuilt, reopened, settings,
    support::{World, batch, numbered, read_all, segment, status, topic, until},
};

fn forever() -> TopicConfig {
    TopicConfig {
        retention_ms: None,
        segment_bytes: 12_345_678,
        ..TopicConfig::default()
    }
}

/// Segments, some merged, and records in the log alone; then the process and the database are gone.
async fn lose(world: &World) {
    let broker = world
        .open(|settings| settings.deletion_grace = Duration::from_secs(60))
        .await;
    topic(&broker, "t", forever()).await;
    for n in 0..6 {
        segment(&broker, "t", 0, n * 10..n * 10 + 10).await;
        world.clock.advance(Duration::from_secs(1));
    }
    broker.sweep().await.unwrap();
    segment(&broker, "t", 0, 60..70).await;
    for values in [70..75, 75..77] {
        broker.produce("t", 0, batch(values), Acks::Durable).await.unwrap();
    }
    broker.produce("t", 1, batch(0..3), Acks::Durable).await.unwrap();
}

async fn comes_back(wal: WalKind) {
    let mut world = World::new();
    world.wal = wal;
    lose(&world).await;

    let dry = RebuildSettings {
        dry_run: true,
        ..settings(&world)
    };
    let (metadata, report) = rebuilt(&world, &dry).await.unwrap();
    assert!(!report.written && metadata.topics().await.unwrap().is_empty());
    metadata.close().await;

    let (metadata, report) = rebuilt(&world, &settings(&world)).await.unwrap();
    assert!(report.written);
    assert_eq!((report.segments, report.gaps.len()), (2, 0));
    assert_eq!(report.left_out["merged"].count, 6, "{:?}", report.left_out);
    let partition = &report.topics[0].partitions[0];
    assert_eq!(
        (partition.log_start, partition.committed_end, partition.end),
        (0, 70, 77)
    );
    let restored = metadata.topic("t").await.unwrap().unwrap();
    assert_eq!((restored.partitions, restored.config), (2, forever()));
    let identity = metadata.identity(Uuid::nil()).await.unwrap();
    assert_eq!(identity.id, settings(&world).database);
    assert_eq!(identity.former.map(|id| id.to_string()), report.database);

    let broker = reopened(&world, metadata).await;
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..77));
    assert_eq!(read_all(&broker, "t", 1).await, numbered(0..3));
    segment(&broker, "t", 0, 77..80).await;
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..80));
    // The sources of the merge go after the grace, and nothing else does.
    world.clock.advance(Duration::from_secs(7_200));
    broker.sweep().await.unwrap();
    broker.sweep().await.unwrap();
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..80));
    assert!(status(&broker, "t", 0).await.segment_count <= 4);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_with_the_log_on_the_disk() {
    comes_back(WalKind::Disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_with_the_log_in_the_store() {
    comes_back(WalKind::Object).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_those_of_the_newest_manifest_and_epochs_are_above_all_that_were() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    let made = topic(&broker, "t", forever()).await;
    segment(&broker, "t", 0, 0..10).await;
    broker.sweep().await.unwrap();
    let old = world.metadata().await.segments(made.id, 0, Offset(0), 1).await.unwrap();
    let changed = TopicConfig {
        retention_bytes: Some(1 << 40),
        timestamp_type: TimestampType::Append,
        default_acks: Acks::Memory,
        ..forever()
    };
    world
        .metadata()
        .await
        .alter_topic(made.id, &forever(), &changed, Some(5))
        .await
        .unwrap();
    broker.sweep().await.unwrap();
    let (metadata, report) = rebuilt(&world, &settings(&world)).await.unwrap();
    let topic = metadata.topic("t").await.unwrap().unwrap();
    assert_eq!((topic.config, topic.partitions), (changed, 5));
    let rows = metadata.segments(made.id, 0, Offset(0), 10).await.unwrap();
    assert_eq!(rows, old, "a row is what it was, its etag included");
    assert!(report.topics[0].partitions[0].epoch > old[0].epoch.0 + 1_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_only_in_the_log_comes_back_under_a_made_up_name() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    let made = topic(&broker, "t", forever()).await;
    broker.produce("t", 1, batch(0..5), Acks::Durable).await.unwrap();
    for key in world.store().list("t").await.unwrap() {
        world.store().delete(&key).await.unwrap();
    }
    let (metadata, report) = rebuilt(&world, &settings(&world)).await.unwrap();
    let name = format!("recovered-{}", made.id);
    assert!(report.warnings.iter().any(|warning| warning.contains(&name)));
    let broker = reopened(&world, metadata).await;
    assert_eq!(read_all(&broker, &name, 1).await, numbered(0..5));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_store_is_an_empty_database() {
    let world = World::new();
    let (_, report) = rebuilt(&world, &settings(&world)).await.unwrap();
    assert!(report.topics.is_empty() && report.database.is_none());
    let broker = reopened(&world, another_database(&world).await).await;
    topic(&broker, "t", forever()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_opened_again_comes_back_with_its_tail() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", forever()).await;
    for n in 0..6 {
        segment(&broker, "t", 0, n * 10..n * 10 + 10).await;
        world.clock.advance(Duration::from_secs(1));
    }
    broker.produce("t", 0, batch(60..65), Acks::Durable).await.unwrap();
    // Somebody had the lease for a moment: the tail is taken up from memory, and only our log has it, under the epoch from
    // before. The merge is of the new one.
    world
        .execute("UPDATE partitions SET epoch = epoch + 1 WHERE partition = 0")
        .await;
    broker.topic("t", true).await.unwrap_err();
    until("it is open again", || async { broker.offsets("t", 0).await.is_ok() }).await;
    broker.sweep().await.unwrap();
    let (metadata, report) = rebuilt(&world, &settings(&world)).await.unwrap();
    let partition = &report.topics[0].partitions[0];
    assert_eq!(
        (partition.segments, partition.committed_end, partition.end),
        (1, 60, 65)
    );
    let broker = reopened(&world, metadata).await;
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..65));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lost_database_is_refused_once_an_agent_has_started_with_the_new_one() {
    let world = World::new();
    lose(&world).await;
    let (metadata, _) = rebuilt(&world, &settings(&world)).await.unwrap();
    let broker = reopened(&world, metadata).await;
    let refused = world.open_agent("old", "other-wal", |_| {}).await.err().unwrap();
    assert!(matches!(refused, BrokerError::StoreOwned { .. }), "{refused}");
    broker.stop().await;
    // And the next one follows the new one.
    std::fs::remove_file(world.dir.path().join("another.db")).unwrap();
    let again = RebuildSettings {
        database: Uuid::from_u128(0xda7b),
        ..settings(&world)
    };
    let (_, report) = rebuilt(&world, &again).await.unwrap();
    assert_eq!(report.database, Some(settings(&world).database.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_files_is_rebuilt_and_its_own_folders_are_no_objects() {
    let world = World::new();
    let store = Store::local(world.dir.path().join("objects")).unwrap();
    let open = |metadata| {
        let settings = Settings {
            agent_name: "test".to_owned(),
            ..Settings::default()
        };
        Broker::open(settings, world.clock.clone(), metadata, store.clone(), world.wals())
    };
    let broker = open(world.metadata().await).await.unwrap();
    topic(&broker, "t", forever()).await;
    segment(&broker, "t", 0, 0..10).await;
    broker.produce("t", 0, batch(10..12), Acks::Durable).await.unwrap();
    let metadata = another_database(&world).await;
    assert!(metadata.cached().topic("t").await.unwrap().is_none());
    let report = rebuild(&metadata, &store, &world.wals(), &settings(&world), &|_| {}).await;
    let left_out = report.unwrap().left_out;
    assert!(left_out.is_empty(), "{left_out:?}");
    assert!(metadata.cached().topic("t").await.unwrap().is_some());
    let broker = open(metadata).await.unwrap();
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..12));
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_of_two_topics_under_one_name_are_told_of() {
    let world = World::new();
    let broker = world
        .open(|settings| settings.deletion_grace = Duration::from_secs(60))
        .await;
    let first = topic(&broker, "t", forever()).await;
    broker.sweep().await.unwrap();
    broker.delete_topic("t").await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    let second = topic(&broker, "t", forever()).await;
    broker.sweep().await.unwrap();
    assert_ne!(first.id, second.id);
    let (metadata, report) = rebuilt(&world, &settings(&world)).await.unwrap();
    let told = report
        .warnings
        .iter()
        .find(|warning| warning.contains("2 topics had the name"));
    assert!(
        told.is_some_and(|told| told.contains(&second.id.to_string())),
        "{:?}",
        report.warnings
    );
    assert_eq!(metadata.topic("t").await.unwrap().unwrap().id, second.id);
}
