//! Tests of segments as a whole: written, put, read back, damaged, rebuilt, cached.

mod caching;
mod damage;
mod directory;
mod read_ahead;
mod round_trip;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use millstream_batch::{Batch, BatchBuilder, Compression, Epoch, Offset};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use uuid::Uuid;

use super::*;
use crate::store::Store;

const KEY: &str = "topics/one/0/seg.bin";

fn identity(base: u64) -> SegmentIdentity {
    SegmentIdentity {
        topic_id: Uuid::from_u128(7),
        partition: 3,
        base_offset: Offset(base),
        epoch: Epoch(5),
        created_at_ms: 1_700_000_000_000,
    }
}

/// A batch of `count` records with values of `value_bytes` that compress well.
fn batch(base: u64, count: u32, value_bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new();
    for index in 0..u64::from(count) {
        let value = format!("{:0value_bytes$}", base + index);
        let timestamp_ms = 1_000 + (base + index) as i64;
        builder.push(timestamp_ms, None, Some(value.as_bytes()), std::iter::empty());
    }
    let mut batch = builder.build(Compression::None);
    batch.stamp(Offset(base), Epoch(5));
    batch
}

/// Batches of these record counts, one behind the other.
fn batches(base: u64, counts: &[u32], value_bytes: usize) -> Vec<Batch> {
    let mut next = base;
    let mut make = |count: &u32| {
        let made = batch(next, *count, value_bytes);
        next += u64::from(*count);
        made
    };
    counts.iter().map(&mut make).collect()
}

/// A segment of these batches; the pipeline version goes up every third one.
fn encode(batches: &[Batch], compression: Compression, raw_bytes_target: usize) -> EncodedSegment {
    let identity = identity(batches[0].base_offset().0);
    let mut writer = SegmentWriter::new(
        identity,
        BlockSettings {
            compression,
            raw_bytes_target,
        },
    );
    for (index, batch) in batches.iter().enumerate() {
        writer.append(batch, index as u64 / 3).unwrap();
    }
    writer.finish().unwrap()
}

fn whole(segment: &EncodedSegment) -> Bytes {
    segment.parts.concat().into()
}

fn back_to_back(batches: &[Batch]) -> Vec<u8> {
    batches.iter().flat_map(|batch| batch.to_bytes()).collect()
}

async fn store_of(bytes: Bytes) -> Store {
    let store = Store::memory();
    store.put_new(KEY, vec![bytes]).await.unwrap();
    store
}

async fn read_all(store: &Store, reader: &SegmentReader) -> crate::Result<Vec<u8>> {
    let mut raw = Vec::new();
    for block in 0..reader.block_count() {
        raw.extend_from_slice(&reader.read_block(store, block).await?);
    }
    Ok(raw)
}

/// A store in memory that notes what is got from it, and lets others run in the middle of each get.
#[derive(Debug, Default)]
struct CountingStore {
    objects: InMemory,
    gets: Arc<Mutex<Vec<Range<u64>>>>,
}

/// The range of each get that was answered, in order.
#[derive(Debug, Clone, Default)]
struct Gets(Arc<Mutex<Vec<Range<u64>>>>);

impl Gets {
    fn ranges(&self) -> Vec<Range<u64>> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl fmt::Display for CountingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

type StoreResult<T> = object_store::Result<T>;

impl ObjectStore for CountingStore {
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
        self.objects.put_opts(location, payload, options)
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
        Box::pin(async move {
            tokio::task::yield_now().await;
            let got = self.objects.get_opts(location, options).await;
            let range = got.as_ref().map_or(0..0, |got| got.range.clone());
            self.gets.lock().unwrap().push(range);
            got
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

/// A store that holds `bytes`, and what is got from it.
async fn counting_store_of(bytes: Bytes) -> (Store, Gets) {
    let objects = CountingStore::default();
    let gets = Gets(objects.gets.clone());
    let store = Store::over(Arc::new(objects));
    store.put_new(KEY, vec![bytes]).await.unwrap();
    (store, gets)
}
