//! Every kind of store does what the log relies on: one suite over memory, local files, and an S3 server over HTTP.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt as _, future::join_all, stream};
use millstream_log::{LogError, S3Settings, Store, store::check};
use millstream_tests::{S3Server, skip};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const RACES: usize = 40;
const WRITERS: usize = 8;

/// More than one page of an S3 listing, and than one request to delete.
const MANY: usize = 1_050;

#[tokio::test]
async fn the_store_in_memory_conforms() {
    conforms(&Store::memory()).await;
}

#[tokio::test]
async fn the_store_of_local_files_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conforms(&Store::local(folder.path().join("made/on/the/way")).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_on_s3_conforms() {
    let Some(server) = server("the S3 store") else { return };
    let settings = server.bucket("conforms");
    conforms(&Store::s3(&settings).unwrap()).await;
    let below = S3Settings {
        prefix: "/below/a prefix/".into(),
        ..settings.clone()
    };
    conforms(&Store::s3(&below).unwrap()).await;
}

#[tokio::test]
async fn a_prefix_keeps_stores_of_one_bucket_apart() {
    let Some(server) = server("the prefix") else { return };
    let settings = server.bucket("shared");
    let store = |prefix: &str| {
        let prefix = prefix.into();
        Store::s3(&S3Settings {
            prefix,
            ..settings.clone()
        })
        .unwrap()
    };
    let (one, other, whole) = (store("one"), store("one-other"), store(""));
    put(&one, "a/b", b"of one").await.unwrap();
    put(&other, "a/b", b"of the other").await.unwrap();
    assert_eq!(one.list("").await.unwrap(), ["a/b"]);
    assert_eq!(other.get("a/b").await.unwrap(), "of the other");
    assert_eq!(whole.list("").await.unwrap(), ["one-other/a/b", "one/a/b"]);
}

/// The client below tries again by itself when a server says that it failed; here it had not.
#[tokio::test]
async fn a_create_that_is_tried_again_finds_its_own_object_and_not_a_rivals() {
    let Some(server) = server("the lost answer") else {
        return;
    };
    let settings = server.bucket("lost");
    let (endpoint, answers_lost) = losing_first_put_answers(server.address(), 2).await;
    let store = Store::s3(&S3Settings {
        endpoint: Some(endpoint),
        ..settings.clone()
    })
    .unwrap();
    let etag = put(&store, "a/b", b"ours").await.unwrap();
    assert_eq!(answers_lost.load(Ordering::SeqCst), 1);
    let range = store.get_range_of("a/b", etag.as_deref(), 0..4).await.unwrap();
    assert_eq!((range.as_ref(), etag.is_some()), (b"ours".as_slice(), true));

    // The same, but a rival had been there before.
    let refused = put(&store, "a/b", b"mine").await;
    assert!(matches!(refused, Err(LogError::AlreadyExists { .. })), "{refused:?}");
    assert_eq!(answers_lost.load(Ordering::SeqCst), 2);
    assert_eq!(store.get("a/b").await.unwrap(), "ours");
}

#[tokio::test]
async fn a_dead_endpoint_is_an_error_in_bounded_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let store = Store::s3(&S3Settings {
        bucket: "dead".into(),
        endpoint: Some(endpoint),
        access_key_id: Some("a".into()),
        secret_access_key: Some("b".into()),
        path_style: true,
        ..S3Settings::default()
    })
    .unwrap();
    let start = Instant::now();
    let error = put(&store, "a", b"x").await.unwrap_err();
    assert!(matches!(error, LogError::Store { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());

    let checks = check::run(&store, "doctor", 1).await;
    assert!(
        checks[0]
            .result
            .as_ref()
            .is_err_and(|wrong| wrong.contains("credentials")),
        "{checks:?}"
    );
}

fn server(test: &str) -> Option<S3Server> {
    S3Server::start().map_err(|reason| skip(test, &reason)).ok()
}

async fn put(store: &Store, key: &str, content: &[u8]) -> millstream_log::Result<Option<String>> {
    store.put_new(key, vec![Bytes::copy_from_slice(content)]).await
}

/// What every store must do.
async fn conforms(store: &Store) {
    for check in check::run(store, "trial", 0x5eed).await {
        assert!(check.result.is_ok(), "{}: {:?}", check.name, check.result);
    }
    assert!(store.list("").await.unwrap().is_empty(), "the checks leave nothing");
    parts_are_one_object(store).await;
    the_same_put_again_is_a_success(store).await;
    refuses_what_cannot_be(store).await;
    an_etag_holds_a_read_to_its_object(store).await;
    of_many_writers_one_wins(store).await;
    many_objects_are_listed_and_deleted(store).await;
}

async fn parts_are_one_object(store: &Store) {
    let mut parts: Vec<Bytes> = (0..3u8).map(|part| vec![part; 3 << 20].into()).collect();
    parts.insert(1, Bytes::new());
    let whole = parts.concat();
    store.put_new("large", parts).await.unwrap();
    assert!(store.get("large").await.unwrap() == whole, "it is read as it was put");
    let across = (3 << 20) - 5..(3 << 20) + 5;
    let found = store.get_range("large", across.start as u64..across.end as u64).await;
    assert_eq!(found.unwrap(), whole[across]);

    put(store, "empty", b"").await.unwrap();
    assert_eq!(store.get("empty").await.unwrap(), "");
    let objects = store.list_objects("").await.unwrap();
    let lengths: Vec<u64> = objects.iter().map(|object| object.bytes).collect();
    assert_eq!(lengths, [0, whole.len() as u64]);
    assert!(objects.iter().all(|object| object.modified_ms > 1_700_000_000_000));
    store
        .delete_all(vec!["large".into(), "empty".into(), "never there".into()])
        .await
        .unwrap();
}

async fn the_same_put_again_is_a_success(store: &Store) {
    let first = put(store, "again/1", b"the same").await.unwrap();
    assert_eq!(put(store, "again/1", b"the same").await.unwrap(), first);
    let cut_otherwise = vec![Bytes::from_static(b"the"), Bytes::new(), Bytes::from_static(b" same")];
    assert_eq!(store.put_new("again/1", cut_otherwise).await.unwrap(), first);
    for other in [b"the sand".as_slice(), b"the sam", b"the same and more", b""] {
        let refused = put(store, "again/1", other).await;
        assert!(matches!(refused, Err(LogError::AlreadyExists { .. })), "{refused:?}");
    }
    assert_eq!(store.get("again/1").await.unwrap(), "the same");
    store.delete("again/1").await.unwrap();
}

async fn refuses_what_cannot_be(store: &Store) {
    put(store, "short/1", b"short").await.unwrap();
    assert!(store.get_range("short/1", 2..50).await.is_err());
    assert!(store.get_range("short/1", 50..60).await.is_err());
    assert!(matches!(store.get("short/2").await, Err(LogError::NotFound { .. })));
    assert!(matches!(
        store.get_range("short/2", 0..1).await,
        Err(LogError::NotFound { .. })
    ));
    for key in ["a//b", "a/../b", "/"] {
        assert!(
            matches!(store.get(key).await, Err(LogError::KeyRefused { .. })),
            "{key}"
        );
    }
    store.delete("short/1").await.unwrap();
}

async fn an_etag_holds_a_read_to_its_object(store: &Store) {
    let Some(etag) = put(store, "etag/1", b"first").await.unwrap() else {
        return store.delete("etag/1").await.unwrap();
    };
    assert_eq!(store.get_range_of("etag/1", Some(&etag), 1..3).await.unwrap(), "ir");
    // Somebody else's tool took it away and put another in its place.
    store.delete("etag/1").await.unwrap();
    put(store, "etag/1", b"other").await.unwrap();
    let changed = store.get_range_of("etag/1", Some(&etag), 1..3).await;
    assert!(matches!(changed, Err(LogError::Changed { .. })), "{changed:?}");
    store.delete("etag/1").await.unwrap();
}

async fn of_many_writers_one_wins(store: &Store) {
    for race in 0..RACES {
        let key = format!("race/{race}");
        let content = |writer: usize| vec![writer as u8; 4 << 10];
        let puts = join_all((0..WRITERS).map(|writer| {
            let (key, content) = (&key, content(writer));
            async move { (writer, put(store, key, &content).await) }
        }))
        .await;
        let mut winners = Vec::new();
        for (writer, put) in puts {
            match put {
                Ok(_) => winners.push(writer),
                Err(LogError::AlreadyExists { .. }) => {}
                Err(error) => panic!("race {race}: {error}"),
            }
        }
        assert_eq!(winners.len(), 1, "race {race} has one winner");
        assert_eq!(store.get(&key).await.unwrap(), content(winners[0]));
    }
    store.delete_all(store.list("race").await.unwrap()).await.unwrap();
}

async fn many_objects_are_listed_and_deleted(store: &Store) {
    let keys: Vec<String> = (0..MANY).map(|number| format!("many/{number:05}")).collect();
    let puts = keys.iter().map(|key| put(store, key, b"one of many"));
    let failed: Vec<_> = stream::iter(puts)
        .buffer_unordered(8)
        .filter_map(|put| async { put.err() })
        .collect()
        .await;
    assert!(failed.is_empty(), "{failed:?}");
    put(store, "many-more/1", b"not among them").await.unwrap();
    assert_eq!(store.list("many").await.unwrap(), keys);
    let more: Vec<String> = store.list("").await.unwrap();
    let more: Vec<&String> = more.iter().filter(|key| !keys.contains(key)).collect();
    assert_eq!(more, ["many-more/1"]);

    // One that is named twice, and one that is not there, do no harm.
    let mut gone = keys.clone();
    gone.extend([keys[0].clone(), "many/never".into()]);
    store.delete_all(gone).await.unwrap();
    assert_eq!(store.list("").await.unwrap(), ["many-more/1"]);
    store.delete("many-more/1").await.unwrap();
    store.delete("many-more/1").await.unwrap();
}

/// A server before the one at `target` that passes requests on, and answers the first PUTs with an error whatever came of
/// them. Gives its URL, and how many answers it has lost.
async fn losing_first_put_answers(target: &str, losses: u64) -> (String, std::sync::Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let lost = std::sync::Arc::new(AtomicU64::new(0));
    let (target, count) = (target.to_owned(), lost.clone());
    tokio::spawn(async move {
        let mut lose_next = true;
        while let Ok((client, _)) = listener.accept().await {
            let lose = lose_next && count.load(Ordering::SeqCst) < losses;
            let was_put = pass_one(client, &target, lose).await;
            // Every second PUT answers truly: the retry.
            if was_put {
                count.fetch_add(u64::from(lose), Ordering::SeqCst);
                lose_next = !lose;
            }
        }
    });
    (endpoint, lost)
}

/// Passes one request and its answer, and closes the connection. Gives whether it was a PUT.
async fn pass_one(mut client: TcpStream, target: &str, lose: bool) -> bool {
    let mut request = Vec::new();
    let head_len = loop {
        if let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        assert_ne!(client.read_buf(&mut request).await.unwrap(), 0, "a request has a head");
    };
    let head = String::from_utf8(request[..head_len].to_vec()).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().unwrap())
    });
    while request.len() < head_len + length.unwrap_or(0) {
        assert_ne!(
            client.read_buf(&mut request).await.unwrap(),
            0,
            "a request has its body"
        );
    }
    let is_put = head.starts_with("PUT ");
    let closing = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    let mut server = TcpStream::connect(target).await.unwrap();
    server.write_all(closing.as_bytes()).await.unwrap();
    server.write_all(&request[head_len..]).await.unwrap();
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await.unwrap();
    if is_put && lose {
        answer = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec();
    }
    client.write_all(&answer).await.unwrap();
    client.shutdown().await.unwrap();
    is_put
}
