//! What fetch pipelines made of the blocks of segments, so that a block goes through the same stages once.
//!
//! A key names the segment's object, the block, and everything that decides on the answer: the modules by their content,
//! their parameters, policies and limits. Objects never change, so nothing is ever invalidated; what is not asked for any
//! more makes room.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::BytesMut;
use millstream_batch::{Batch, Offset};
use moka::future::Cache;

use crate::error::{BrokerError, Result};

/// What an entry takes besides its batches.
const ENTRY_BYTES: usize = 256;

/// A segment's key, which block of it, and the stages in their canonical form.
pub(super) type ResultKey = (Arc<str>, usize, Arc<str>);

/// Results of fetch pipelines, bounded in bytes. Clones share them.
#[derive(Clone)]
pub(crate) struct Results {
    /// `None` where nothing is kept.
    blocks: Option<Cache<ResultKey, Arc<Seen>>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What the cache of results holds and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResultStats {
    /// Blocks that were there.
    pub hits: u64,
    /// Blocks that had to go through modules.
    pub misses: u64,
    /// Bytes held.
    pub bytes: u64,
}

/// What a reader sees of a run of stored batches, in order and without gaps.
#[derive(Default)]
pub(super) struct Seen {
    rows: Vec<Row>,
}

/// One stored batch.
pub(super) struct Row {
    /// Where it ends.
    pub(super) next: Offset,
    /// Its size as stored.
    pub(super) stored_bytes: usize,
    /// What came out of the stages; `None` where nothing did.
    pub(super) batch: Option<Batch>,
}

impl Results {
    /// An empty cache for so many bytes; 0 for none.
    pub(crate) fn new(bytes_max: u64) -> Results {
        let blocks = (bytes_max > 0).then(|| {
            Cache::builder()
                .max_capacity(bytes_max)
                .weigher(|(segment, _, stages): &ResultKey, seen: &Arc<Seen>| {
                    let bytes = seen.bytes() + segment.len() + stages.len() + ENTRY_BYTES;
                    u32::try_from(bytes).unwrap_or(u32::MAX)
                })
                .build()
        });
        let counts = Arc::default();
        Results { blocks, counts }
    }

    pub(super) fn is_on(&self) -> bool {
        self.blocks.is_some()
    }

    /// The result that is there, or what `make` makes; of concurrent misses one makes it, the others wait. `None`, which is
    /// not kept, where it could not be made whole.
    pub(super) async fn get_or_make(
        &self,
        key: ResultKey,
        make: impl Future<Output = Option<Arc<Seen>>>,
    ) -> Option<Arc<Seen>> {
        let blocks = self.blocks.as_ref()?;
        if let Some(seen) = blocks.get(&key).await {
            self.counts.hits.fetch_add(1, Ordering::Relaxed);
            return Some(seen);
        }
        self.counts.misses.fetch_add(1, Ordering::Relaxed);
        blocks.optionally_get_with(key, make).await
    }

    /// The figures as they are now.
    pub(crate) fn stats(&self) -> ResultStats {
        ResultStats {
            hits: self.counts.hits.load(Ordering::Relaxed),
            misses: self.counts.misses.load(Ordering::Relaxed),
            bytes: self.blocks.as_ref().map_or(0, Cache::weighted_size),
        }
    }
}

impl Seen {
    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Goes on with what comes behind it.
    pub(super) fn append(&mut self, mut behind: Seen) {
        self.rows.append(&mut behind.rows);
    }

    /// The same in memory of its own and no larger than needed: a batch may share the memory of all that was around it.
    pub(super) fn compact(self) -> Result<Seen> {
        let visible = self.rows.iter().filter_map(|row| row.batch.as_ref());
        let mut joined = BytesMut::with_capacity(visible.clone().map(Batch::encoded_len).sum());
        visible.for_each(|batch| batch.encode_into(&mut joined));
        let mut joined = joined.freeze();
        let mut rows = self.rows;
        rows.shrink_to_fit();
        for row in &mut rows {
            if row.batch.is_some() {
                row.batch = Some(Batch::split_first(&mut joined).map_err(BrokerError::StoredBatch)?);
            }
        }
        Ok(Seen { rows })
    }

    /// The rows from the one that holds `offset` on.
    pub(super) fn from(&self, offset: Offset) -> &[Row] {
        &self.rows[self.rows.partition_point(|row| row.next <= offset)..]
    }

    /// What it takes in memory once it is compact.
    fn bytes(&self) -> usize {
        let visible = self.rows.iter().filter_map(|row| row.batch.as_ref());
        visible.map(Batch::encoded_len).sum::<usize>() + self.rows.len() * size_of::<Row>()
    }
}

#[cfg(test)]
mod tests {
    use millstream_batch::{BatchBuilder, Compression, Epoch};

    use super::*;

    fn row(base: u64, values: &[&str], visible: bool) -> Row {
        let mut builder = BatchBuilder::new();
        for value in values {
            builder.push(1, None, Some(value.as_bytes()), [].into_iter());
        }
        let mut batch = builder.build(Compression::None);
        batch.stamp(Offset(base), Epoch(1));
        Row {
            next: batch.next_offset(),
            stored_bytes: batch.encoded_len(),
            batch: visible.then_some(batch),
        }
    }

    fn seen() -> Seen {
        let mut seen = Seen::default();
        seen.push(row(0, &["a", "b"], true));
        seen.push(row(2, &["c"], false));
        seen.push(row(3, &["d", "e"], true));
        seen
    }

    fn key(block: usize) -> ResultKey {
        ("segment".into(), block, "stages".into())
    }

    #[test]
    fn a_compact_result_is_the_same_one() {
        let (before, after) = (seen(), seen().compact().unwrap());
        assert_eq!(before.rows.len(), after.rows.len());
        for (a, b) in before.rows.iter().zip(&after.rows) {
            assert_eq!((a.next, a.stored_bytes, &a.batch), (b.next, b.stored_bytes, &b.batch));
        }
    }

    #[test]
    fn a_result_is_read_from_the_batch_that_holds_an_offset() {
        let seen = seen();
        for (offset, left) in [(0, 3), (1, 3), (2, 2), (3, 1), (4, 1), (5, 0)] {
            assert_eq!(seen.from(Offset(offset)).len(), left, "{offset}");
        }
    }

    #[tokio::test]
    async fn of_concurrent_misses_one_makes_the_result_and_what_is_not_whole_is_not_kept() {
        let results = Results::new(1 << 20);
        assert!(results.get_or_make(key(0), async { None }).await.is_none());
        let made = AtomicU64::new(0);
        let get = || {
            results.get_or_make(key(0), async {
                made.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Some(Arc::new(seen()))
            })
        };
        let (a, b) = tokio::join!(get(), get());
        assert!(Arc::ptr_eq(&a.unwrap(), &b.unwrap()));
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert!(get().await.is_some());
        assert_eq!((results.stats().hits, results.stats().misses), (1, 3));
    }

    #[tokio::test]
    async fn results_stay_within_their_bytes_and_none_are_kept_for_none() {
        let results = Results::new(3_000);
        for block in 0..100 {
            results
                .get_or_make(key(block), async { Some(Arc::new(seen())) })
                .await
                .unwrap();
        }
        let blocks = results.blocks.as_ref().unwrap();
        blocks.run_pending_tasks().await;
        assert!(results.stats().bytes <= 3_000 && results.stats().bytes > 0);

        let off = Results::new(0);
        assert!(!off.is_on());
        assert!(
            off.get_or_make(key(0), async { Some(Arc::new(seen())) })
                .await
                .is_none()
        );
    }
}
