"""The same partitions as Kafka's clients and the Rust client choose."""

import pytest

from millstream.partitioner import murmur2, partition_for_key

#: `UtilsTest.testMurmur2` of Apache Kafka, as in sdk/client/src/partitioner.rs.
KAFKA = [
    ("21", -973_932_308),
    ("foobar", -790_332_482),
    ("a-little-bit-long-string", -985_981_536),
    ("a-little-bit-longer-string", -1_486_304_829),
    ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
    ("abc", 479_470_107),
    ("", 275_646_681),
]


@pytest.mark.parametrize(("key", "hashed"), KAFKA)
def test_murmur2_gives_the_values_of_kafkas_own_test(key: str, hashed: int) -> None:
    assert murmur2(key.encode()) == hashed % 2**32


def test_a_key_goes_to_the_positive_hash_modulo_the_partitions() -> None:
    assert partition_for_key(b"foobar", 50) == 16
    assert partition_for_key(b"abc", 1) == 0
