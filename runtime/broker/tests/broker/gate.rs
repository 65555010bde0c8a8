//! An object store in memory whose puts can be kept out, by the first part of their keys, and whose lists can be held up.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub struct Gate {
    objects: Arc<InMemory>,
    closed: Mutex<HashSet<String>>,
    lists: Arc<Lists>,
}

/// Holds up whoever lists.
#[derive(Debug, Default)]
struct Lists {
    held: AtomicBool,
    waiting: Notify,
    released: Notify,
}

impl Gate {
    /// From now on nothing can be put under this name.
    pub fn close(&self, name: &str) {
        self.closed.lock().unwrap().insert(name.to_owned());
    }

    pub fn open(&self, name: &str) {
        self.closed.lock().unwrap().remove(name);
    }

    /// From now on whoever lists waits.
    pub fn hold_lists(&self) {
        self.lists.held.store(true, Ordering::Release);
    }

    /// Returns once somebody who lists waits.
    pub async fn list_waits(&self) {
        self.lists.waiting.notified().await;
    }

    /// Lets the one who waits list, and everybody after it.
    pub fn release_lists(&self) {
        self.lists.held.store(false, Ordering::Release);
        self.lists.released.notify_one();
    }

    fn is_closed(&self, location: &Path) -> bool {
        let name = location.parts().next();
        name.is_some_and(|name| self.closed.lock().unwrap().contains(name.as_ref()))
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gate")
    }
}

impl ObjectStore for Gate {
    fn put_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> BoxFuture<'c, Result<PutResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        if self.is_closed(location) {
            let source = "the gate is closed".into();
            return Box::pin(async { Err(object_store::Error::Generic { store: "gate", source }) });
        }
        self.objects.put_opts(location, payload, options)
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        options: PutMultipartOptions,
    ) -> BoxFuture<'c, Result<Box<dyn MultipartUpload>>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.objects.put_multipart_opts(location, options)
    }

    fn get_opts<'a, 'b, 'c>(&'a self, location: &'b Path, options: GetOptions) -> BoxFuture<'c, Result<GetResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.objects.get_opts(location, options)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (lists, objects, prefix) = (self.lists.clone(), self.objects.clone(), prefix.cloned());
        let listed = async move {
            if lists.held.load(Ordering::Acquire) {
                lists.waiting.notify_one();
                lists.released.notified().await;
            }
            objects.list(prefix.as_ref())
        };
        listed.flatten_stream().boxed()
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, prefix: Option<&'b Path>) -> BoxFuture<'c, Result<ListResult>>
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
    ) -> BoxFuture<'c, Result<()>>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
    {
        self.objects.copy_opts(from, to, options)
    }
}
