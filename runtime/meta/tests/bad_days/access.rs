//! Whom the server lets in, and that nothing tells a password.

use millstream_meta::{MetaError, Metadata, MetadataSettings};
use millstream_postgres::{Options, PASSWORD, Server, USER};

use crate::{keeps_the_password, leases, new_segment, refused, says, settings};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_a_password_gets_it_from_the_url_and_nobody_else_does() {
    let Some(server) = Server::start_with(&Options::default().password()) else {
        return;
    };
    let database = server.database();
    let metadata = Metadata::open(database.url()).await.unwrap();
    let lease = leases(&metadata, 1).await.remove(0);
    metadata.commit_segment(&lease, &new_segment("a", 0, 1)).await.unwrap();
    assert_eq!(
        metadata.place(),
        format!("postgres://{USER}@127.0.0.1:{}/{}", server.port(), database.name())
    );
    keeps_the_password(&format!("{metadata:?} {:?}", settings(database.url())));

    let escaped = PASSWORD.replace('@', "%40");
    let wrong = database.url().replace(&escaped, "wr%40ng-heim");
    let missing = database.url().replace(&format!(":{escaped}"), "");
    for url in [wrong, missing] {
        let error = refused(&url).await;
        assert!(!matches!(error, MetaError::Unavailable { .. }), "{error:?}");
        says(&error, &["password", USER]);
        assert!(!format!("{error:?}").contains("heim"), "{error:?}");
    }
    let stranger = database
        .url()
        .replace(USER, "stranger")
        .replace("stranger_", &format!("{USER}_"));
    says(&refused(&stranger).await, &["stranger", "password"]);

    server.stop(millstream_postgres::Stop::Fast);
    says(&metadata.topics().await.unwrap_err(), &[]);
    says(&refused(database.url()).await, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_not_tried_again_with_patience() {
    let Some(server) = Server::start_with(&Options::default().password()) else {
        return;
    };
    let url = server.url("postgres").replace(&PASSWORD.replace('@', "%40"), "wrong");
    let start = std::time::Instant::now();
    let error = Metadata::open_with(&MetadataSettings::at(&url)).await.unwrap_err();
    assert!(
        start.elapsed() < std::time::Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    says(&error, &["password"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_exist_is_to_be_made() {
    let Some(server) = Server::start() else { return };
    let error = refused(&server.url("nowhere")).await;
    assert!(!matches!(error, MetaError::Unavailable { .. }), "{error:?}");
    says(&error, &["nowhere", "createdb"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_rights_is_told_what_it_lacks() {
    let Some(server) = Server::start() else { return };
    let database = server.database();
    server.sql("CREATE ROLE guest LOGIN");
    database.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let url = database.url().replace(&format!("//{USER}@"), "//guest@");
    says(&refused(&url).await, &["permission", "guest", "GRANT"]);
    // The tables are there, and it may look at them only.
    Metadata::open(database.url()).await.unwrap().close().await;
    database.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest");
    says(&refused(&url).await, &["permission", "guest", "GRANT"]);
}
