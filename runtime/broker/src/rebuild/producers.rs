//! What the last segment of each partition notes of its idempotent producers.

use futures::{StreamExt, TryStreamExt, stream};
use millstream_log::{SegmentReader, Store};
use millstream_meta::{Restored, RestoredPartition};

use crate::{
    error::{BrokerError, Result},
    partition::encode_producers,
};

/// Partitions whose last segment is read at once.
const PARTITIONS_AT_ONCE: usize = 64;

/// Completes partitions with what their last segments note. Where notes are damaged nothing is known of the producers there:
/// they have to begin a new epoch.
pub(super) async fn read(store: &Store, restored: &mut Restored) -> Result<()> {
    let partitions = restored.topics.iter_mut().flat_map(|topic| topic.partitions.iter_mut());
    let reads = stream::iter(partitions.map(|partition| read_one(store, partition)));
    reads.buffer_unordered(PARTITIONS_AT_ONCE).try_collect().await
}

async fn read_one(store: &Store, partition: &mut RestoredPartition) -> Result<()> {
    let Some(last) = partition.segments.last() else {
        return Ok(());
    };
    let reader = SegmentReader::open(store, &last.key, last.stored_bytes, last.etag.as_deref()).await;
    let reader = reader.map_err(BrokerError::from)?;
    let noted = reader.notes().filter(|notes| !notes.producers.producers.is_empty());
    partition.producers = noted.map(|notes| encode_producers(&notes.producers));
    Ok(())
}
