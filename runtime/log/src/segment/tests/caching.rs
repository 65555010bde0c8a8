use futures::future::join_all;

use super::*;

#[tokio::test]
async fn opening_takes_one_get_and_each_block_one_more() {
    let segment = encode(&batches(0, &[10; 20], 100), Compression::Lz4, 4_000);
    let (store, gets) = counting_store_of(whole(&segment)).await;
    let reader = SegmentReader::open(&store, KEY, segment.summary.stored_bytes)
        .await
        .unwrap();
    assert_eq!(gets.load(Ordering::SeqCst), 1);
    reader.read_block(&store, 1).await.unwrap();
    assert_eq!(gets.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_index_beyond_the_tail_takes_a_second_get() {
    let segment = encode(&batches(0, &[1; 4_000], 1), Compression::None, 1);
    let (store, gets) = counting_store_of(whole(&segment)).await;
    let reader = SegmentReader::open(&store, KEY, segment.summary.stored_bytes)
        .await
        .unwrap();
    assert_eq!(gets.load(Ordering::SeqCst), 2);
    assert_eq!(reader.block_count(), 4_000);
    assert_eq!(reader.find_block(Offset(2_345)), Some(2_345));
}

#[tokio::test]
async fn of_concurrent_misses_one_fetches() {
    let segment = encode(&batches(0, &[10; 20], 100), Compression::Lz4, 4_000);
    let (store, gets) = counting_store_of(whole(&segment)).await;
    let cache = SegmentCache::new(store, CacheSettings::default());
    let readers = join_all((0..8).map(|_| cache.open(KEY, segment.summary.stored_bytes))).await;
    assert_eq!(gets.load(Ordering::SeqCst), 1);
    let reader = readers[0].as_ref().unwrap();
    let blocks = join_all((0..8).map(|_| cache.block(reader, 2))).await;
    assert_eq!(gets.load(Ordering::SeqCst), 2);
    assert!(
        blocks
            .iter()
            .all(|block| block.as_ref().unwrap() == blocks[0].as_ref().unwrap())
    );
    cache.open(KEY, segment.summary.stored_bytes).await.unwrap();
    cache.block(reader, 2).await.unwrap();
    assert_eq!(gets.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_failed_read_is_told_to_everyone_and_not_kept() {
    let segment = encode(&[batch(0, 10, 100)], Compression::Lz4, 4_000);
    let store = Store::memory();
    let cache = SegmentCache::new(store.clone(), CacheSettings::default());
    let opened = join_all((0..3).map(|_| cache.open(KEY, segment.summary.stored_bytes))).await;
    assert!(
        opened
            .iter()
            .all(|opened| matches!(opened, Err(crate::LogError::NotFound { .. })))
    );
    store.put_new(KEY, segment.parts).await.unwrap();
    cache.open(KEY, segment.summary.stored_bytes).await.unwrap();
}

#[tokio::test]
async fn blocks_stay_within_their_bytes() {
    let segment = encode(&batches(0, &[10; 40], 100), Compression::Lz4, 1);
    let store = store_of(whole(&segment)).await;
    let cache = SegmentCache::new(
        store,
        CacheSettings {
            index_bytes: 1 << 20,
            block_bytes: 10_000,
        },
    );
    let reader = cache.open(KEY, segment.summary.stored_bytes).await.unwrap();
    for block in 0..reader.block_count() {
        cache.block(&reader, block).await.unwrap();
    }
    cache.blocks.run_pending_tasks().await;
    assert!(
        (1..=10_000).contains(&cache.blocks.weighted_size()),
        "{} bytes",
        cache.blocks.weighted_size()
    );
}
