use millstream_postgres::Server;
use sqlx::PgPool;
use uuid::Uuid;

use super::*;
use crate::database::sql;
use crate::{Metadata, NewIncarnation, WalKind};

const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_writes_is_serializable_whatever_its_session_was_told() {
    let database = Server::shared().database();
    let plain = || Pool::Postgres(PgPool::connect_lazy(database.url()).unwrap());
    let database = Database::new(plain(), plain(), plain(), "here".into(), PATIENCE);
    let isolation = database.transaction(|mut tx| async move {
        let row = tx
            .one(sql("SELECT current_setting('transaction_isolation') AS it"))
            .await?;
        row.expect("it gives one").text("it")
    });
    assert_eq!(isolation.await.unwrap(), "serializable");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_urgent_waits_for_no_writer() {
    let database = Server::shared().database();
    let settings = MetadataSettings {
        connections_max: 4,
        ..MetadataSettings::at(database.url())
    };
    let metadata = Metadata::open_with(&settings).await.unwrap();
    let new = NewIncarnation {
        agent_name: "a",
        address: "host:7070",
        incarnation: Uuid::from_u128(1),
        wal_kind: WalKind::Disk,
        lease: Duration::from_secs(60),
    };
    metadata.register_incarnation(&new, 0).await.unwrap();
    // The only connection that writes has its hands full.
    let writing = metadata.database.begin_once().await.unwrap();
    let urgent = async {
        metadata.renew_leases(new.incarnation, new.lease).await.unwrap();
        metadata.holds_leases(&[]).await.unwrap();
        metadata.leave(new.incarnation).await.unwrap();
    };
    timeout(PATIENCE, urgent).await.expect("it waits for nobody");
    drop(writing);
}
