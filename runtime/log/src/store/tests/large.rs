//! Objects that are large enough to go past what the system keeps of files in memory.

use super::*;

/// More than is read at once, in parts that begin and end anywhere.
fn parts() -> Vec<Bytes> {
    let mut seed = 7u32;
    let part = |bytes: usize| {
        let content = (0..bytes).map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        });
        content.collect()
    };
    let sizes = [48, 1 << 20, 77, 0, (1 << 20) + 61, 5_000, 3 << 20, 4_096, 123_457];
    sizes.map(part).to_vec()
}

#[tokio::test]
async fn any_piece_of_a_large_object_is_read_as_it_was_put() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::local(dir.path()).unwrap();
    let whole: Bytes = parts().concat().into();
    store.put_new("t/large", parts()).await.unwrap();
    assert!(store.get("t/large").await.unwrap() == whole);
    let end = whole.len() as u64;
    let starts = [0, 1, 4_096, 4_097, 1 << 20, end - (1 << 20)];
    let lengths = [1, 4_096, 262_143, 262_144, 300_001, 1 << 20, (4 << 20) + 1, end];
    for start in starts {
        for length in lengths {
            let range = start..(start + length).min(end);
            let read = store.get_range("t/large", range.clone()).await.unwrap();
            assert!(
                read == whole[range.start as usize..range.end as usize],
                "{range:?} of {end}"
            );
        }
    }
}

#[tokio::test]
async fn a_large_piece_of_what_is_not_there_is_told_as_a_small_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::local(dir.path()).unwrap();
    store.put_new("t/object", parts()).await.unwrap();
    let end = parts().concat().len() as u64;
    for bytes in [10, 500_000, 5_000_000] {
        let missing = store.get_range("t/none", 0..bytes).await.unwrap_err();
        assert!(matches!(missing, LogError::NotFound { .. }), "{bytes}: {missing}");
        let beyond = store.get_range("t/object", end - 5..end - 5 + bytes).await.unwrap_err();
        assert!(
            matches!(beyond, LogError::RangeMismatch { found: 5, .. }),
            "{bytes}: {beyond}"
        );
        let behind = store.get_range("t/object", end + 5..end + 5 + bytes).await.unwrap_err();
        assert!(matches!(behind, LogError::Store { .. }), "{bytes}: {behind}");
    }
}

#[tokio::test]
async fn a_large_object_that_is_there_stays_and_its_own_bytes_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::local(dir.path()).unwrap();
    store.put_new("t/object", parts()).await.unwrap();
    // As after an answer that was lost.
    store.put_new("t/object", parts()).await.unwrap();
    let mut others = parts();
    others[6] = vec![0; 3 << 20].into();
    let refused = store.put_new("t/object", others).await.unwrap_err();
    assert!(matches!(refused, LogError::AlreadyExists { .. }), "{refused}");
    assert!(store.get("t/object").await.unwrap() == parts().concat());
}
