"""A batch on its way, from its first record until what became of it is known."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

from millstream._compression import compress
from millstream.batch import ProducerStamp, encode_record, frame
from millstream.errors import MillstreamError, RecordsRejectedError
from millstream.records import Compression, Delivery, Fate, Header, TopicPartition
from millstream.v1 import producer_pb2

#: Bounds on what the encoding adds to a record, and to each of its headers: varints of at most 10 bytes.
RECORD_OVERHEAD_BYTES = 64
HEADER_OVERHEAD_BYTES = 20


class PendingBatch:
    """Records of one partition. Whoever adds to it or sends it holds the producer's lock; it is settled once."""

    def __init__(self, place: TopicPartition, timestamp_ms: int, now: float) -> None:
        self.place = place
        self.created_at = now
        self.bytes = 0
        self.count = 0
        #: Under which it is sent.
        self.stamp: ProducerStamp | None = None
        #: Whether it may be stored under its stamp, for all that is known.
        self.in_doubt = False
        self.error: MillstreamError | None = None
        self.settled = threading.Event()
        #: Records whose outcome somebody has asked for.
        self.observed: set[int] = set()
        self._base_ms = self._max_ms = timestamp_ms
        self._records: list[bytes] = []
        self._body: bytes | None = None
        self._answer: producer_pb2.ProduceResponse | None = None
        self._deliveries: list[Delivery] | None = None
        self._callbacks: list[Callable[[], Any]] = []

    def append(self, key: bytes | None, value: bytes | None, headers: tuple[Header, ...], timestamp_ms: int) -> int:
        """Adds a record; its place in the batch."""
        index = self.count
        record = encode_record(timestamp_ms - self._base_ms, index, key, value, headers)
        self._records.append(record)
        self._max_ms = max(self._max_ms, timestamp_ms)
        self.bytes += len(record)
        self.count = index + 1
        return index

    def encode(self, compression: Compression) -> bytes:
        """The batch as it travels, under its stamp."""
        if self._body is None:
            self._body = compress(compression, b"".join(self._records))
            self._records.clear()
        assert self.stamp is not None, "a batch is stamped before it is sent"
        return frame(self._body, self.count, self._base_ms, self._max_ms, self.stamp, compression)

    def settle(self, outcome: producer_pb2.ProduceResponse | MillstreamError) -> None:
        """Says what became of it, and wakes who waits. Not called under a lock: callbacks run here."""
        if isinstance(outcome, MillstreamError):
            self.error = outcome
        else:
            self._answer = outcome
        self._body = None
        self._records.clear()
        self.settled.set()
        while self._callbacks:
            self._callbacks.pop()()

    def when_settled(self, callback: Callable[[], Any]) -> None:
        """Calls back once it is settled, at once where it is already."""
        self._callbacks.append(callback)
        # Whoever takes it out of the list calls it.
        if self.settled.is_set():
            while self._callbacks:
                self._callbacks.pop()()

    def is_unobserved_failure(self) -> bool:
        """Whether it failed, and nobody has asked for the outcome of one of its records."""
        return self.error is not None and len(self.observed) < self.count

    def outcome(self, index: int) -> Delivery | MillstreamError:
        """What became of one of its records, once it is settled."""
        self.observed.add(index)
        if self.error is not None:
            return _own(self.error, index)
        if self._deliveries is None:
            assert self._answer is not None, "an outcome is asked for once the batch is settled"
            self._deliveries = _deliveries(self.place, self.count, self._answer)
        return self._deliveries[index]


def _own(error: MillstreamError, index: int) -> MillstreamError:
    """The batch's error as that of one record. Each gets its own: an exception that is raised keeps its traceback."""
    error = copy.copy(error)
    if isinstance(error, RecordsRejectedError):
        error.index = index
    return error


def _deliveries(place: TopicPartition, count: int, answer: producer_pb2.ProduceResponse) -> list[Delivery]:
    """What became of each record: runs of records of which the same became; without runs each became one."""
    runs = [(run.record_count, run.stored_each, Fate(run.fate)) for run in answer.results]
    deliveries: list[Delivery] = []
    offset = answer.base_offset
    for length, stored, fate in runs or [(count, 1, Fate.PIPELINE)]:
        for _ in range(length):
            at = offset if stored else None
            deliveries.append(Delivery(*place, at, stored, fate, answer.pipeline_version))
            offset += stored
    return deliveries
