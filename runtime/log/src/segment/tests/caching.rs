use futures::future::join_all;

use super::*;

#[tokio::test]
async fn opening_takes_one_get_and_each_block_one_more() {
    let segment = encode(&batches(0, &[10; 20], 100), Compression::Lz4, 4_000);
    let (store, gets) = counting_store_of(whole(&segment)).await;
    let reader = SegmentReader::open(&store, KEY, segment.summary.stored_bytes, None)
        .await
        .unwrap();
    assert_eq!(gets.count(), 1);
    reader.read_block(&store, 1).await.unwrap();
    assert_eq!(gets.count(), 2);
}

#[tokio::test]
async fn an_index_beyond_the_tail_takes_a_second_get() {
    let segment = encode(&batches(0, &[1; 4_000], 1), Compression::None, 1);
    let (store, gets) = counting_store_of(whole(&segment)).await;
    let reader = SegmentReader::open(&store, KEY, segment.summary.stored_bytes, None)
        .await
        .unwrap();
    assert_eq!(gets.count(), 2);
    assert_eq!(reader.block_count(), 4_000);
    assert_eq!(reader.find_block(Offset(2_345)), Some(2_345));
}

#[tokio::test]
async fn of_concurrent_misses_one_fetches() {
    let segment = encode(&batches(0, &[10; 20], 100), Compression::Lz4, 4_000);
    let (store, gets) = counting_store_of(whole(&segment)).await;
    let cache = SegmentCache::new(store, CacheSettings::default());
    let readers = join_all((0..8).map(|_| cache.open(KEY, segment.summary.stored_bytes, None))).await;
    assert_eq!(gets.count(), 1);
    let reader = readers[0].as_ref().unwrap();
    let blocks = join_all((0..8).map(|_| cache.block(reader, 2))).await;
    assert_eq!(gets.count(), 2);
    assert!(
        blocks
            .iter()
            .all(|block| block.as_ref().unwrap() == blocks[0].as_ref().unwrap())
    );
    cache.open(KEY, segment.summary.stored_bytes, None).await.unwrap();
    cache.block(reader, 2).await.unwrap();
    assert_eq!(gets.count(), 2);
}

#[tokio::test]
async fn reading_one_record_fetches_the_end_and_one_block_and_never_the_whole_object() {
    let segment = encode(&batches(0, &[10; 1_000], 100), Compression::None, 16_000);
    let stored_bytes = segment.summary.stored_bytes;
    assert!(stored_bytes > 1_000_000);
    let (store, gets) = counting_store_of(whole(&segment)).await;
    let cache = SegmentCache::new(store, CacheSettings::default());
    for _ in 0..3 {
        let reader = cache.open(KEY, stored_bytes, None).await.unwrap();
        let block = reader.find_block(Offset(4_321)).unwrap();
        cache.block(&reader, block).await.unwrap();
        let entry = reader.blocks()[block];
        let tail = stored_bytes - (64 << 10)..stored_bytes;
        assert_eq!(gets.ranges(), [tail, entry.position..entry.end_position()]);
    }
}

#[tokio::test]
async fn a_segment_whose_object_was_replaced_is_refused() {
    let segment = encode(&batches(0, &[10; 20], 100), Compression::Lz4, 4_000);
    let (bytes, length) = (whole(&segment), segment.summary.stored_bytes);
    let store = Store::memory();
    let etag = store.put_new(KEY, vec![bytes.clone()]).await.unwrap().unwrap();
    let reader = SegmentReader::open(&store, KEY, length, Some(&etag)).await.unwrap();
    reader.read_block(&store, 0).await.unwrap();

    store.delete(KEY).await.unwrap();
    store.put_new(KEY, vec![bytes]).await.unwrap();
    let changed = |error: crate::LogError| matches!(error, crate::LogError::Changed { .. });
    assert!(reader.read_block(&store, 0).await.is_err_and(changed));
    let opened = SegmentReader::open(&store, KEY, length, Some(&etag)).await;
    assert!(opened.is_err_and(changed));
}

#[tokio::test]
async fn a_failed_read_is_told_to_everyone_and_not_kept() {
    let segment = encode(&[batch(0, 10, 100)], Compression::Lz4, 4_000);
    let store = Store::memory();
    let cache = SegmentCache::new(store.clone(), CacheSettings::default());
    let opened = join_all((0..3).map(|_| cache.open(KEY, segment.summary.stored_bytes, None))).await;
    assert!(
        opened
            .iter()
            .all(|opened| matches!(opened, Err(crate::LogError::NotFound { .. })))
    );
    store.put_new(KEY, segment.parts).await.unwrap();
    cache.open(KEY, segment.summary.stored_bytes, None).await.unwrap();
}

/// A cache on a disk would forget its files at a restart and grow for ever; this one is memory with a bound.
#[tokio::test]
async fn indexes_and_blocks_stay_within_their_bytes_and_leave_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::local(dir.path()).unwrap();
    let segment = encode(&batches(0, &[10; 40], 100), Compression::Lz4, 1);
    let settings = CacheSettings {
        index_bytes: 10_000,
        block_bytes: 20_000,
    };
    let cache = SegmentCache::new(store.clone(), settings);
    let keys: Vec<String> = (0..20).map(|number| format!("topic/0/seg_{number:02}")).collect();
    for key in &keys {
        store.put_new(key, segment.parts.clone()).await.unwrap();
    }
    for key in &keys {
        let reader = cache.open(key, segment.summary.stored_bytes, None).await.unwrap();
        for block in 0..reader.block_count() {
            cache.block(&reader, block).await.unwrap();
        }
    }
    cache.settle().await;
    let (indexes, blocks) = cache.weight_bytes();
    assert!((1..=10_000).contains(&indexes), "{indexes} bytes");
    assert!((1..=20_000).contains(&blocks), "{blocks} bytes");
    assert_eq!(store.list("").await.unwrap(), keys);
    let entries: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(entries.len(), 2, "the topic and the staged files: {entries:?}");
}
