//! TLS to PostgreSQL, by URL.

use std::path::Path;

use millstream_meta::Metadata;
use millstream_postgres::{Options, Server};

use crate::{refused, says};

fn url(server: &Server, mode: &str, authority: &Path) -> String {
    let base = server.url("postgres");
    format!("{base}?sslmode={mode}&sslrootcert={}", authority.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_trusted_by_its_authority_and_name_and_no_other() {
    let (Some(server), Some(other)) = (
        Server::start_with(&Options::default().tls().password()),
        Server::start_with(&Options::default().tls()),
    ) else {
        return;
    };
    for mode in ["verify-full", "verify-ca", "require"] {
        let metadata = Metadata::open(&url(&server, mode, &server.authority())).await.unwrap();
        let encrypted = server.sql(
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE application_name = 'millstream' AND NOT ssl",
        );
        assert_eq!(encrypted, "0");
        metadata.topics().await.unwrap();
        metadata.close().await;
    }
    for mode in ["verify-full", "verify-ca"] {
        let error = refused(&url(&server, mode, &other.authority())).await;
        says(&error, &["certificate", "sslrootcert"]);
    }
    let missing = server.directory().join("nowhere.crt");
    says(&refused(&url(&server, "verify-full", &missing)).await, &["nowhere.crt"]);
    // The certificate is for the address alone.
    let by_name = |mode| url(&server, mode, &server.authority()).replace("127.0.0.1", "localhost");
    says(&refused(&by_name("verify-full")).await, &["certificate", "sslmode"]);
    Metadata::open(&by_name("verify-ca")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_where_the_url_asks_for_it() {
    let Some(server) = Server::start_with(&Options::default().password()) else {
        return;
    };
    let error = refused(&format!("{}?sslmode=require", server.url("postgres"))).await;
    says(&error, &["TLS", "ssl = on", "sslmode=disable"]);
    assert!(
        !error.to_string().contains("certificate"),
        "there is none to be trusted: {error}"
    );
}
