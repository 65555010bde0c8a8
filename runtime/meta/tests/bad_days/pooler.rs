//! A pooler between that keeps for itself what sessions are told at their start.

use millstream_meta::{MetaError, Metadata};
use millstream_postgres::{Database, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::{leases, new_segment, refused, says};

/// What comes before the parameters of a first packet: its length and the version of the protocol, 4 bytes each.
const HEAD: usize = 8;

/// Passes on everything but the parameter `options` of each first packet; the database's URL through it.
async fn pooler(database: &Database, port: u16) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass_on(client, port));
        }
    });
    let url = database.url().replace(&format!(":{port}"), &format!(":{own}"));
    format!("{url}?sslmode=disable")
}

async fn pass_on(mut client: TcpStream, port: u16) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut packet = vec![0; HEAD];
    client.read_exact(&mut packet).await?;
    let length = u32::from_be_bytes(packet[..4].try_into().unwrap()) as usize;
    let mut parameters = vec![0; length - HEAD];
    client.read_exact(&mut parameters).await?;
    let texts: Vec<&[u8]> = parameters.split(|byte| *byte == 0).collect();
    for parameter in texts
        .chunks_exact(2)
        .filter(|pair| !pair[0].is_empty() && pair[0] != b"options")
    {
        packet.extend_from_slice(&[parameter[0], b"\0", parameter[1], b"\0"].concat());
    }
    packet.push(0);
    let length = packet.len() as u32;
    packet[..4].copy_from_slice(&length.to_be_bytes());
    server.write_all(&packet).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_do_not_get_what_they_are_told_are_refused_unless_they_have_it_already() {
    let server = Server::shared();
    let database = server.database();
    let url = pooler(&database, server.port()).await;
    let set = |setting| database.sql(&format!("ALTER DATABASE {} SET {setting}", database.name()));

    let error = refused(&url).await;
    assert!(matches!(error, MetaError::CannotOpen { .. }), "{error:?}");
    says(&error, &["default_transaction_isolation", "pooler", "ALTER ROLE"]);
    set("default_transaction_isolation = 'serializable'");
    set("synchronous_commit = off");
    let error = refused(&url).await;
    assert!(matches!(error, MetaError::CannotOpen { .. }), "{error:?}");
    says(&error, &["synchronous_commit", "pooler", "ALTER ROLE"]);
    assert_eq!(
        database.sql("SELECT count(*) FROM pg_class WHERE relname = 'topics'"),
        "0",
        "nothing was done to it"
    );

    set("synchronous_commit = on");
    let metadata = Metadata::open(&url).await.unwrap();
    let lease = leases(&metadata, 1).await.remove(0);
    metadata.commit_segment(&lease, &new_segment("a", 0, 1)).await.unwrap();
}
