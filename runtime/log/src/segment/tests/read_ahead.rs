use super::*;

/// A cached segment of 20 blocks.
async fn cached() -> (SegmentCache, Arc<SegmentReader>, Gets) {
    let segment = encode(&batches(0, &[10; 20], 100), Compression::Lz4, 1);
    let (store, gets) = counting_store_of(whole(&segment)).await;
    let cache = SegmentCache::new(store, CacheSettings::default());
    let reader = cache.open(KEY, segment.summary.stored_bytes, None).await.unwrap();
    assert_eq!((reader.block_count(), gets.count()), (20, 1));
    (cache, reader, gets)
}

/// Lets the tasks of this thread run until none of them goes on.
async fn run_tasks() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_block_read_ahead_is_there_for_the_next_reader() {
    let (cache, reader, gets) = cached().await;
    cache.read_ahead(&reader, 3);
    run_tasks().await;
    assert_eq!(gets.count(), 2);
    cache.block(&reader, 3).await.unwrap();
    cache.read_ahead(&reader, 3);
    run_tasks().await;
    assert_eq!(gets.count(), 2);
}

#[tokio::test]
async fn who_needs_a_block_that_is_under_way_waits_for_that_one_fetch() {
    let (cache, reader, gets) = cached().await;
    cache.read_ahead(&reader, 3);
    cache.read_ahead(&reader, 3);
    cache.block(&reader, 3).await.unwrap();
    run_tasks().await;
    assert_eq!(gets.count(), 2);
}

#[tokio::test]
async fn no_more_than_the_bound_is_under_way_at_once() {
    let (cache, reader, gets) = cached().await;
    for block in 0..reader.block_count() {
        cache.read_ahead(&reader, block);
    }
    run_tasks().await;
    assert_eq!(gets.count(), 1 + READ_AHEAD_MAX);
    cache.read_ahead(&reader, 19);
    run_tasks().await;
    assert_eq!(gets.count(), 2 + READ_AHEAD_MAX);
}

#[tokio::test]
async fn behind_the_last_block_there_is_nothing_to_read_ahead() {
    let (cache, reader, gets) = cached().await;
    cache.read_ahead(&reader, reader.block_count());
    run_tasks().await;
    assert_eq!(gets.count(), 1);
}

#[tokio::test]
async fn a_timestamp_is_found_in_the_first_block_that_reaches_it() {
    // Timestamps are 1,000 + offset, 10 to a block.
    let (_, reader, _) = cached().await;
    assert_eq!(reader.find_block_at(i64::MIN), Some(0));
    assert_eq!(reader.find_block_at(1_009), Some(0));
    assert_eq!(reader.find_block_at(1_010), Some(1));
    assert_eq!(reader.find_block_at(1_199), Some(19));
    assert_eq!(reader.find_block_at(1_200), None);
}
