"""Which partition a record goes to: the same one that Kafka's clients choose for the same key."""

_MASK = 0xFFFF_FFFF
_M = 0x5BD1_E995


def partition_for_key(key: bytes, partitions: int) -> int:
    """The partition, out of `partitions` (at least 1): `toPositive(murmur2(key)) % partitions`, as Kafka has it."""
    return (murmur2(key) & 0x7FFF_FFFF) % partitions


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`), seed 0x9747b28c, as an unsigned number."""
    length = len(data)
    h = 0x9747_B28C ^ (length & _MASK)
    whole = length & ~3
    for at in range(0, whole, 4):
        k = (int.from_bytes(data[at : at + 4], "little") * _M) & _MASK
        k ^= k >> 24
        h = ((h * _M) ^ (k * _M)) & _MASK
    if whole < length:
        h = ((h ^ int.from_bytes(data[whole:], "little")) * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    return h ^ (h >> 15)
