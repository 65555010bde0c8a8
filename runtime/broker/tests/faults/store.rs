//! An object store that breaks when it is told to.

use std::fmt;
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::clock::DrivenClock;
use crate::control::{Control, Point};

/// Passes every request by a [`Control`] on its way to another store, whose objects are as old as the driven clock says.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    control: Arc<Control>,
    clock: Arc<DrivenClock>,
}

impl FaultyStore {
    pub fn new(inner: Arc<dyn ObjectStore>, control: Arc<Control>, clock: Arc<DrivenClock>) -> FaultyStore {
        FaultyStore { inner, control, clock }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

fn broken() -> Error {
    Error::Generic {
        store: "faulty",
        source: "the connection broke".into(),
    }
}

fn absent(operation: &str) -> Error {
    Error::NotImplemented {
        operation: operation.to_owned(),
        implementer: "the faulty store".to_owned(),
    }
}

impl ObjectStore for FaultyStore {
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
        let (inner, clock, path) = (self.inner.clone(), self.clock.clone(), location.clone());
        let put = move || {
            let (inner, clock, path) = (inner.clone(), clock.clone(), path.clone());
            let (payload, options) = (payload.clone(), options.clone());
            async move {
                let put = inner.put_opts(&path, payload, options).await?;
                clock.note_put(path.as_ref());
                Ok(put)
            }
            .boxed()
        };
        async move { self.control.pass(Point::Put, location.as_ref(), put, broken).await }.boxed()
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        _location: &'b Path,
        _options: PutMultipartOptions,
    ) -> BoxFuture<'c, Result<Box<dyn MultipartUpload>>>
    where
        'a: 'c,
        'b: 'c,
    {
        futures::future::ready(Err(absent("an upload in parts"))).boxed()
    }

    fn get_opts<'a, 'b, 'c>(&'a self, location: &'b Path, options: GetOptions) -> BoxFuture<'c, Result<GetResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        let (inner, path) = (self.inner.clone(), location.clone());
        let get = move || {
            let (inner, path, options) = (inner.clone(), path.clone(), options.clone());
            async move { inner.get_opts(&path, options).await }.boxed()
        };
        async move { self.control.pass(Point::Get, location.as_ref(), get, broken).await }.boxed()
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, control) = (self.inner.clone(), self.control.clone());
        let delete = move |location: Result<Path>| {
            let (inner, control) = (inner.clone(), control.clone());
            async move {
                let location = location?;
                let request = || {
                    let (inner, location) = (inner.clone(), location.clone());
                    async move {
                        let one = stream::once(async { Ok(location) }).boxed();
                        inner.delete_stream(one).try_collect::<Vec<_>>().await.map(drop)
                    }
                    .boxed()
                };
                control.pass(Point::Delete, location.as_ref(), request, broken).await?;
                Ok(location.clone())
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, control, clock) = (self.inner.clone(), self.control.clone(), self.clock.clone());
        let prefix = prefix.cloned();
        let listed = async move {
            let name = prefix.as_ref().map_or("", |prefix| prefix.as_ref()).to_owned();
            let list = || {
                let (inner, prefix) = (inner.clone(), prefix.clone());
                async move { inner.list(prefix.as_ref()).try_collect::<Vec<_>>().await }.boxed()
            };
            let mut objects = control.pass(Point::List, &name, list, broken).await?;
            objects.iter_mut().for_each(|meta| clock.age(meta));
            Ok::<_, Error>(stream::iter(objects.into_iter().map(Ok)))
        };
        stream::once(listed).try_flatten().boxed()
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, _prefix: Option<&'b Path>) -> BoxFuture<'c, Result<ListResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        futures::future::ready(Err(absent("a listing with a delimiter"))).boxed()
    }

    fn copy_opts<'a, 'b, 'd, 'c>(
        &'a self,
        _from: &'b Path,
        _to: &'d Path,
        _options: CopyOptions,
    ) -> BoxFuture<'c, Result<()>>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
    {
        futures::future::ready(Err(absent("a copy"))).boxed()
    }
}
