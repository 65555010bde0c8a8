//! A short run of every fuzz target over its corpus and seeded mutations of it; `make fuzz` goes on from there.
//!
//! With `MILLSTREAM_WRITE_GOLDEN=1` the corpus is made anew from the golden files.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use millstream_batch::Batch;
use millstream_log::fuzzing::TARGETS;
use millstream_log::segment::inspect;

/// How many mutations of the corpus each target gets.
const MUTATIONS: usize = 3_000;
/// The seed of the mutations: the same in every run, so that a failure is found again.
const SEED: u64 = 0x5eed_c0de_0000_0001;
/// Numbers that are often at the edge of something.
const EDGES: [u32; 8] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

/// Numbers that look random and are the same for the same seed.
struct Seeded(u64);

impl Seeded {
    /// One below `bound`, or 0.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target)
}

/// Every file of a target's corpus, in the order of their names.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = corpus(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// One to four changes of the kinds that break readers: bits, numbers, lengths, and pieces of other seeds.
fn mutated(seeds: &[Vec<u8>], random: &mut Seeded) -> Vec<u8> {
    let mut below = |bound: usize| random.below(bound);
    let mut bytes = seeds[below(seeds.len())].clone();
    for _ in 0..=below(4) {
        let at = below(bytes.len());
        match below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << below(8),
            1 if !bytes.is_empty() => bytes[at] = below(256) as u8,
            2 if bytes.len() >= at + 4 => bytes[at..at + 4].copy_from_slice(&EDGES[below(EDGES.len())].to_be_bytes()),
            3 => bytes.truncate(at),
            4 => {
                let other = &seeds[below(seeds.len())];
                let from = below(other.len());
                let length = below(other.len() - from);
                bytes.splice(at..at, other[from..from + length].iter().copied());
            }
            _ => bytes.extend((0..below(40)).map(|byte| byte as u8)),
        }
    }
    bytes
}

#[test]
fn no_bytes_of_the_corpus_or_near_it_panic() {
    if std::env::var_os("MILLSTREAM_WRITE_GOLDEN").is_some() {
        write_corpus();
    }
    println!("seed {SEED:#x}");
    for (name, run) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has a corpus");
        seeds.iter().for_each(|seed| run(seed));
        let mut random = Seeded(SEED);
        for mutation in 0..MUTATIONS {
            let bytes = mutated(&seeds, &mut random);
            let ran = std::panic::catch_unwind(|| run(&bytes));
            assert!(ran.is_ok(), "{name}: mutation {mutation} panicked on {bytes:02x?}");
        }
    }
}

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn write_seed(target: &str, name: &str, bytes: &[u8]) {
    std::fs::create_dir_all(corpus(target)).unwrap();
    std::fs::write(corpus(target).join(name), bytes).unwrap();
}

fn length_at(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Takes the golden files apart into what each target reads.
fn write_corpus() {
    for codec in ["none", "lz4", "zstd"] {
        let whole = golden(&format!("segment_v1_{codec}.bin"));
        write_seed("segment", codec, &whole);
        let report = inspect(codec, Bytes::from(whole.clone())).unwrap();
        for (number, block) in report.blocks.iter().enumerate() {
            let start = block.position as usize;
            let bytes = &whole[start..start + 40 + block.stored_len as usize];
            write_seed("block", &format!("{codec}_{number}"), bytes);
            let mut batches = Bytes::copy_from_slice(&bytes[40..]);
            while codec == "none" && !batches.is_empty() {
                let batch = Batch::split_first(&mut batches).unwrap();
                write_seed("batch", &format!("at_{}", batch.base_offset()), &batch.to_bytes());
            }
        }
    }
    let wal = golden("wal_v1.wal");
    let (mut position, mut groups) = (64, 0);
    while wal[position..].starts_with(b"MSWG") {
        let frames_len = length_at(&wal, position + 48);
        let group = &wal[position..position + 64 + frames_len];
        write_seed("wal_group", &format!("group_{groups}"), group);
        write_seed(
            "wal_frame",
            &format!("of_group_{groups}"),
            &group[64 + 8..64 + 8 + length_at(group, 64)],
        );
        position += group.len();
        groups += 1;
    }
}
