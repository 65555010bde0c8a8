//! Tests of every kind of store. The suite that all kinds must pass, S3 over HTTP among them, is `tests/tests/store.rs`
//! of the workspace.

mod crashes;
mod faults;
mod large;
mod lost_answers;
mod settings;
mod slow_links;

use super::*;

async fn conforms(store: Store) {
    for check in check::run(&store, "trial", 7).await {
        println!("{}: {:?}", check.name, check.result);
        assert!(check.result.is_ok(), "{check:?}");
    }
}

#[tokio::test]
async fn the_store_in_memory_conforms() {
    conforms(Store::memory()).await;
}

#[tokio::test]
async fn the_store_of_local_files_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(Store::local(dir.path().join("made/on/the/way")).unwrap()).await;
}

#[derive(Debug, thiserror::Error)]
#[error("wrapped")]
struct Wrapped(#[source] io::Error);

#[test]
fn a_full_disk_is_told_apart_however_deep_it_is_wrapped() {
    let put_failed = |kind: io::ErrorKind| {
        let source = Box::new(Wrapped(kind.into()));
        store_error(
            "key",
            "put",
            10,
            object_store::Error::Generic { store: "local", source },
        )
    };
    assert!(put_failed(io::ErrorKind::StorageFull).is_disk_full());
    assert!(put_failed(io::ErrorKind::QuotaExceeded).is_disk_full());
    assert!(!put_failed(io::ErrorKind::PermissionDenied).is_disk_full());
}
