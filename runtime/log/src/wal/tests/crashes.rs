use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::error::LogError;
use crate::wal::disk::{LogFile, NextGroup};
use crate::wal::group::{FILE_HEADER_BYTES, FileHeader, GROUP_HEADER_BYTES, GroupHeader};

/// A log on disk, as bytes, and what is in it.
struct Written {
    files: Vec<(String, Vec<u8>)>,
    groups: Vec<Group>,
}

struct Group {
    file: usize,
    /// Where in the file it starts, and where it ends.
    start: usize,
    end: usize,
    header: GroupHeader,
    frames: Vec<Frame>,
}

/// Three files, a few groups each, every group synced before the next.
static LOG: LazyLock<Written> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let wal = DiskWal::create(settings(dir.path()), WAL_ID).unwrap();
        for index in 0.. {
            write_one_by_one(&wal, &[frame(index * 30, if index % 4 == 3 { 0 } else { 30 })]).await;
            if file_names(dir.path()).len() == 3 && index % 4 == 3 {
                break;
            }
        }
        wal.close().await;
    });
    read_log(dir.path())
});

fn read_log(dir: &Path) -> Written {
    let mut written = Written {
        files: Vec::new(),
        groups: Vec::new(),
    };
    for (index, (_, path)) in crate::wal::disk::wal_files(dir).unwrap().iter().enumerate() {
        let mut file = LogFile::open(path).unwrap();
        file.header().unwrap().unwrap();
        let mut payload = Vec::new();
        let mut start = file.position() as usize;
        while let NextGroup::Whole(header) = file.next_group(&mut payload).unwrap() {
            let end = file.position() as usize;
            let mut rest = payload.as_slice();
            let mut frames = Vec::new();
            while !rest.is_empty() {
                frames.push(Frame::decode(crate::wal::frame::split_frame(&mut rest).unwrap()).unwrap());
            }
            written.groups.push(Group {
                file: index,
                start,
                end,
                header,
                frames,
            });
            start = end;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        written.files.push((name, std::fs::read(path).unwrap()));
    }
    written
}

impl Written {
    fn frames(&self, groups: usize) -> Vec<Frame> {
        self.groups[..groups]
            .iter()
            .flat_map(|group| group.frames.clone())
            .collect()
    }

    /// How many groups are below the greatest durable end that a header which is still there knows.
    fn groups_known_durable(&self, damaged: &[(String, Vec<u8>)]) -> usize {
        let whole = |group: &&Group| {
            let head = group.start..group.start + GROUP_HEADER_BYTES;
            damaged[group.file].1.get(head.clone()) == Some(&self.files[group.file].1[head])
        };
        let durable_end = self
            .groups
            .iter()
            .filter(whole)
            .map(|group| group.header.durable_end)
            .max()
            .unwrap_or(0);
        self.groups
            .iter()
            .filter(|group| group.header.end_position() <= durable_end)
            .count()
    }
}

fn replay_files(files: &[(String, Vec<u8>)]) -> Result<(Vec<Frame>, ReplaySummary)> {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    replayed(dir.path())
}

#[test]
fn a_last_group_cut_anywhere_leaves_exactly_the_earlier_frames() {
    let last = LOG.groups.last().unwrap();
    let earlier = LOG.frames(LOG.groups.len() - 1);
    for length in last.start..last.end {
        let mut files = LOG.files.clone();
        files[last.file].1.truncate(length);
        let (found, summary) = replay_files(&files).unwrap();
        assert_eq!(found, earlier, "cut to {length} bytes");
        // What the disk never got reads as zeros where the file was preallocated.
        files[last.file].1.resize(4 << 10, 0);
        let (found, zeroed) = replay_files(&files).unwrap();
        assert_eq!(found, earlier, "zeros from {length} on");
        assert_eq!(summary.durable_end, last.header.position);
        assert_eq!(zeroed.cut_bytes, summary.cut_bytes);
        assert!(summary.cut_bytes <= (length - last.start) as u64);
    }
}

#[test]
fn a_last_group_whose_first_bytes_never_came_is_cut() {
    let last = LOG.groups.last().unwrap();
    for zeros in 1..last.end - last.start {
        let mut files = LOG.files.clone();
        files[last.file].1[last.start..last.start + zeros].fill(0);
        let (found, _) = replay_files(&files).unwrap();
        assert_eq!(found, LOG.frames(LOG.groups.len() - 1), "{zeros} zeros");
    }
}

#[test]
fn a_damaged_group_that_a_later_one_knows_to_be_durable_stops_with_its_place() {
    let damaged = &LOG.groups[1];
    let mut files = LOG.files.clone();
    files[damaged.file].1[damaged.end - 1] ^= 1;
    let error = replay_files(&files).unwrap_err();
    let LogError::WalDamaged {
        position, log_position, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(
        (*position, *log_position),
        (damaged.start as u64, damaged.header.position)
    );
    assert!(error.to_string().contains("crc"), "{error}");
}

#[test]
fn a_group_lost_to_zeros_is_damage_when_a_later_file_knows_it_was_durable() {
    let last_of_first = LOG.groups.iter().rfind(|group| group.file == 0).unwrap();
    let mut files = LOG.files.clone();
    files[0].1[last_of_first.start..last_of_first.end].fill(0);
    assert!(matches!(replay_files(&files), Err(LogError::WalDamaged { .. })));
}

#[test]
fn a_missing_file_is_damage() {
    let mut files = LOG.files.clone();
    files.remove(1);
    assert!(matches!(replay_files(&files), Err(LogError::WalDamaged { .. })));
}

#[test]
fn a_log_whose_oldest_files_are_gone_starts_where_the_rest_does() {
    let (found, summary) = replay_files(&LOG.files[1..]).unwrap();
    let gone = LOG.groups.iter().filter(|group| group.file == 0).count();
    assert_eq!(found, LOG.frames(LOG.groups.len())[gone..]);
    assert_eq!(summary.durable_end, LOG.groups.last().unwrap().header.end_position());
}

#[test]
fn a_file_whose_creation_was_torn_holds_nothing() {
    let header = FileHeader {
        wal_id: WAL_ID,
        first_group: 0,
        position: 0,
    }
    .encode();
    for torn in [&[][..], &header[..40], &[0; 4096]] {
        let files = [("00000000000000000000.wal".to_string(), torn.to_vec())];
        let (found, summary) = replay_files(&files).unwrap();
        assert!(found.is_empty() && summary.groups == 0);
        let mut files = LOG.files.clone();
        let last = LOG.groups.last().unwrap();
        files.push((format!("{:020}.wal", last.header.number + 1), torn.to_vec()));
        assert_eq!(replay_files(&files).unwrap().0, LOG.frames(LOG.groups.len()));
    }
}

#[test]
fn a_damaged_file_header_before_groups_is_damage() {
    let mut files = vec![LOG.files[0].clone()];
    files[0].1[20] ^= 1;
    assert!(matches!(replay_files(&files), Err(LogError::WalDamaged { .. })));
}

/// A group of one frame, which knows of `durable_end`.
fn group(number: u64, position: u64, durable_end: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    frame(number, 1).encode_into(&mut payload);
    let payload_len = payload.len() as u32;
    let header = GroupHeader {
        wal_id: WAL_ID,
        number,
        position,
        durable_end,
        payload_len,
        frame_count: 1,
    };
    [&header.encode(), payload.as_slice()].concat()
}

/// A file of three groups that are synced, if at all, in the background.
fn unsynced_file(durable_end_of_third: impl Fn(u64) -> u64) -> (Vec<u8>, usize) {
    let header = FileHeader {
        wal_id: WAL_ID,
        first_group: 0,
        position: 0,
    };
    let first = group(0, 0, 0);
    let length = first.len() as u64;
    let third = group(2, 2 * length, durable_end_of_third(length));
    (
        [&header.encode(), first.as_slice(), &group(1, length, 0), &third].concat(),
        first.len(),
    )
}

#[test]
fn a_whole_group_after_a_torn_one_is_cut_with_it() {
    let (mut bytes, length) = unsynced_file(|length| length);
    let second = FILE_HEADER_BYTES + length;
    bytes[second + 70] ^= 1;
    let (found, summary) = replay_files(&[("00000000000000000000.wal".into(), bytes)]).unwrap();
    assert_eq!(found, [frame(0, 1)]);
    // The very last byte is a record's count of headers, 0, and looks like one that was never written.
    assert_eq!(summary.cut_bytes, 2 * length as u64 - 1);
}

#[test]
fn a_torn_group_that_the_next_one_knows_to_be_durable_is_damage() {
    let (mut bytes, length) = unsynced_file(|length| 2 * length);
    bytes[FILE_HEADER_BYTES + length + 70] ^= 1;
    let replayed = replay_files(&[("00000000000000000000.wal".into(), bytes)]);
    assert!(matches!(replayed, Err(LogError::WalDamaged { .. })));
}

#[test]
fn the_log_of_another_incarnation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(&LOG.files[0].0), &LOG.files[0].1).unwrap();
    let replayed = replay(dir.path(), TOPIC, |_| Ok(()));
    assert!(matches!(
        replayed,
        Err(LogError::WalOther {
            found: WAL_ID,
            expected: TOPIC,
            ..
        })
    ));
}

