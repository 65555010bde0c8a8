"""The record batch: Kafka's, version 2, byte for byte (https://kafka.apache.org/documentation/#recordbatch).

A header of 61 bytes, big endian, then the records, compressed as one piece:

     0  i64  base offset            27  i64  base timestamp, ms since the epoch
     8  i32  length from here on    35  i64  max timestamp
    12  i32  leader epoch           43  i64  producer id, -1 for none
    16  i8   magic, 2               51  i16  producer epoch
    17  u32  CRC-32C from 21 on     53  i32  base sequence
    21  u16  attributes             57  i32  record count
    23  i32  last offset delta      61       records
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import google_crc32c

from millstream import _varint
from millstream._compression import compress, decompress
from millstream.errors import BadAnswerError
from millstream.records import Compression, Header, Record

HEADER_BYTES = 61
#: Largest encoded batch that an agent takes.
BATCH_BYTES_MAX = 16 << 20

_BEFORE_CRC = struct.Struct(">qiib")
_CRC = struct.Struct(">I")
_AFTER_CRC = struct.Struct(">HiqqqhiI")
_LENGTH_END = 12
_CRC_END = 21
_MAGIC = 2
_CODEC_BITS = 0b111
_APPEND_TIME_BIT = 0b1000
_NULL = _varint.encode(-1)
_NO_HEADERS = _varint.encode(0)
_ATTRIBUTES = b"\x00"


@dataclass(frozen=True, slots=True)
class ProducerStamp:
    """What makes a batch one of an idempotent producer."""

    producer_id: int
    producer_epoch: int
    base_sequence: int


NO_PRODUCER = ProducerStamp(-1, -1, -1)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that was decoded; its records are still encoded, but not compressed."""

    base_offset: int
    compression: Compression
    last_offset_delta: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    producer: ProducerStamp
    record_count: int
    encoded: bytes
    #: Whether its records have the time of the append, which is the max timestamp, in place of their producer's.
    has_append_time: bool = False

    def records(self, topic: str, partition: int) -> Iterator[Record]:
        """Its records, each checked as it is read."""
        at = 0
        for _ in range(self.record_count):
            record, at = _decode_record(self, at, topic, partition)
            yield record
        if at != len(self.encoded):
            raise BadAnswerError(f"{len(self.encoded) - at} bytes follow the last record of a batch")


def encode_record(
    timestamp_delta: int,
    offset_delta: int,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[Header] = (),
) -> bytes:
    """One record with its length before it."""
    varint = _varint.encode
    body = b"".join(
        (
            _ATTRIBUTES,
            varint(timestamp_delta),
            varint(offset_delta),
            _NULL if key is None else varint(len(key)) + key,
            _NULL if value is None else varint(len(value)) + value,
            _encode_headers(headers) if headers else _NO_HEADERS,
        )
    )
    return varint(len(body)) + body


def _encode_headers(headers: Sequence[Header]) -> bytes:
    varint = _varint.encode
    parts = [varint(len(headers))]
    for name, value in headers:
        encoded = name.encode()
        parts += (varint(len(encoded)), encoded)
        parts += (_NULL,) if value is None else (varint(len(value)), value)
    return b"".join(parts)


def encode_batch(
    records: Sequence[bytes],
    base_timestamp_ms: int,
    max_timestamp_ms: int,
    producer: ProducerStamp = NO_PRODUCER,
    compression: Compression = Compression.NONE,
) -> bytes:
    """A batch of records that `encode_record` made, with offset deltas from 0 on."""
    body = compress(compression, b"".join(records))
    return frame(body, len(records), base_timestamp_ms, max_timestamp_ms, producer, compression)


