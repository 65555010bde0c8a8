use proptest::prelude::*;

use super::*;
use crate::error::LogError;

fn sample(compression: Compression) -> (Vec<Batch>, Bytes) {
    let batches = batches(100, &[3, 5, 1, 8, 2, 2, 9], 40);
    let bytes = whole(&encode(&batches, compression, 500));
    (batches, bytes)
}

fn blocks_end(bytes: &Bytes) -> usize {
    inspect("file", bytes.clone()).unwrap().footer.index_position as usize
}

fn flipped(bytes: &Bytes, at: usize, bit: u8) -> Bytes {
    let mut damaged = bytes.to_vec();
    damaged[at] ^= 1 << bit;
    damaged.into()
}

async fn open_and_read(bytes: Bytes) -> crate::Result<(SegmentReader, Vec<u8>)> {
    let length = bytes.len() as u64;
    let store = store_of(bytes).await;
    let reader = SegmentReader::open(&store, KEY, length, None).await?;
    let raw = read_all(&store, &reader).await?;
    Ok((reader, raw))
}

#[tokio::test]
async fn a_damaged_index_notes_or_footer_is_rebuilt_from_the_blocks() {
    let (batches, bytes) = sample(Compression::Lz4);
    let (intact, raw) = open_and_read(bytes.clone()).await.unwrap();
    assert_eq!(raw, back_to_back(&batches));
    for at in blocks_end(&bytes)..bytes.len() {
        let (rebuilt, raw) = open_and_read(flipped(&bytes, at, 3)).await.unwrap();
        assert_eq!(raw, back_to_back(&batches), "byte {at}");
        assert_eq!(rebuilt.blocks(), intact.blocks());
        assert_eq!(rebuilt.identity(), intact.identity());
        assert_eq!(
            rebuilt.footer(),
            &Footer {
                index_len: 0,
                notes_len: 0,
                ..*intact.footer()
            }
        );
        assert_eq!(rebuilt.notes(), None);
    }
}

#[tokio::test]
async fn a_damaged_header_does_not_matter_while_the_index_is_whole() {
    let (batches, bytes) = sample(Compression::Zstd);
    let (reader, raw) = open_and_read(flipped(&bytes, 20, 0)).await.unwrap();
    assert_eq!((reader.identity(), raw), (&identity(100), back_to_back(&batches)));
}

#[tokio::test]
async fn a_damaged_block_is_named_and_the_others_are_read() {
    let (_, bytes) = sample(Compression::Lz4);
    let second = inspect("file", bytes.clone()).unwrap().blocks[1];
    let length = bytes.len() as u64;
    let store = store_of(flipped(&bytes, second.position as usize + 50, 1)).await;
    let reader = SegmentReader::open(&store, KEY, length, None).await.unwrap();
    reader.read_block(&store, 0).await.unwrap();
    reader.read_block(&store, 2).await.unwrap();
    let error = reader.read_block(&store, 1).await.unwrap_err().to_string();
    let expected = format!("segment {KEY}: block at {}: crc 0x", second.position);
    assert!(error.starts_with(&expected), "{error}");
}

#[tokio::test]
async fn a_block_that_is_not_there_is_refused() {
    let (_, bytes) = sample(Compression::None);
    let length = bytes.len() as u64;
    let store = store_of(bytes).await;
    let reader = SegmentReader::open(&store, KEY, length, None).await.unwrap();
    assert!(matches!(
        reader.read_block(&store, 99).await,
        Err(LogError::SegmentDamaged { .. })
    ));
}

#[tokio::test]
async fn a_later_version_is_refused_by_number() {
    let (_, bytes) = sample(Compression::None);
    let mut later = bytes.to_vec();
    let foot = later.len() - 64;
    later[foot + 57] = 2;
    let crc = {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&later[foot..foot + 52]);
        hasher.update(&later[foot + 56..]);
        hasher.finalize()
    };
    later[foot + 52..foot + 56].copy_from_slice(&crc.to_be_bytes());
    let error = open_and_read(later.into()).await.unwrap_err().to_string();
    assert_eq!(
        error,
        format!("segment {KEY}: format version 2 is not understood, this build reads version 1")
    );
}

/// A segment of one block whose header claims `raw_len`, every checksum right.
fn lying_block(compression: Compression, raw_len: u32) -> Bytes {
    let bytes = whole(&encode(&[batch(0, 9, 100)], compression, 1 << 20));
    let mut lying = bytes.to_vec();
    lying[68..72].copy_from_slice(&raw_len.to_be_bytes());
    let end = blocks_end(&bytes);
    let crc = {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&lying[64..100]);
        hasher.update(&lying[104..end]);
        hasher.finalize()
    };
    lying[100..104].copy_from_slice(&crc.to_be_bytes());
    lying.into()
}

#[tokio::test]
async fn a_block_that_claims_another_length_than_it_has_is_refused() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        for raw_len in [0, 1, 600, 2_000, BLOCK_RAW_BYTES_MAX as u32 + 1, u32::MAX] {
            let error = open_and_read(lying_block(compression, raw_len)).await.unwrap_err();
            assert!(
                matches!(error, LogError::SegmentDamaged { part: "block", .. }),
                "{compression} {raw_len}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn a_segment_that_was_cut_is_refused_unless_its_blocks_are_all_there() {
    let (batches, bytes) = sample(Compression::Lz4);
    for length in 0..bytes.len() {
        match open_and_read(bytes.slice(..length)).await {
            Ok((_, raw)) => assert_eq!(raw, back_to_back(&batches), "{length} bytes"),
            Err(_) => assert!(length < blocks_end(&bytes) + 4, "{length} bytes"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_damage_is_healed_or_reported(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0..8u8), 1..4),
        zstd: bool,
    ) {
        let (batches, bytes) = sample(if zstd { Compression::Zstd } else { Compression::Lz4 });
        let mut damaged = bytes.clone();
        for (at, bit) in flips {
            damaged = flipped(&damaged, at.index(bytes.len()), bit);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        if let Ok((_, raw)) = runtime.block_on(open_and_read(damaged.clone())) {
            prop_assert_eq!(raw, back_to_back(&batches));
        }
        let report = inspect("file", damaged.clone());
        prop_assert!(report.is_err() || damaged == bytes);
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(inspect("file", bytes.into()).is_err());
    }
}