#[test]
fn a_later_version_is_refused_by_number() {
    let mut files = vec![LOG.files[0].clone()];
    files[0].1[9] = 2;
    let crc = crc32fast::hash(&files[0].1[..60]);
    files[0].1[60..64].copy_from_slice(&crc.to_be_bytes());
    let error = replay_files(&files).unwrap_err();
    assert!(
        error.to_string().ends_with("files of version 2 are not understood"),
        "{error}"
    );
}

#[test]
fn reserved_fields_that_mean_something_are_refused() {
    let (mut bytes, _) = unsynced_file(|_| 0);
    bytes[FILE_HEADER_BYTES + 7] = 1;
    let crc = crc32fast::hash(&bytes[FILE_HEADER_BYTES..FILE_HEADER_BYTES + 60]);
    bytes[FILE_HEADER_BYTES + 60..FILE_HEADER_BYTES + 64].copy_from_slice(&crc.to_be_bytes());
    let error = replay_files(&[("00000000000000000000.wal".into(), bytes)]).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("a group header's reserved fields are not 0"),
        "{error}"
    );
}

#[test]
fn a_visitor_that_fails_stops_the_replay() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(&LOG.files[0].0), &LOG.files[0].1).unwrap();
    let stop = |_| {
        Err(LogError::ReplayStopped {
            reason: "enough".into(),
        })
    };
    assert_eq!(
        replay(dir.path(), WAL_ID, stop).unwrap_err().to_string(),
        "replay was stopped: enough"
    );
}

