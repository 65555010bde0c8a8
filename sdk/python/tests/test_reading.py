"""What a consumer hands out of what a stream brings, and the member's part in a group."""

from __future__ import annotations

import grpc
import pytest

from millstream import AbortedError, BadAnswerError, ConsumerSettings, OutOfRangeError, TopicPartition
from millstream._consumer.membership import Membership
from millstream._consumer.reading import Reading
from millstream.batch import encode_batch, encode_record
from millstream.v1 import consumer_pb2, error_pb2, group_pb2, record_pb2

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


def answer(
    place: TopicPartition, first: int, *values: bytes, until: int | None = None, cost: int = 10
) -> consumer_pb2.SubscribeResponse:
    records = [record_pb2.Record(offset=first + at, value=value) for at, value in enumerate(values)]
    following = first + len(values) if until is None else until
    fetched = consumer_pb2.FetchedPartition(
        topic=place.topic, partition=place.partition, records=records, next_offset=following, high_watermark=100
    )
    return consumer_pb2.SubscribeResponse(fetched=fetched, credit_bytes=cost)


def values(reading: Reading) -> list[bytes | None]:
    """Everything that can be handed out, and is."""
    found = []
    while reading.has_records():
        assert reading.head is not None
        record = reading.head.records[reading.head.at]
        reading.head.at += 1
        reading.positions[reading.head.place] = record.offset + 1
        found.append(record.value)
    return found


def reading(settings: ConsumerSettings | None = None, **positions: int) -> Reading:
    made = Reading(settings or ConsumerSettings())
    made.assign({A: positions.get("a", 0), B: positions.get("b", 0)})
    return made


def starts(request: consumer_pb2.SubscribeRequest) -> dict[int, int]:
    return {one.partition: one.start.offset for one in request.start.partitions}


def test_a_stream_begins_where_the_last_one_ended() -> None:
    made = reading(a=5)
    assert starts(made.start()) == {0: 5, 1: 0}
    made.accept(answer(A, 5, b"x", b"y"))
    assert starts(made.start()) == {0: 7, 1: 0}
    assert values(made) == [b"x", b"y"]
    assert made.positions == {A: 7, B: 0}


def test_what_a_pipeline_dropped_is_passed_over() -> None:
    made = reading()
    made.accept(answer(A, 0, until=50))
    made.accept(answer(A, 50, b"x", until=60))
    assert values(made) == [b"x"]
    assert made.positions[A] == 60


def test_credits_go_back_when_what_they_paid_for_is_used_up() -> None:
    made = reading(ConsumerSettings(prefetch_bytes=40))
    assert made.start().start.credit_bytes == 40
    for at in range(3):
        made.accept(answer(A, at, b"x"))
    assert made.take_credit() == 0
    assert made.has_records()
    assert made.start().start.credit_bytes == 10, "what waits here is not asked for once more"
    assert values(made) == [b"x"] * 3
    assert made.take_credit() == 30
    assert made.take_credit() == 0


def test_a_partition_that_is_moved_keeps_nothing_of_before() -> None:
    made = reading()
    made.accept(answer(A, 0, b"x", b"y"))
    made.accept(answer(B, 0, b"z"))
    assert made.has_records()
    revision = made.revision
    made.assign({A: 40})
    assert made.revision > revision
    assert starts(made.start()) == {0: 40, 1: 1}
    assert values(made) == [b"z"]


def test_a_paused_partition_goes_on_where_it_was() -> None:
    made = reading()
    made.topics = ("t",)
    made.accept(answer(A, 0, b"x", b"y"))
    assert made.has_records()
    made.pause([A])
    request = made.start()
    assert (starts(request), list(request.start.topics)) == ({1: 0}, [])
    assert values(made) == []
    made.resume([A])
    request = made.start()
    assert (starts(request), list(request.start.topics)) == ({0: 0, 1: 0}, ["t"])


def test_an_error_ends_one_partition_until_it_is_moved() -> None:
    made = reading(a=7)
    error = error_pb2.Error(code=grpc.StatusCode.OUT_OF_RANGE.value[0], reason="OFFSET_OUT_OF_RANGE", message="no")
    fetched = consumer_pb2.FetchedPartition(topic="t", partition=0, error=error)
    made.accept(consumer_pb2.SubscribeResponse(fetched=fetched))
    assert isinstance(made.failures.popleft(), OutOfRangeError)
    assert starts(made.start()) == {1: 0}
    made.assign({A: 3})
    assert starts(made.start()) == {0: 3, 1: 0}


