//! Keeping indexes and blocks in memory, bounded in bytes; of concurrent misses one fetches.
//!
//! Nothing is kept on a disk: there are no files to forget, and the two bounds are all that the cache ever takes.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use moka::future::Cache;

use super::reader::SegmentReader;
use crate::error::{LogError, Result};
use crate::store::Store;

/// What an entry takes besides its content.
const ENTRY_BYTES: u32 = 128;

/// How many blocks are read ahead at once, by all readers together.
pub const READ_AHEAD_MAX: usize = 8;

/// A segment's key, and which block of it.
type BlockKey = (Arc<str>, usize);

/// How much the cache may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSettings {
    /// Bytes of indexes and notes.
    pub index_bytes: u64,
    /// Bytes of blocks, decompressed.
    pub block_bytes: u64,
}

impl Default for CacheSettings {
    fn default() -> CacheSettings {
        CacheSettings {
            index_bytes: 32 << 20,
            block_bytes: 128 << 20,
        }
    }
}

/// Indexes and blocks of segments, cached. Clones share it.
#[derive(Debug, Clone)]
pub struct SegmentCache {
    store: Store,
    indexes: Cache<Arc<str>, Arc<SegmentReader>>,
    pub(super) blocks: Cache<BlockKey, Bytes>,
    ahead: Arc<Mutex<HashSet<BlockKey>>>,
    looks: Arc<Looks>,
}

/// How often something was looked up, and how often it was not there.
#[derive(Debug, Default)]
struct Looks {
    indexes: AtomicU64,
    index_misses: AtomicU64,
    blocks: AtomicU64,
    block_misses: AtomicU64,
}

/// What the cache was asked, since it was made. Who waits for another one's fetch counts as a hit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheLooks {
    /// Indexes that were there.
    pub index_hits: u64,
    /// Indexes that were fetched.
    pub index_misses: u64,
    /// Blocks that were there.
    pub block_hits: u64,
    /// Blocks that were fetched, those that were read ahead too.
    pub block_misses: u64,
}

impl SegmentCache {
    /// An empty cache over `store`.
    pub fn new(store: Store, settings: CacheSettings) -> SegmentCache {
        let indexes = Cache::builder()
            .max_capacity(settings.index_bytes)
            .weigher(|_, reader: &Arc<SegmentReader>| reader.weight_bytes().saturating_add(ENTRY_BYTES))
            .build();
        let blocks = Cache::builder()
            .max_capacity(settings.block_bytes)
            .weigher(|_, block: &Bytes| {
                u32::try_from(block.len())
                    .unwrap_or(u32::MAX)
                    .saturating_add(ENTRY_BYTES)
            })
            .build();
        SegmentCache {
            store,
            indexes,
            blocks,
            ahead: Arc::default(),
            looks: Arc::default(),
        }
    }

    /// The index of a segment; see [`SegmentReader::open`].
    pub async fn open(&self, key: &str, stored_bytes: u64, etag: Option<&str>) -> Result<Arc<SegmentReader>> {
        self.looks.indexes.fetch_add(1, Ordering::Relaxed);
        // Looked up by reference first: a hit allocates nothing.
        if let Some(reader) = self.indexes.get(key).await {
            return Ok(reader);
        }
        let open = async {
            self.looks.index_misses.fetch_add(1, Ordering::Relaxed);
            let reader = SegmentReader::open(&self.store, key, stored_bytes, etag).await?;
            Ok(Arc::new(reader))
        };
        self.indexes.try_get_with(key.into(), open).await.map_err(unshare)
    }

    /// The batches of one block; see [`SegmentReader::read_block`].
    pub async fn block(&self, reader: &SegmentReader, block: usize) -> Result<Bytes> {
        self.looks.blocks.fetch_add(1, Ordering::Relaxed);
        let read = async {
            self.looks.block_misses.fetch_add(1, Ordering::Relaxed);
            reader.read_block(&self.store, block).await
        };
        self.blocks
            .try_get_with((reader.shared_key(), block), read)
            .await
            .map_err(unshare)
    }

    /// Starts to fetch a block in the background, unless it is cached or under way; a segment's end is fine. Where
    /// [`READ_AHEAD_MAX`] are under way nothing happens: whoever needs the block fetches it. Called on a tokio runtime.
    pub fn read_ahead(&self, reader: &Arc<SegmentReader>, block: usize) {
        let key = (reader.shared_key(), block);
        if block >= reader.block_count() || self.blocks.contains_key(&key) {
            return;
        }
        let Some(under_way) = UnderWay::start(&self.ahead, key) else {
            return;
        };
        let (cache, reader) = (self.clone(), reader.clone());
        tokio::spawn(async move {
            let _under_way = under_way;
            // A failure is not kept: who needs the block tries again, and tells.
            if let Err(error) = cache.block(&reader, block).await {
                tracing::debug!(%error, "a block could not be read ahead");
            }
        });
    }

    /// Waits until what is beyond the bounds is gone; else that happens a little later, by itself.
    #[cfg(test)]
    pub(super) async fn settle(&self) {
        self.indexes.run_pending_tasks().await;
        self.blocks.run_pending_tasks().await;
    }

    /// What was asked so far.
    pub fn looks(&self) -> CacheLooks {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let looks = &self.looks;
        // Misses first: a look is counted before its miss.
        let (index_misses, block_misses) = (count(&looks.index_misses), count(&looks.block_misses));
        CacheLooks {
            index_hits: count(&looks.indexes).saturating_sub(index_misses),
            index_misses,
            block_hits: count(&looks.blocks).saturating_sub(block_misses),
            block_misses,
        }
    }

    /// Bytes held now, of indexes and of blocks.
    pub fn weight_bytes(&self) -> (u64, u64) {
        (self.indexes.weighted_size(), self.blocks.weighted_size())
    }
}

/// A block that is being read ahead; no longer once this is dropped.
struct UnderWay {
    all: Arc<Mutex<HashSet<BlockKey>>>,
    key: BlockKey,
}

impl UnderWay {
    fn start(all: &Arc<Mutex<HashSet<BlockKey>>>, key: BlockKey) -> Option<UnderWay> {
        let mut under_way = lock(all);
        let starts = under_way.len() < READ_AHEAD_MAX && under_way.insert(key.clone());
        starts.then(|| UnderWay { all: all.clone(), key })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.key);
    }
}

fn lock(all: &Mutex<HashSet<BlockKey>>) -> MutexGuard<'_, HashSet<BlockKey>> {
    // Nothing panics while it holds this lock, and a set is whole between any two statements.
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unshare(error: Arc<LogError>) -> LogError {
    Arc::unwrap_or_clone(error)
}