#[derive(Debug, Clone)]
enum Damage {
    Flip { bit: u8 },
    Zero { length: usize },
    Truncate,
    Overwrite { bytes: Vec<u8> },
}

fn any_damage() -> impl Strategy<Value = (prop::sample::Index, prop::sample::Index, Damage)> {
    let damage = prop_oneof![
        4 => (0..8u8).prop_map(|bit| Damage::Flip { bit }),
        2 => (1..600usize).prop_map(|length| Damage::Zero { length }),
        2 => Just(Damage::Truncate),
        1 => proptest::collection::vec(any::<u8>(), 1..100).prop_map(|bytes| Damage::Overwrite { bytes }),
    ];
    (any::<prop::sample::Index>(), any::<prop::sample::Index>(), damage)
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>, at: usize) {
        let end = |length: usize| (at + length).min(bytes.len());
        match self {
            Damage::Flip { bit } => bytes[at] ^= 1 << bit,
            Damage::Zero { length } => {
                let end = end(*length);
                bytes[at..end].fill(0);
            }
            Damage::Truncate => bytes.truncate(at),
            Damage::Overwrite { bytes: new } => {
                let end = end(new.len());
                bytes[at..end].copy_from_slice(&new[..end - at]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_damage_is_cut_off_or_reported_and_nothing_durable_is_lost_in_silence(
        damages in proptest::collection::vec(any_damage(), 1..4)
    ) {
        let mut files = LOG.files.clone();
        for (file, at, damage) in &damages {
            let bytes = &mut files[file.index(LOG.files.len())].1;
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                damage.apply(bytes, at);
            }
        }
        match replay_files(&files) {
            Ok((found, summary)) => {
                let groups = summary.groups as usize;
                prop_assert_eq!(&found, &LOG.frames(groups));
                prop_assert!(groups >= LOG.groups_known_durable(&files), "{} groups", groups);
            }
            Err(LogError::WalDamaged { .. }) => {}
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn any_bytes_replay_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), headed: bool) {
        let header = FileHeader { wal_id: WAL_ID, first_group: 0, position: 0 }.encode();
        let bytes = if headed { [&header, bytes.as_slice()].concat() } else { bytes };
        let (found, _) = replay_files(&[("00000000000000000000.wal".into(), bytes)]).unwrap();
        prop_assert!(found.is_empty());
    }
}
