"""The record batch, against what an independent Kafka client wrote."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from millstream import BadAnswerError, Compression, Record
from millstream.batch import (
    HEADER_BYTES,
    NO_PRODUCER,
    Batch,
    ProducerStamp,
    decode_batches,
    encode_batch,
    encode_record,
)

FIXTURES = [
    "headers",
    "large_value",
    "nulls",
    "one",
    "thousand_lz4",
    "thousand_none",
    "thousand_zstd",
    "time_goes_back",
]


def read(fixtures: Path, name: str) -> tuple[bytes, dict[str, Any]]:
    return (fixtures / f"{name}.bin").read_bytes(), json.loads((fixtures / f"{name}.json").read_text())


def one(data: bytes) -> tuple[Batch, list[Record]]:
    (batch,) = decode_batches(data)
    return batch, list(batch.records("t", 7))


def encoded(batch: Batch, records: list[Record], compression: Compression) -> bytes:
    parts = [
        encode_record(record.timestamp_ms - batch.base_timestamp_ms, delta, record.key, record.value, record.headers)
        for delta, record in enumerate(records)
    ]
    return encode_batch(parts, batch.base_timestamp_ms, batch.max_timestamp_ms, batch.producer, compression)


def text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


@pytest.mark.parametrize("name", FIXTURES)
def test_what_another_client_wrote_is_read(fixtures: Path, name: str) -> None:
    data, holds = read(fixtures, name)
    batch, records = one(data)
    assert batch.record_count == holds["count"]
    for record, expected in zip(records, holds["records"], strict=True):
        assert (record.topic, record.partition) == ("t", 7)
        assert (text(record.key), text(record.value)) == (expected["key"], expected["value"])
        assert [[header, text(value)] for header, value in record.headers] == expected["headers"]
        assert record.timestamp_ms == expected["timestamp"]


@pytest.mark.parametrize("name", [name for name in FIXTURES if not name.endswith(("lz4", "zstd"))])
def test_what_another_client_wrote_is_written_byte_for_byte(fixtures: Path, name: str) -> None:
    data, _ = read(fixtures, name)
    batch, records = one(data)
    written = encoded(batch, records, Compression.NONE)
    # Base offset and leader epoch are no business of a producer's.
    assert data[:8] + written[8:12] + data[12:16] + written[16:] == data


@pytest.mark.parametrize("compression", Compression)
def test_batches_survive_the_way_there_and_back(compression: Compression) -> None:
    headers = (("h", b"1"), ("h", None), ("", b""), ("ünï", b"\xff"))
    numbers = [0, 1, -1, 63, 64, -64, -65, 4095, 4096, 2**31, -(2**40), 2**62]
    records = [encode_record(delta, at, bytes([at]), b"v" * at * 100, headers[: at % 5]) for at, delta in enumerate(numbers)]
    stamp = ProducerStamp(2**62, 2**15 - 1, 2**31 - 1)
    batch, read = one(encode_batch(records, 10, 10 + max(numbers), stamp, compression))
    assert (batch.producer, batch.compression, batch.max_timestamp_ms) == (stamp, compression, 10 + 2**62)
    expected = [
        Record("t", 7, at, 10 + delta, bytes([at]), b"v" * at * 100, headers[: at % 5]) for at, delta in enumerate(numbers)
    ]
    assert read == expected


def test_records_of_a_batch_with_append_time_have_the_time_of_the_append() -> None:
    records = [encode_record(delta, at, None, b"v") for at, delta in enumerate((0, 5, 2))]
    data = bytearray(encode_batch(records, 1_000, 9_000))
    assert [record.timestamp_ms for record in one(bytes(data))[1]] == [1_000, 1_005, 1_002]
    # Bit 3 of the attributes: Kafka's timestamp type LogAppendTime.
    data[22] |= 0b1000
    data[17:21] = google_crc32c.value(bytes(data[21:])).to_bytes(4, "big")
    assert [record.timestamp_ms for record in one(bytes(data))[1]] == [9_000] * 3


def test_null_and_empty_differ() -> None:
    records = [encode_record(0, 0, None, b""), encode_record(0, 1, b"", None)]
    _, (first, second) = one(encode_batch(records, 0, 0))
    assert (first.key, first.value, second.key, second.value) == (None, b"", b"", None)


@pytest.mark.parametrize("name", ["headers", "nulls"])
def test_no_damage_goes_unnoticed(fixtures: Path, name: str) -> None:
    data, _ = read(fixtures, name)
    for length in range(1, len(data)):
        with pytest.raises(BadAnswerError):
            one(data[:length])
    # The base offset and the leader's epoch are outside of the checksum, and the length's damage shows otherwise.
    for at in range(16, len(data)):
        with pytest.raises(BadAnswerError):
            one(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])


def test_records_that_do_not_fit_their_batch_are_refused() -> None:
    whole = encode_record(0, 0, b"key", b"value", (("h", b"x"),))
    for length in range(len(whole)):
        with pytest.raises(BadAnswerError):
            one(encode_batch([whole[:length]], 0, 0))
    for at in range(len(whole)):
        damaged = whole[:at] + b"\xff" + whole[at + 1 :]
        with contextlib.suppress(BadAnswerError):
            one(encode_batch([damaged], 0, 0))


def test_more_than_a_batch_may_hold_is_not_decompressed() -> None:
    for compression in (Compression.LZ4, Compression.ZSTD):
        bomb = encode_batch([bytes((64 << 20) + 1)], 0, 0, NO_PRODUCER, compression)
        assert len(bomb) < 1 << 20
        with pytest.raises(BadAnswerError, match="decompressed"):
            one(bomb)


def test_batches_stand_back_to_back() -> None:
    batches = [encode_batch([encode_record(0, 0, None, value)], 5, 5) for value in (b"a", b"b")]
    values = [record.value for batch in decode_batches(b"".join(batches)) for record in batch.records("t", 0)]
    assert values == [b"a", b"b"]
    assert len(batches[0]) == HEADER_BYTES + 8
