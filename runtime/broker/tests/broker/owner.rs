//! One object store belongs to one database.

use std::time::Duration;

use millstream_broker::{Broker, BrokerError, Settings, TopicConfig};

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
