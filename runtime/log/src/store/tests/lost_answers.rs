//! Puts whose answer says something else than what came of them.

use std::fmt;
use std::sync::Mutex;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::{CopyOptions, ListResult, MultipartUpload, PutMultipartOptions, PutResult};

use super::*;

type StoreResult<T> = object_store::Result<T>;

/// What becomes of a put, and what is told of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// It is done, but told to have met another object, as a client does that tried it twice.
    DoneToldConflict,
    /// It is not done, and told to have met another one, as S3 does while two puts are on their way.
    NotDoneToldConflict,
    /// It is done, and told to have failed.
    DoneToldFailed,
}

/// A store in memory whose next puts go wrong.
#[derive(Debug, Default)]
struct FaultyStore {
    objects: InMemory,
    faults: Mutex<Vec<Fault>>,
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl ObjectStore for FaultyStore {
    fn put_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> BoxFuture<'c, StoreResult<PutResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        Box::pin(async move {
            let fault = self.faults.lock().unwrap().pop();
            if fault != Some(Fault::NotDoneToldConflict) {
                let put = self.objects.put_opts(location, payload, options).await?;
                if fault.is_none() {
                    return Ok(put);
                }
            }
            let (path, source) = (location.to_string(), "told so".into());
            match fault {
                Some(Fault::DoneToldFailed) => Err(object_store::Error::Generic {
                    store: "faulty",
                    source,
                }),
                _ => Err(object_store::Error::AlreadyExists { path, source }),
            }
        })
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        options: PutMultipartOptions,
    ) -> BoxFuture<'c, StoreResult<Box<dyn MultipartUpload>>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.objects.put_multipart_opts(location, options)
    }

    fn get_opts<'a, 'b, 'c>(&'a self, location: &'b Path, options: GetOptions) -> BoxFuture<'c, StoreResult<GetResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.objects.get_opts(location, options)
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.objects.list(prefix)
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, prefix: Option<&'b Path>) -> BoxFuture<'c, StoreResult<ListResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.objects.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'd, 'c>(
        &'a self,
        from: &'b Path,
        to: &'d Path,
        options: CopyOptions,
    ) -> BoxFuture<'c, StoreResult<()>>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
    {
        self.objects.copy_opts(from, to, options)
    }
}

/// A store whose next puts go wrong so, the last first.
fn faulty(faults: &[Fault]) -> Store {
    Store::over(Arc::new(FaultyStore {
        faults: Mutex::new(faults.to_vec()),
        ..FaultyStore::default()
    }))
}

async fn put(store: &Store, content: &'static str) -> Result<Option<String>> {
    store.put_new("key", vec![Bytes::from_static(content.as_bytes())]).await
}

#[tokio::test]
async fn a_put_that_meets_its_own_object_has_succeeded_and_tells_its_etag() {
    let store = faulty(&[Fault::DoneToldConflict]);
    let etag = put(&store, "ours").await.unwrap();
    let found = store.get_range_of("key", etag.as_deref(), 0..4).await.unwrap();
    assert_eq!((found.as_ref(), etag.is_some()), (b"ours".as_slice(), true));
    assert!(matches!(put(&store, "mine").await, Err(LogError::AlreadyExists { .. })));
}

#[tokio::test]
async fn a_conflict_without_an_object_is_tried_again_and_is_no_rivals_win() {
    let store = faulty(&[Fault::NotDoneToldConflict; CONFLICT_ATTEMPTS_MAX - 1]);
    put(&store, "ours").await.unwrap();
    assert_eq!(store.get("key").await.unwrap(), "ours");

    let store = faulty(&[Fault::NotDoneToldConflict; CONFLICT_ATTEMPTS_MAX]);
    assert!(matches!(put(&store, "ours").await, Err(LogError::Store { .. })));
    put(&store, "ours").await.unwrap();
}

#[tokio::test]
async fn a_put_that_was_told_to_have_failed_is_put_again_under_its_key() {
    let store = faulty(&[Fault::DoneToldFailed]);
    assert!(matches!(put(&store, "ours").await, Err(LogError::Store { .. })));
    put(&store, "ours").await.unwrap();
    assert_eq!(store.get("key").await.unwrap(), "ours");
}
