//! Keeping indexes and blocks in memory, bounded in bytes; of concurrent misses one fetches.

use std::sync::Arc;

use bytes::Bytes;
use moka::future::Cache;

use super::reader::SegmentReader;
use crate::error::{LogError, Result};
use crate::store::Store;

/// What an entry takes besides its content.
const ENTRY_BYTES: u32 = 128;

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
    pub(super) blocks: Cache<(Arc<str>, usize), Bytes>,
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
        SegmentCache { store, indexes, blocks }
    }

    /// The index of a segment; see [`SegmentReader::open`].
    pub async fn open(&self, key: &str, stored_bytes: u64) -> Result<Arc<SegmentReader>> {
        // Looked up by reference first: a hit allocates nothing.
        if let Some(reader) = self.indexes.get(key).await {
            return Ok(reader);
        }
        let open = async { SegmentReader::open(&self.store, key, stored_bytes).await.map(Arc::new) };
        self.indexes.try_get_with(key.into(), open).await.map_err(unshare)
    }

    /// The batches of one block; see [`SegmentReader::read_block`].
    pub async fn block(&self, reader: &SegmentReader, block: usize) -> Result<Bytes> {
        let read = reader.read_block(&self.store, block);
        self.blocks
            .try_get_with((reader.shared_key(), block), read)
            .await
            .map_err(unshare)
    }
}

fn unshare(error: Arc<LogError>) -> LogError {
    Arc::unwrap_or_clone(error)
}
