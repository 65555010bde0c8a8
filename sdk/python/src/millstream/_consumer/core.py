"""What a consumer knows, without the means to wait or to call."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from millstream import errors
from millstream._connection import Call, Pauses
from millstream._consumer.membership import Membership
from millstream._consumer.reading import Reading
from millstream._consumer.settings import ConsumerSettings
from millstream.errors import MillstreamError
from millstream.records import Record, Start, TopicPartition
from millstream.v1 import consumer_pb2, group_pb2, topic_pb2

#: How long to wait after a heartbeat that failed, and for one whose answer is on its way.
BEAT_AGAIN_S = 0.5

#: How long the last commit and leaving may take each, when a consumer is closed.
CLOSE_TIMEOUT_S = 10.0


class Core:
    """A consumer's reading, its membership where it is in a group, and what it has committed."""

    def __init__(
        self,
        topics: Sequence[str],
        partitions: Sequence[tuple[str, int]],
        group: str | None,
        settings: ConsumerSettings,
    ) -> None:
        if not topics and not partitions:
            raise ValueError("a consumer reads topics, or partitions of topics: neither is given")
        if group is not None and (partitions or settings.stop_at_end):
            raise ValueError("a member of a group reads whole topics, and on and on")
        self.settings = settings
        self.topics = list(topics)
        self.partitions = [TopicPartition(*place) for place in partitions]
        self.reading = Reading(settings)
        self.membership = Membership(group, topics, settings) if group is not None else None
        self.closed = False
        #: Nothing is read any more, and why.
        self.fatal: MillstreamError | None = None
        #: Something waits to be done between two records.
        self.interrupted = False
        #: Whether the caller waits for records, and when it last asked for some.
        self._waits = False
        self._asked = time.monotonic()
        self._committed: dict[TopicPartition, int] = {}
        self._commit_due = self._next_commit()
        self._pauses = Pauses()
        self._broken_since: float | None = None

    def partitions_call(self, topic: str) -> Call[topic_pb2.GetTopicResponse, list[TopicPartition]]:
        """The call that tells which partitions a topic has."""
        request = topic_pb2.GetTopicRequest(name=topic, without_partitions=True)
        return Call(
            "TopicService/GetTopic",
            request,
            topic_pb2.GetTopicResponse,
            lambda answer: [TopicPartition(topic, partition) for partition in range(answer.topic.partitions)],
        )

    def offsets_call(self, place: TopicPartition, start: Start) -> Call[consumer_pb2.ListOffsetsResponse, tuple[int, int]]:
        """The call that tells where a partition begins to be read, and where its end is now."""
        topic, partition = place
        request = consumer_pb2.ListOffsetsRequest(topic=topic, partition=partition)
        if start.kind == "timestamp":
            request.timestamp_ms = start.at
        return Call(
            "ConsumerService/ListOffsets",
            request,
            consumer_pb2.ListOffsetsResponse,
            lambda answer: (_position(start, answer), answer.high_watermark),
        )

    def begin(self, found: Mapping[TopicPartition, tuple[int, int]]) -> None:
        """Reads from the positions that were found, and where that was asked for up to the ends."""
        if self.settings.stop_at_end:
            self.reading.ends.update({place: end for place, (_, end) in found.items()})
        self.reading.topics = tuple(self.topics) if self.membership is None else ()
        self.reading.assign({place: offset for place, (offset, _) in found.items()})

    def start_of(self, place: TopicPartition, committed: Mapping[TopicPartition, int]) -> Start:
        """Where a partition begins that the group has given this member."""
        offset = committed.get(place)
        return self.settings.start if offset is None else Start("committed", offset)

    def take(self, max_records: int) -> list[Record]:
        """At most so many records of the chunk at the head."""
        chunk = self.reading.head
        if chunk is None:
            return []
        records = chunk.records[chunk.at : chunk.at + max_records]
        chunk.at += len(records)
        if records:
            self.reading.positions[chunk.place] = records[-1].offset + 1
        return records

    def is_ready(self) -> bool:
        """Whether a record can be handed out at once, and nothing is to be done before."""
        head = self.reading.head
        ready = head is not None and head.at < len(head.records)
        return ready and not self.interrupted and not self.is_commit_due()

    def asks(self) -> None:
        """The caller asks for records: it is at work."""
        self._asked = time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for records, however long it takes."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
            self.asks()

    def hangs_in(self) -> float:
        """After how many seconds without being asked for anything a member is taken for one that hangs."""
        if self._waits:
            return math.inf
        return self._asked + self.settings.max_poll_interval_s - time.monotonic()

    def hangs(self) -> bool:
        """Whether that is so."""
        return self.hangs_in() <= 0

    def wants_stream(self) -> bool:
        """Whether there is something to read."""
        return bool(self.reading.wanted()) or bool(self.reading.topics and not self.reading.ends)

    def check_open(self) -> None:
        """Raises where the consumer is closed."""
        if self.closed:
            raise errors.ClosedError("the consumer is closed", reason="CLOSED")

    def check(self) -> None:
        """Raises what the caller is to be told."""
        self.check_open()
        if self.reading.failures:
            raise self.reading.failures.popleft()
        if self.fatal is not None:
            raise self.fatal

    def assigned(self, place: TopicPartition) -> TopicPartition:
        """The partition, where it is read."""
        if place not in self.reading.positions:
            raise ValueError(f"partition {place.partition} of topic {place.topic!r} is not read here")
        return place

    def lag(self) -> dict[TopicPartition, int]:
        """How many offsets lie between the position and the high watermark, where an answer has told that already."""
        positions, ends = self.reading.positions, self.reading.high_watermarks
        return {place: max(ends[place] - at, 0) for place, at in positions.items() if place in ends}

    def to_commit(self, given: Mapping[TopicPartition, int] | None = None) -> dict[TopicPartition, int]:
        """These next offsets; else how far the caller has got, where that is not what was committed."""
        if given is not None:
            return dict(given)
        positions = self.reading.positions
        return {place: offset for place, offset in positions.items() if self._committed.get(place) != offset}

    def commits(self) -> bool:
        """Whether the consumer commits by itself."""
        return self.membership is not None and self.settings.auto_commit_interval_s is not None

    def is_commit_due(self) -> bool:
        """Whether it is time for that."""
        return self.commits() and time.monotonic() >= self._commit_due

    def committing(self) -> None:
        """The next time is counted from now."""
        self._commit_due = self._next_commit()

    def committed(self, offsets: Mapping[TopicPartition, int], answer: group_pb2.CommitOffsetsResponse) -> None:
        """What was stored is remembered; the first failure is raised."""
        failed = {TopicPartition(one.topic, one.partition): one.error for one in answer.failures}
        self._committed.update({place: offset for place, offset in offsets.items() if place not in failed})
        for error in failed.values():
            raise errors.from_message(error)

    def taken_up(self, committed: Mapping[TopicPartition, int]) -> None:
        """These were committed before, by whoever had the partitions then."""
        self._committed.update(committed)

    def forget(self, places: Sequence[TopicPartition]) -> None:
        """Reads these no longer."""
        self.reading.drop(places)
        for place in places:
            self._committed.pop(place, None)

    def works(self) -> None:
        """The stream brought something."""
        self._broken_since = None
        self._pauses.reset()

    def broke(self, error: MillstreamError | None) -> float:
        """The stream is over: how long to wait before the next one. What cannot be mended is told to the caller."""
        now = time.monotonic()
        if self._broken_since is None:
            self._broken_since = now
        lasts = now - self._broken_since > self.settings.reconnect_timeout_s
        if error is not None and (lasts or not error.retryable):
            self.fatal = error
        return self._pauses.after(error)

    def heartbeat_failed(self, membership: Membership, error: MillstreamError) -> float:
        """How long to wait before the next heartbeat. What cannot be mended is told to the caller."""
        if membership.refused(error):
            return 0.0
        if not error.retryable:
            self.fatal = error
        return min(membership.heartbeat_interval_s, error.retry_after_s or BEAT_AGAIN_S)

    def _next_commit(self) -> float:
        return time.monotonic() + (self.settings.auto_commit_interval_s or 0.0)


def suppressed_if(lost: bool) -> AbstractContextManager[None]:
    """Around a listener: where partitions are lost already, that it cannot commit any more is no news."""
    return suppress(errors.AbortedError) if lost else nullcontext()


def _position(start: Start, answer: consumer_pb2.ListOffsetsResponse) -> int:
    match start.kind:
        case "committed":
            # What was committed may have gone since, by retention.
            return max(start.at, answer.log_start_offset)
        case "earliest":
            return answer.log_start_offset
        case "offset":
            return start.at
        case "timestamp" if answer.HasField("offset_at"):
            return answer.offset_at
        case _:
            return answer.high_watermark
