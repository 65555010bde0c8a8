"""Where records wait to become full batches."""

from __future__ import annotations

import pytest

from millstream import Fate, InvalidArgumentError, ProducerSettings, TopicPartition
from millstream._producer.accumulator import Accumulator, record_size
from millstream._producer.pending import PendingBatch
from millstream.batch import ProducerStamp, decode_batches
from millstream.records import Compression
from millstream.v1 import producer_pb2

PLACE = TopicPartition("t", 0)


def add(accumulator: Accumulator, value: bytes, now: float = 0.0, place: TopicPartition = PLACE) -> PendingBatch:
    batch, _ = accumulator.append(place, None, value, (), 1_000, now)
    return batch


def test_a_batch_is_ready_when_it_is_full() -> None:
    accumulator = Accumulator(ProducerSettings(batch_bytes=500))
    batches = {id(add(accumulator, b"x" * 100)) for _ in range(10)}
    assert len(batches) == 3
    assert [batch.count for batch in accumulator.ready] == [4, 4]
    assert all(batch.bytes <= 500 for batch in accumulator.ready)


def test_a_record_above_the_batch_size_has_a_batch_of_its_own() -> None:
    accumulator = Accumulator(ProducerSettings(batch_bytes=500))
    for value in (b"a", b"x" * 600, b"b"):
        add(accumulator, value)
    assert [batch.count for batch in accumulator.ready] == [1, 1]


def test_a_batch_is_ready_when_its_linger_is_over() -> None:
    accumulator = Accumulator(ProducerSettings(linger_s=1.0))
    add(accumulator, b"a", now=0.0)
    add(accumulator, b"b", now=0.5, place=TopicPartition("t", 1))
    assert accumulator.seal_due(0.9) == 1.0
    assert not accumulator.ready
    assert accumulator.seal_due(1.0) == 1.5
    assert [batch.place.partition for batch in accumulator.ready] == [0]
    assert accumulator.seal_due(2.0) is None


def test_room_is_free_when_a_batch_is_settled() -> None:
    accumulator = Accumulator(ProducerSettings(buffer_bytes_max=1_000))
    assert accumulator.fits(5_000), "what is larger than the buffer goes alone"
    batch = add(accumulator, b"x" * 900)
    assert not accumulator.fits(100)
    accumulator.release(batch)
    assert accumulator.fits(100)
    assert accumulator.bytes_held == 0


def test_records_without_a_key_move_on_when_their_batch_is_sealed() -> None:
    accumulator = Accumulator(ProducerSettings())
    seen = []
    for _ in range(4):
        partition = accumulator.partition("t", None, 70, 3)
        assert accumulator.partition("t", None, 70, 3) == partition
        add(accumulator, b"a", place=TopicPartition("t", partition))
        accumulator.seal_all()
        seen.append(partition)
    assert seen == [(seen[0] + step) % 3 for step in range(4)]
    assert accumulator.partition("t", b"foobar", 70, 50) == 16


def test_records_without_a_key_fill_one_batch_after_the_other() -> None:
    accumulator = Accumulator(ProducerSettings(batch_bytes=500))
    for _ in range(100):
        partition = accumulator.partition("t", None, 164, 3)
        add(accumulator, b"x" * 100, place=TopicPartition("t", partition))
    assert {batch.count for batch in accumulator.ready} == {4}
    places = [batch.place.partition for batch in accumulator.ready]
    assert places == [(places[0] + step) % 3 for step in range(24)]


def test_no_record_is_taken_that_no_batch_has_room_for() -> None:
    with pytest.raises(InvalidArgumentError, match="16777216"):
        record_size(None, bytes(16 << 20), ())


def test_a_record_is_never_larger_than_was_thought() -> None:
    headers = (("ü" * 50, b"x" * 70), ("", None)) * 3
    accumulator = Accumulator(ProducerSettings())
    batch, _ = accumulator.append(PLACE, b"k" * 70_000, b"v" * 3_000_000, headers, 2**62, 0.0)
    assert batch.bytes <= record_size(b"k" * 70_000, b"v" * 3_000_000, headers)


def test_an_answer_becomes_the_outcome_of_each_record() -> None:
    batch = PendingBatch(PLACE, 0, 0.0)
    for _ in range(6):
        batch.append(None, b"", (), 0)
    normal = producer_pb2.RECORD_FATE_PIPELINE
    dead, passed = producer_pb2.RECORD_FATE_DEAD_LETTERED, producer_pb2.RECORD_FATE_PASSED
    runs = [(2, 1, normal), (1, 0, normal), (1, 3, normal), (1, 0, dead), (1, 1, passed)]
    answer = producer_pb2.ProduceResponse(base_offset=10, record_count=6, pipeline_version=7)
    for count, each, fate in runs:
        answer.results.add(record_count=count, stored_each=each, fate=fate)
    told = []
    batch.when_settled(lambda: told.append("before"))
    batch.settle(answer)
    batch.when_settled(lambda: told.append("after"))
    outcomes = [batch.outcome(index) for index in range(6)]
    found = [(one.offset, one.stored, one.fate) for one in outcomes if not isinstance(one, Exception)]
    assert found == [
        (10, 1, Fate.PIPELINE),
        (11, 1, Fate.PIPELINE),
        (None, 0, Fate.PIPELINE),
        (12, 3, Fate.PIPELINE),
        (None, 0, Fate.DEAD_LETTERED),
        (15, 1, Fate.PASSED),
    ]
    assert told == ["before", "after"]


@pytest.mark.parametrize("compression", Compression)
def test_a_batch_that_is_numbered_anew_holds_the_same(compression: Compression) -> None:
    batch = PendingBatch(PLACE, 1_000, 0.0)
    batch.append(b"k", b"v", (("h", None),), 1_000)
    batch.append(None, b"w", (), 900)
    records = []
    for stamp in (ProducerStamp(5, 0, 10), ProducerStamp(5, 1, 0)):
        batch.stamp = stamp
        (decoded,) = decode_batches(batch.encode(compression))
        assert (decoded.producer, decoded.base_timestamp_ms, decoded.max_timestamp_ms) == (stamp, 1_000, 1_000)
        records.append(list(decoded.records("t", 0)))
    assert records[0] == records[1]
    assert [record.timestamp_ms for record in records[0]] == [1_000, 900]


@pytest.mark.parametrize(
    "wrong",
    [{"batch_bytes": 0}, {"batch_bytes": 17 << 20}, {"linger_s": -1.0}, {"in_flight_max": 0}, {"buffer_bytes_max": 0}],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ProducerSettings(**wrong)  # type: ignore[arg-type]
