"""Zigzag varints, as in Protocol Buffers: seven bits a byte, lowest first, the top bit set on all but the last."""

from millstream.errors import BadAnswerError


def encode(value: int) -> bytes:
    """A signed number of at most 64 bits."""
    if 0 <= value < _TABLE_SIZE:
        return _TABLE[value]
    return _encode(value)


def _encode(value: int) -> bytes:
    raw = (value << 1) ^ (value >> 63)
    out = bytearray()
    while raw >= 0x80:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    out.append(raw)
    return bytes(out)


#: Nearly all numbers in a record: deltas and lengths.
_TABLE_SIZE = 4096
_TABLE = tuple(_encode(value) for value in range(_TABLE_SIZE))


def decode(data: bytes, at: int, bits: int = 32) -> tuple[int, int]:
    """The number at a position, which has at most so many bits, and where it ends."""
    raw, shift = 0, 0
    while True:
        if at >= len(data):
            raise BadAnswerError(f"a record is cut short at byte {at}")
        byte = data[at]
        at += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > bits:
            raise BadAnswerError(f"a number at byte {at} has more than {bits} bits")
    if raw >> bits:
        raise BadAnswerError(f"a number before byte {at} has more than {bits} bits")
    return (raw >> 1) ^ -(raw & 1), at
