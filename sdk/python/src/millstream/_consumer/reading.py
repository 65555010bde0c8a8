"""Where each partition is read, what has arrived of it, and what the caller has got of that."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from millstream import errors
from millstream._consumer.settings import ConsumerSettings
from millstream.batch import decode_batches
from millstream.errors import BadAnswerError, MillstreamError
from millstream.records import Record, TopicPartition
from millstream.v1 import consumer_pb2, record_pb2

#: The part of the credits that is given back at once rather than in small change.
_CREDIT_PART = 4


class Chunk:
    """What one answer brought of one partition."""

    def __init__(self, place: TopicPartition, fetched: consumer_pb2.FetchedPartition, first: int, cost: int) -> None:
        self.place = place
        self.next_offset = fetched.next_offset
        self.cost = cost
        self.records: list[Record] = []
        #: How many of its records the caller has.
        self.at = 0
        self._first = first
        self._fetched: consumer_pb2.FetchedPartition | None = fetched

    def cut_off(self, end: int) -> None:
        """Leaves out what stands at or beyond an offset."""
        self.next_offset = min(self.next_offset, end)

    def open(self) -> None:
        """Makes records of what was fetched; only here, so that what waits takes no more room than it did on the wire."""
        if self._fetched is None:
            return
        fetched, self._fetched = self._fetched, None
        records = _decoded(self.place, fetched.batches) if fetched.batches else _plain(self.place, fetched.records)
        # Encoded batches may begin below what was asked for.
        self.records = [record for record in records if self._first <= record.offset < self.next_offset]


class Reading:
    """The partitions that are read. A driver that has threads holds its lock during every call."""

    def __init__(self, settings: ConsumerSettings) -> None:
        self._settings = settings
        #: The next offset to hand out, and where nothing is handed out any more.
        self.positions: dict[TopicPartition, int] = {}
        self.ends: dict[TopicPartition, int] = {}
        #: High watermarks, as the last answers told them.
        self.high_watermarks: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()
        #: What the caller is being given.
        self.head: Chunk | None = None
        #: Grows whenever the stream has to be opened anew, because something else is to be read.
        self.revision = 0
        #: What the caller is to be told before anything else.
        self.failures: deque[MillstreamError] = deque()
        #: Topics of which partitions that are added later are read too.
        self.topics: tuple[str, ...] = ()
        self._fetched: dict[TopicPartition, int] = {}
        self._failed: set[TopicPartition] = set()
        self._chunks: deque[Chunk] = deque()
        self._credit = 0

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Reads these partitions too, or from another position."""
        self.drop(positions)
        self.positions.update(positions)
        self._fetched.update(positions)

    def drop(self, places: Iterable[TopicPartition]) -> None:
        """Reads these no longer, and forgets what has arrived of them."""
        for place in places:
            self._forget(place)
            self.positions.pop(place, None)
            self._fetched.pop(place, None)
            self.paused.discard(place)
        self.revision += 1

    def pause(self, places: Iterable[TopicPartition]) -> None:
        """Hands out nothing of these until they are resumed."""
        for place in places:
            self._fetched[place] = self.positions[place]
            self._forget(place)
            self.paused.add(place)
        self.revision += 1

    def resume(self, places: Iterable[TopicPartition]) -> None:
        """Goes on with these where they were paused."""
        self.paused.difference_update(places)
        self.revision += 1

    def wanted(self) -> dict[TopicPartition, int]:
        """What a stream is to read, and from where."""
        left_out = self.paused | self._failed
        return {
            place: offset
            for place, offset in self._fetched.items()
            if place not in left_out and offset < self.ends.get(place, offset + 1)
        }

    def start(self) -> consumer_pb2.SubscribeRequest:
        """The first message of a stream."""
        self._credit = 0
        queued = sum(chunk.cost for chunk in self._chunks) + (self.head.cost if self.head else 0)
        form = consumer_pb2.FETCH_FORMAT_BATCHES if self._settings.encoded else consumer_pb2.FETCH_FORMAT_RECORDS
        start = consumer_pb2.SubscribeStart(
            credit_bytes=max(self._settings.prefetch_bytes - queued, 1),
            max_bytes=self._settings.fetch_bytes,
            format=form,
            stage=self._settings.stage,
            # A topic named as a whole would bring back what is left out.
            topics=() if self.paused or self._failed or self.ends else self.topics,
        )
        for (topic, partition), offset in self.wanted().items():
            position = consumer_pb2.StartPosition(offset=offset)
            start.partitions.add(topic=topic, partition=partition, start=position)
        return consumer_pb2.SubscribeRequest(start=start)

    def accept(self, answer: consumer_pb2.SubscribeResponse) -> None:
        """What the stream of the present revision brought."""
        fetched = answer.fetched
        place = TopicPartition(fetched.topic, fetched.partition)
        if fetched.HasField("error"):
            self._credit += answer.credit_bytes
            self._failed.add(place)
            self.failures.append(errors.from_message(fetched.error))
            return
        first = self._fetched.setdefault(place, fetched.log_start_offset)
        self.positions.setdefault(place, first)
        self.high_watermarks[place] = fetched.high_watermark
        chunk = Chunk(place, fetched, first, answer.credit_bytes)
        if place in self.ends:
            chunk.cut_off(self.ends[place])
        self._fetched[place] = max(chunk.next_offset, first)
        self._chunks.append(chunk)

    def has_records(self) -> bool:
        """Whether the head has a record to hand out; brings the next chunk there where it has none left."""
        while True:
            if self.head is not None:
                if self.head.at < len(self.head.records):
                    return True
                self._use_up(self.head)
            if not self._chunks:
                return False
            self.head = self._chunks.popleft()
            self._open(self.head)

    def take_credit(self) -> int:
        """The credits to give back now; 0 where they can wait."""
        part = self._settings.prefetch_bytes // _CREDIT_PART
        if self._credit == 0 or (self._chunks and self._credit < part):
            return 0
        credit, self._credit = self._credit, 0
        return credit

    def is_finished(self) -> bool:
        """Whether everything up to the ends was handed out, where there are any."""
        if not self._settings.stop_at_end or self._chunks or self.head is not None:
            return False
        return all(self.positions[place] >= end or place in self._failed for place, end in self.ends.items())

    def _open(self, chunk: Chunk) -> None:
        try:
            chunk.open()
        except BadAnswerError:
            # Nothing behind what cannot be read is handed out, until the caller says where to go on.
            self._forget(chunk.place)
            self._failed.add(chunk.place)
            self.revision += 1
            raise

    def _use_up(self, chunk: Chunk) -> None:
        self.positions[chunk.place] = max(chunk.next_offset, self.positions[chunk.place])
        self._credit += chunk.cost
        self.head = None

    def _forget(self, place: TopicPartition) -> None:
        self._failed.discard(place)
        self._chunks = deque(chunk for chunk in self._chunks if chunk.place != place)
        if self.head is not None and self.head.place == place:
            self.head = None


def _plain(place: TopicPartition, records: Iterable[record_pb2.Record]) -> Iterator[Record]:
    topic, partition = place
    for record in records:
        yield Record(
            topic,
            partition,
            record.offset,
            record.timestamp_ms,
            record.key if record.HasField("key") else None,
            record.value if record.HasField("value") else None,
            tuple((header.key, header.value if header.HasField("value") else None) for header in record.headers),
        )


def _decoded(place: TopicPartition, batches: bytes) -> Iterator[Record]:
    for batch in decode_batches(batches):
        yield from batch.records(*place)
