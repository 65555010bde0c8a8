//! A store in memory over a bad network.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result as StoreResult,
};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// It is done after this long.
    Slow(Duration),
    /// It is not done, and an error is the answer.
    Before,
    /// It is done, and an error is the answer.
    After,
    /// It is done twice; the answer is that of the second time.
    Twice,
    /// An error is the answer, and it is done this long afterwards.
    Late(Duration),
    /// It is not done, and there is no answer.
    Lost,
}

/// No fault.
pub(super) const DONE: Fault = Fault::Slow(Duration::ZERO);

type Plan = Box<dyn FnMut(usize) -> Fault + Send>;

/// One client's way to the objects.
pub(super) struct FaultyStore {
    objects: Arc<InMemory>,
    requests: AtomicUsize,
    plan: Mutex<Plan>,
}

impl FaultyStore {
    /// `plan` says what becomes of each put and get, by its number from 0.
    pub(super) fn new(objects: Arc<InMemory>, plan: impl FnMut(usize) -> Fault + Send + 'static) -> Arc<FaultyStore> {
        Arc::new(FaultyStore {
            objects,
            requests: AtomicUsize::new(0),
            plan: Mutex::new(Box::new(plan)),
        })
    }

    /// How many puts and gets were asked for so far.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn next_fault(&self) -> Fault {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        (self.plan.lock().unwrap())(number)
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

fn refused() -> object_store::Error {
    object_store::Error::Generic {
        store: "faulty",
        source: "the connection broke".into(),
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
        let fault = self.next_fault();
        Box::pin(async move {
            let put = || self.objects.put_opts(location, payload.clone(), options.clone());
            match fault {
                Fault::Slow(time) => {
                    tokio::time::sleep(time).await;
                    put().await
                }
                Fault::Before => Err(refused()),
                Fault::After => put().await.and(Err(refused())),
                Fault::Twice => {
                    put().await?;
                    put().await
                }
                Fault::Late(time) => {
                    let (objects, location) = (self.objects.clone(), location.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(time).await;
                        // Nobody waits for it any more.
                        let _ = objects.put_opts(&location, payload, options).await;
                    });
                    Err(refused())
                }
                Fault::Lost => std::future::pending().await,
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
        let fault = self.next_fault();
        Box::pin(async move {
            match fault {
                Fault::Slow(time) => tokio::time::sleep(time).await,
                Fault::Lost => std::future::pending().await,
                Fault::Twice => {}
                Fault::Before | Fault::After | Fault::Late(_) => return Err(refused()),
            }
            self.objects.get_opts(location, options).await
        })
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
