//! Which partition a record goes to: the same one that Kafka's clients choose for the same key.

/// Chooses a partition for each record of a topic.
#[derive(Debug)]
pub(crate) enum Partitioner {
    /// Everything to one partition.
    Fixed(u32),
    /// By hash of the key; records without one stay with a partition until its batch is full, then move to the next.
    Keyed { partitions: u32, sticky: u32 },
}

impl Partitioner {
    pub(crate) fn choose(&self, key: Option<&[u8]>) -> u32 {
        match (self, key) {
            (Partitioner::Fixed(partition), _) => *partition,
            (Partitioner::Keyed { partitions, .. }, Some(key)) => partition_for_key(key, *partitions),
            (Partitioner::Keyed { sticky, .. }, None) => *sticky,
        }
    }

    /// The topic has so many partitions from now on, where that is more than before.
    pub(crate) fn grow(&mut self, now: u32) {
        if let Partitioner::Keyed { partitions, .. } = self {
            *partitions = now.max(*partitions);
        }
    }

    /// A batch of `partition` is full: records without a key move on.
    pub(crate) fn batch_sealed(&mut self, partition: u32) {
        if let Partitioner::Keyed { partitions, sticky } = self
            && *sticky == partition
        {
            *sticky = (partition + 1) % *partitions;
        }
    }
}

/// The partition, out of `partitions` (at least 1), of records with this key: `toPositive(murmur2(key)) % partitions`,
/// as Kafka's `BuiltInPartitioner` has it.
pub fn partition_for_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// Kafka's 32-bit murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`), seed 0x9747b28c.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // The length is folded in modulo 2^32, as Java's int does.
    let mut h = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_gives_the_values_of_kafkas_own_test() {
        // `UtilsTest.testMurmur2` of Apache Kafka.
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("", 275_646_681),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key:?}");
        }
    }

    #[test]
    fn a_key_goes_to_the_positive_hash_modulo_the_partitions() {
        assert_eq!(partition_for_key(b"foobar", 50), 16);
        assert_eq!(partition_for_key(b"abc", 1), 0);
    }

    #[test]
    fn records_without_a_key_move_on_when_their_batch_is_full() {
        let mut partitioner = Partitioner::Keyed {
            partitions: 3,
            sticky: 0,
        };
        assert_eq!(partitioner.choose(None), 0);
        partitioner.batch_sealed(1);
        assert_eq!(
            partitioner.choose(None),
            0,
            "another partition's batch is no reason to move"
        );
        for next in [1, 2, 0] {
            partitioner.batch_sealed(partitioner.choose(None));
            assert_eq!(partitioner.choose(None), next);
        }
    }

    #[test]
    fn a_fixed_partition_takes_everything() {
        let mut partitioner = Partitioner::Fixed(7);
        partitioner.batch_sealed(7);
        assert_eq!((partitioner.choose(None), partitioner.choose(Some(b"k"))), (7, 7));
    }
}
