"""Where records wait to become full batches."""

from __future__ import annotations

import random
from collections import deque

from millstream._producer.pending import HEADER_OVERHEAD_BYTES, RECORD_OVERHEAD_BYTES, PendingBatch
from millstream._producer.settings import ProducerSettings
from millstream.batch import BATCH_BYTES_MAX, HEADER_BYTES
from millstream.errors import InvalidArgumentError
from millstream.partitioner import partition_for_key
from millstream.records import Header, TopicPartition


class Accumulator:
    """Open batches by partition, and those that are ready to be sent, in the order in which they became so."""

    def __init__(self, settings: ProducerSettings) -> None:
        self._settings = settings
        self._open: dict[TopicPartition, PendingBatch] = {}
        self._sticky: dict[str, int] = {}
        self.ready: deque[PendingBatch] = deque()
        #: Batches that are not settled, in the order in which they were begun, and their bytes.
        self.held: dict[PendingBatch, None] = {}
        self.bytes_held = 0

    def partition(self, topic: str, key: bytes | None, size: int, partitions: int) -> int:
        """By hash of the key; records without one stay with a partition until its batch is full, then move on."""
        if key is not None:
            return partition_for_key(key, partitions)
        sticky = self._sticky.setdefault(topic, random.randrange(partitions))
        batch = self._open.get(TopicPartition(topic, sticky))
        if batch is not None and self._is_full(batch, size):
            self._seal(batch)
        # One that was moved on beyond the last begins again.
        self._sticky[topic] %= partitions
        return self._sticky[topic]

    def fits(self, size: int) -> bool:
        """Whether there is room; a record larger than the whole buffer has room when it is alone."""
        return self.bytes_held + size <= self._settings.buffer_bytes_max or self.bytes_held == 0

    def append(
        self,
        place: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        headers: tuple[Header, ...],
        timestamp_ms: int,
        now: float,
    ) -> tuple[PendingBatch, int]:
        """Adds a record: its batch, and its place in it."""
        size = record_size(key, value, headers)
        batch = self._open.get(place)
        if batch is not None and self._is_full(batch, size):
            self._seal(batch)
            batch = None
        if batch is None:
            batch = self._open[place] = PendingBatch(place, timestamp_ms, now)
            self.held[batch] = None
        before = batch.bytes
        index = batch.append(key, value, headers, timestamp_ms)
        self.bytes_held += batch.bytes - before
        if batch.bytes >= self._settings.batch_bytes:
            self._seal(batch)
        return batch, index

    def seal_due(self, now: float) -> float | None:
        """Seals what has waited long enough; when the next one has."""
        while self._open:
            # Open batches stand in the order in which they were begun.
            oldest = next(iter(self._open.values()))
            due = oldest.created_at + self._settings.linger_s
            if due > now:
                return due
            self._seal(oldest)
        return None

    def seal_all(self) -> None:
        """Seals everything, for a flush."""
        for batch in list(self._open.values()):
            self._seal(batch)

    def release(self, batch: PendingBatch) -> None:
        """A batch is settled: its room is free."""
        self.bytes_held -= batch.bytes
        del self.held[batch]

    def _is_full(self, batch: PendingBatch, size: int) -> bool:
        return batch.bytes + size > self._settings.batch_bytes

    def _seal(self, batch: PendingBatch) -> None:
        topic, partition = batch.place
        del self._open[batch.place]
        self.ready.append(batch)
        if self._sticky.get(topic) == partition:
            self._sticky[topic] = partition + 1


def record_size(key: bytes | None, value: bytes | None, headers: tuple[Header, ...]) -> int:
    """An upper bound on the encoded size of a record.

    Raises:
        InvalidArgumentError: Where no batch has room for it.
    """
    size = RECORD_OVERHEAD_BYTES + len(key or b"") + len(value or b"")
    for name, header in headers:
        size += HEADER_OVERHEAD_BYTES + 4 * len(name) + len(header or b"")
    if size > BATCH_BYTES_MAX - HEADER_BYTES:
        raise InvalidArgumentError(
            f"a record of {size} bytes is above the limit of {BATCH_BYTES_MAX} bytes for a whole batch",
            reason="RECORD_TOO_LARGE",
        )
    return size