def test_reading_ends_at_the_ends_and_hands_out_nothing_beyond() -> None:
    made = reading(ConsumerSettings(stop_at_end=True))
    made.ends = {A: 2, B: 0}
    assert starts(made.start()) == {0: 0}
    assert not made.is_finished()
    made.accept(answer(A, 0, b"x", b"y", b"z"))
    assert values(made) == [b"x", b"y"]
    assert made.is_finished()
    assert made.positions[A] == 2


def test_a_partition_that_was_added_is_read_from_its_start() -> None:
    made = reading()
    made.accept(answer(TopicPartition("t", 2), 0, b"new"))
    assert values(made) == [b"new"]
    assert starts(made.start()) == {0: 0, 1: 0, 2: 1}


def encoded(first: int, *given: bytes) -> bytes:
    batch = encode_batch([encode_record(0, at, None, value) for at, value in enumerate(given)], 0, 0)
    return first.to_bytes(8, "big") + batch[8:]


def test_encoded_batches_are_read_from_the_wanted_offset_on() -> None:
    made = reading(a=11)
    batches = encoded(10, b"a", b"b", b"c") + encoded(20, b"d")
    fetched = consumer_pb2.FetchedPartition(topic="t", partition=0, batches=batches, next_offset=21)
    made.accept(consumer_pb2.SubscribeResponse(fetched=fetched))
    assert values(made) == [b"b", b"c", b"d"]


def test_nothing_behind_what_cannot_be_read_is_handed_out() -> None:
    made = reading()
    damaged = encoded(0, b"a")[:-1] + b"!"
    fetched = consumer_pb2.FetchedPartition(topic="t", partition=0, batches=damaged, next_offset=1)
    made.accept(consumer_pb2.SubscribeResponse(fetched=fetched))
    made.accept(answer(A, 1, b"behind"))
    made.accept(answer(B, 0, b"other"))
    with pytest.raises(BadAnswerError):
        made.has_records()
    assert values(made) == [b"other"]
    assert made.positions[A] == 0


def told(membership: Membership, generation: int, *assigned: TopicPartition) -> None:
    partitions = [consumer_pb2.TopicPartition(topic=one.topic, partition=one.partition) for one in assigned]
    membership.told(
        group_pb2.HeartbeatResponse(member_id="m", generation=generation, assigned=partitions, heartbeat_interval_ms=3_000)
    )


def test_a_member_says_what_it_owns_until_it_has_let_go() -> None:
    membership = Membership("g", ["t"], ConsumerSettings(session_timeout_s=9, client_id="c"))
    first = membership.heartbeat().request
    assert isinstance(first, group_pb2.HeartbeatRequest)
    assert (first.member_id, list(first.topics), first.session_timeout_ms, first.client_id) == ("", ["t"], 9_000, "c")
    told(membership, 1, A, B)
    assert (membership.changes(), membership.gained(), membership.heartbeat_interval_s) == (True, [A, B], 3.0)
    membership.owned.update([A, B])
    assert not membership.changes()
    told(membership, 2, A)
    assert membership.revoked() == [B]
    second = membership.heartbeat().request
    assert isinstance(second, group_pb2.HeartbeatRequest)
    assert (second.member_id, second.generation, len(second.owned), list(second.topics)) == ("m", 2, 2, [])
    membership.owned.discard(B)
    assert not membership.changes()


def test_a_member_whose_session_is_over_owns_nothing_and_joins_anew() -> None:
    membership = Membership("g", ["t"], ConsumerSettings())
    told(membership, 1, A)
    membership.owned.add(A)
    assert not membership.refused(AbortedError("stale", reason="GENERATION_STALE"))
    assert membership.refused(AbortedError("gone", reason="MEMBER_UNKNOWN"))
    assert membership.lost
    assert membership.owned == set()
    again = membership.heartbeat().request
    assert isinstance(again, group_pb2.HeartbeatRequest)
    assert (again.member_id, again.generation, list(again.topics)) == ("", 0, ["t"])
    assert membership.leave() is None
    with pytest.raises(AbortedError):
        membership.commit({A: 1}, "")