def frame(
    body: bytes,
    count: int,
    base_timestamp_ms: int,
    max_timestamp_ms: int,
    producer: ProducerStamp,
    compression: Compression,
) -> bytes:
    """A batch of `count` records that are compressed already."""
    stamp = (producer.producer_id, producer.producer_epoch, producer.base_sequence)
    checked = _AFTER_CRC.pack(compression.value, count - 1, base_timestamp_ms, max_timestamp_ms, *stamp, count)
    crc = google_crc32c.extend(google_crc32c.value(checked), body)
    head = _BEFORE_CRC.pack(0, HEADER_BYTES - _LENGTH_END + len(body), -1, _MAGIC)
    return b"".join((head, _CRC.pack(crc), checked, body))


def decode_batches(data: bytes) -> Iterator[Batch]:
    """The batches that stand back to back in `data`.

    Raises:
        BadAnswerError: For what is damaged, cut short or of another version.
    """
    at = 0
    while at < len(data):
        if len(data) - at < HEADER_BYTES:
            raise BadAnswerError(f"a batch is cut short: {len(data) - at} bytes")
        base_offset, length, _, magic = _BEFORE_CRC.unpack_from(data, at)
        end = at + _LENGTH_END + length
        if magic != _MAGIC or length < HEADER_BYTES - _LENGTH_END or end > len(data):
            raise BadAnswerError(f"no batch of version 2, or a part of one: magic {magic}, length {length}")
        yield _decode(data[at:end], base_offset)
        at = end


def _decode(data: bytes, base_offset: int) -> Batch:
    (crc,) = _CRC.unpack_from(data, _CRC_END - _CRC.size)
    found = google_crc32c.value(data[_CRC_END:])
    if found != crc:
        raise BadAnswerError(f"batch at offset {base_offset}: crc {found:#010x}, expected {crc:#010x}")
    attributes, last_delta, base_ms, max_ms, producer_id, epoch, sequence, count = _AFTER_CRC.unpack_from(data, _CRC_END)
    if last_delta < 0 or count > last_delta + 1:
        raise BadAnswerError(f"batch at offset {base_offset}: {count} records, but last offset delta {last_delta}")
    try:
        compression = Compression(attributes & _CODEC_BITS)
    except ValueError:
        raise BadAnswerError(f"batch at offset {base_offset}: unknown codec {attributes & _CODEC_BITS}") from None
    encoded = decompress(compression, data[HEADER_BYTES:])
    producer = ProducerStamp(producer_id, epoch, sequence)
    has_append_time = bool(attributes & _APPEND_TIME_BIT)
    return Batch(base_offset, compression, last_delta, base_ms, max_ms, producer, count, encoded, has_append_time)


def _decode_record(batch: Batch, at: int, topic: str, partition: int) -> tuple[Record, int]:
    data, varint = batch.encoded, _varint.decode
    length, at = varint(data, at)
    end = at + length
    if length < 1 or end > len(data):
        raise BadAnswerError(f"a record of {length} bytes does not fit its batch")
    # The attributes of a record, at `at`, say nothing.
    timestamp_delta, at = varint(data, at + 1, 64)
    offset_delta, at = varint(data, at)
    key, at = _decode_bytes(data, at, end)
    value, at = _decode_bytes(data, at, end)
    count, at = varint(data, at)
    headers = []
    for _ in range(count):
        name, at = _decode_bytes(data, at, end)
        header_value, at = _decode_bytes(data, at, end)
        headers.append((_text(name), header_value))
    if at != end or count < 0:
        raise BadAnswerError(f"a record of {length} bytes holds something else")
    offset = batch.base_offset + offset_delta
    timestamp_ms = batch.max_timestamp_ms if batch.has_append_time else batch.base_timestamp_ms + timestamp_delta
    return Record(topic, partition, offset, timestamp_ms, key, value, tuple(headers)), end


def _decode_bytes(data: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    length, at = _varint.decode(data, at)
    if length < 0:
        return None, at
    if at + length > end:
        raise BadAnswerError(f"a field of {length} bytes does not fit its record")
    return data[at : at + length], at + length


def _text(name: bytes | None) -> str:
    try:
        return (name or b"").decode()
    except UnicodeDecodeError as error:
        raise BadAnswerError("the name of a header is not UTF-8") from error
