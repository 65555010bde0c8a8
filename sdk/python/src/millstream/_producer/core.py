"""What a producer knows, without the means to wait or to call."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping

from millstream._connection import Call
from millstream._producer.accumulator import Accumulator
from millstream._producer.pending import PendingBatch
from millstream._producer.session import Session, Settled
from millstream._producer.settings import ProducerSettings
from millstream.errors import BadAnswerError, MillstreamError
from millstream.records import Header, Headers, TopicPartition
from millstream.v1 import topic_pb2

#: Failed batches that are kept for the next flush to tell.
_FAILED_MAX = 128


class Core:
    """Records from `send` until they are settled, and what is remembered of topics."""

    def __init__(self, settings: ProducerSettings) -> None:
        self.settings = settings
        self.accumulator = Accumulator(settings)
        self.session = Session(settings, self.accumulator)
        self.closing = False
        self._failed: deque[PendingBatch] = deque(maxlen=_FAILED_MAX)
        self._topics: dict[str, tuple[int, float]] = {}

    def partitions(self, topic: str) -> int | None:
        """How many partitions a topic has, where that is known and not too old."""
        known = self._topics.get(topic)
        if known is None or known[1] < time.monotonic():
            return None
        return known[0]

    def partitions_call(self, topic: str) -> Call[topic_pb2.GetTopicResponse, int]:
        """The call that tells it."""
        request = topic_pb2.GetTopicRequest(name=topic, without_partitions=True)
        return Call("TopicService/GetTopic", request, topic_pb2.GetTopicResponse, lambda answer: answer.topic.partitions)

    def learn(self, topic: str, partitions: int) -> int:
        """Remembers how many partitions a topic has."""
        if partitions < 1:
            raise BadAnswerError(f"topic {topic!r} has no partitions")
        self._topics[topic] = (partitions, time.monotonic() + self.settings.topic_age_max_s)
        return partitions

    def append(
        self,
        place: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        headers: tuple[Header, ...],
        timestamp_ms: int | None,
    ) -> tuple[PendingBatch, int]:
        """Takes a record in: its batch, and its place in it."""
        timestamp_ms = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        return self.accumulator.append(place, key, value, headers, timestamp_ms, time.monotonic())

    def note_failures(self, settled: Iterable[Settled]) -> None:
        """Remembers failures for the next flush, before anybody is told."""
        self._failed.extend(batch for batch, outcome in settled if isinstance(outcome, MillstreamError))

    def take_failure(self) -> MillstreamError | None:
        """The first failure that nobody was told; later ones are forgotten with it."""
        told = [batch for batch in self._failed if batch.error is not None]
        for batch in told:
            self._failed.remove(batch)
        return next((batch.error for batch in told if batch.is_unobserved_failure()), None)

    def left(self, error: MillstreamError | None) -> tuple[list[Settled], float]:
        """No stream is open any more, for this reason: what is given up, and how long to wait before the next one."""
        session = self.session
        cause = error or session.broken
        settled = session.ended(time.monotonic())
        if error is not None and not error.retryable:
            settled += session.fail(error)
        return settled, session.pause_s(cause) if cause else 0.0


def header_pairs(headers: Headers) -> tuple[Header, ...]:
    """Headers as pairs."""
    return tuple(headers.items()) if isinstance(headers, Mapping) else tuple(headers)
