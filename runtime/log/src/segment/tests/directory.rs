use proptest::prelude::*;

use super::*;

fn segment(base: u64, end: u64) -> SegmentRef {
    SegmentRef {
        key: format!("seg_{base}_{end}").into(),
        base_offset: Offset(base),
        end_offset: Offset(end),
        stored_bytes: end - base,
        etag: None,
        max_timestamp_ms: end as i64,
    }
}

fn directory(entries_max: usize, segments: &[(u64, u64)]) -> SegmentDirectory {
    let mut directory = SegmentDirectory::new(entries_max);
    segments
        .iter()
        .for_each(|(base, end)| directory.insert(segment(*base, *end)));
    directory
}

fn found(directory: &SegmentDirectory, offset: u64) -> Option<(u64, u64)> {
    let segment = directory.find(Offset(offset))?;
    Some((segment.base_offset.0, segment.end_offset.0))
}

fn all(directory: &SegmentDirectory) -> Vec<(u64, u64)> {
    directory
        .iter()
        .map(|segment| (segment.base_offset.0, segment.end_offset.0))
        .collect()
}

#[test]
fn a_segment_holds_its_offsets_and_no_other() {
    let directory = directory(10, &[(10, 20), (20, 30), (40, 50)]);
    let expected = [
        (9, None),
        (10, Some((10, 20))),
        (19, Some((10, 20))),
        (20, Some((20, 30))),
    ];
    for (offset, segment) in expected {
        assert_eq!(found(&directory, offset), segment, "offset {offset}");
    }
    assert_eq!(
        (found(&directory, 30), found(&directory, 50)),
        (None, None),
        "holes are not bridged"
    );
}

/// The directory is no authority for what is gone: a hole is the caller's cue to ask the metadata.
#[test]
fn old_data_is_a_hole_once_the_directory_is_full_and_the_newest_stays() {
    let segments: Vec<(u64, u64)> = (0..12).map(|index| (index * 10, index * 10 + 10)).collect();
    let mut directory = directory(10, &segments);
    assert_eq!(directory.len(), 10);
    assert_eq!((found(&directory, 5), found(&directory, 15)), (None, None));
    assert_eq!(
        (found(&directory, 25), found(&directory, 119)),
        (Some((20, 30)), Some((110, 120)))
    );
    directory.insert(segment(0, 10));
    assert_eq!((directory.len(), found(&directory, 119)), (10, Some((110, 120))));
}

#[test]
fn a_merge_takes_the_place_of_its_sources_and_a_late_source_does_not_come_back() {
    let mut directory = directory(10, &[(0, 10), (10, 20), (20, 30), (30, 40)]);
    directory.replace(Offset(10)..Offset(30), segment(10, 30));
    assert_eq!(all(&directory), [(0, 10), (10, 30), (30, 40)]);
    directory.insert(segment(20, 30));
    assert_eq!(all(&directory), [(0, 10), (10, 30), (30, 40)]);
    directory.insert(segment(0, 40));
    assert_eq!(all(&directory), [(0, 40)]);
    let mut again = segment(0, 40);
    again.key = "another".into();
    directory.insert(again);
    assert_eq!(&*directory.find(Offset(3)).unwrap().key, "another");
}

#[test]
fn what_ends_at_or_below_the_log_start_is_forgotten() {
    let mut directory = directory(10, &[(0, 10), (10, 20), (20, 30)]);
    directory.drop_below(Offset(20));
    assert_eq!(all(&directory), [(20, 30)]);
    directory.drop_below(Offset(25));
    assert_eq!(found(&directory, 25), Some((20, 30)));
    directory.drop_below(Offset(30));
    assert!(directory.is_empty());
}

proptest! {
    /// Whatever is put where, every offset has the segment that was put there last, or none.
    #[test]
    fn replacing_leaves_no_overlap(steps in prop::collection::vec((0u64..60, 1u64..20), 1..40)) {
        let mut directory = SegmentDirectory::new(1_000);
        let mut owner: Vec<Option<(u64, u64)>> = vec![None; 100];
        for (base, length) in steps {
            let (base, end) = (base, base + length);
            directory.replace(Offset(base)..Offset(end), segment(base, end));
            let pushed_out: Vec<_> = owner[base as usize..end as usize].iter().flatten().copied().collect();
            for slot in owner.iter_mut().filter(|slot| slot.is_some_and(|own| pushed_out.contains(&own))) {
                *slot = None;
            }
            owner[base as usize..end as usize].fill(Some((base, end)));
        }
        for (offset, own) in owner.iter().enumerate() {
            prop_assert_eq!(found(&directory, offset as u64), *own);
        }
        let spans = all(&directory);
        prop_assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }
}
