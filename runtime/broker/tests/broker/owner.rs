//! One object store belongs to one database.

use std::{sync::Arc, time::Duration};

use millstream_broker::{Broker, BrokerError, Settings, TopicConfig};
use millstream_meta::{ImportOptions, Metadata};
use uuid::Uuid;

use crate::support::{World, numbered, read_all, segment, topic};

async fn open_with_another_database(world: &World) -> Result<(), BrokerError> {
    let other = World::new();
    let opened = Broker::open(
        Settings::default(),
        world.clock.clone(),
        other.metadata().await,
        world.store(),
        other.wals(),
    );
    opened.await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_database_is_refused_and_loses_nothing() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    segment(&broker, "t", 0, 0..10).await;

    let error = open_with_another_database(&world).await.unwrap_err();
    assert!(matches!(error, BrokerError::StoreOwned { .. }), "{error}");
    let again = world.open(|settings| settings.orphan_grace = Duration::ZERO).await;
    again.sweep().await.unwrap();
    assert_eq!(read_all(&again, "t", 0).await, numbered(0..10));
}

/// A new database that was filled from another.
async fn imported(world: &World, from: &Metadata, number: u128) -> Metadata {
    let mut snapshot = std::io::Cursor::new(Vec::new());
    from.export(&mut snapshot, 0, &|_| {}).await.unwrap();
    let file = world.dir.path().join(format!("imported-{number}.db"));
    let metadata = Metadata::open(&format!("sqlite:{}", file.display())).await.unwrap();
    let options = ImportOptions {
        database: Uuid::from_u128(number),
        running: true,
    };
    let mut lines = &snapshot.into_inner()[..];
    metadata.import(&mut lines, options, &|_| {}).await.unwrap();
    metadata
}

async fn started(world: &World, metadata: &Metadata, name: &str) -> Result<Arc<Broker>, BrokerError> {
    let disk = format!("wal-of-{name}");
    let open = world.open_over(metadata.clone(), name, &disk, |settings| {
        settings.orphan_grace = Duration::ZERO
    });
    open.await
}

async fn assert_owned(refused: Result<Arc<Broker>, BrokerError>, owner: u128, words: &str) {
    let error = match refused {
        Ok(_) => panic!("it is not the owner"),
        Err(error) => error,
    };
    let text = error.to_string();
    assert!(matches!(error, BrokerError::StoreOwned { .. }), "{text}");
    assert!(
        text.contains(&Uuid::from_u128(owner).to_string()) && text.contains(words),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_databases_with_one_former_the_first_follows_it_and_everybody_else_is_refused() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    segment(&broker, "t", 0, 0..10).await;
    broker.stop().await;
    let first = world.metadata().await;
    let (second, again) = (
        imported(&world, &first, 2_000).await,
        imported(&world, &first, 3_000).await,
    );

    let broker = started(&world, &second, "b").await.unwrap();
    assert_owned(started(&world, &again, "c").await, 2_000, "bring back the database").await;
    assert_owned(started(&world, &first, "d").await, 2_000, "was left for that one").await;
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..10));
    broker.stop().await;
    // It is claimed once.
    started(&world, &second, "b").await.unwrap().stop().await;

    let third = imported(&world, &second, 4_000).await;
    started(&world, &third, "b").await.unwrap().stop().await;
    assert_owned(started(&world, &first, "d").await, 4_000, "was left for that one").await;
    let marks = world.store().list("_owner").await.unwrap();
    assert_eq!(
        marks,
        [
            "_owner/database.json",
            "_owner/database_000001.json",
            "_owner/database_000002.json"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_database_was_left_deletes_nothing_any_more() {
    let world = World::new();
    let old = world.open(|settings| settings.orphan_grace = Duration::ZERO).await;
    topic(&old, "t", TopicConfig::default()).await;
    segment(&old, "t", 0, 0..10).await;
    old.sweep().await.unwrap();
    let second = imported(&world, &world.metadata().await, 2_000).await;
    let new = started(&world, &second, "b").await.unwrap();
    topic(&new, "u", TopicConfig::default()).await;
    segment(&new, "u", 0, 0..10).await;
    // What only the new database names, under a name that the old one has too.
    topic(&old, "u", TopicConfig::default()).await;
    segment(&old, "u", 1, 0..1).await;

    let before = world.segments("u").await;
    let refused = old.sweep().await.unwrap_err();
    assert!(matches!(refused, BrokerError::StoreOwned { .. }), "{refused}");
    assert_eq!(world.segments("u").await, before);
    assert_eq!(read_all(&new, "u", 0).await, numbered(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_of_a_later_format_is_not_guessed_at() {
    let world = World::new();
    let mark = br#"{"format":2,"database":"00000000-0000-0000-0000-000000000001"}"#;
    let mark = vec![bytes::Bytes::from_static(mark)];
    world
        .store()
        .put_new("_owner/database_000007.json", mark)
        .await
        .unwrap();
    let broker = world.open(|_| {}).await;
    let refused = broker.sweep().await.unwrap_err().to_string();
    assert!(refused.contains("format 2 is not understood"), "{refused}");
}
