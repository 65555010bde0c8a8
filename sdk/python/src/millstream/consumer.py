"""The consumer for threads. One thread at a time uses it; one thread of its own reads ahead, another one sends heartbeats."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType

import grpc

from millstream import errors
from millstream._connection import CALL_TIMEOUT_S, Call, Connection
from millstream._consumer.core import BEAT_AGAIN_S, CLOSE_TIMEOUT_S, Core, suppressed_if
from millstream._consumer.membership import Membership
from millstream._consumer.settings import ConsumerSettings
from millstream.errors import AbortedError, BadAnswerError, FailedPreconditionError, MillstreamError
from millstream.records import Record, Start, TopicPartition
from millstream.v1 import consumer_pb2, consumer_pb2_grpc, group_pb2

_log = logging.getLogger(__name__)

Listener = Callable[[list[TopicPartition]], object]


class _Stream:
    """One call of Subscribe."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self.over = False


class Consumer:
    """Reads records, in order within each partition, through a stream that reads ahead.

        with Consumer("http://127.0.0.1:7070", topics=["orders"], group="billing") as consumer:
            for record in consumer:
                print(record.offset, record.value)

    It reads all partitions of the topics, or some partitions, or as member of a group what the group gives it. Iterating
    goes on for ever, unless the settings say `stop_at_end`, or until `close`. A member commits what it has handed out, when
    more is asked for and at the end of the block; not where the block ends with an exception. `on_revoked` is called before
    partitions are given up, to finish and commit what is under way; `on_assigned` when they are taken up.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        topics: Sequence[str] = (),
        partitions: Sequence[tuple[str, int]] = (),
        group: str | None = None,
        settings: ConsumerSettings | None = None,
        on_assigned: Listener | None = None,
        on_revoked: Listener | None = None,
    ) -> None:
        self._core = Core(topics, partitions, group, settings or ConsumerSettings())
        self._connection = Connection(server)
        self._changed = threading.Condition()
        self._listeners = (on_assigned, on_revoked)
        self._call: grpc.Call | None = None
        self._threads: list[threading.Thread] = []

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        core = self._core
        core.asks()
        if not core.is_ready():
            try:
                more = self._advance(None)
            except errors.ClosedError:
                more = False
            if not more:
                raise StopIteration
        return core.take(1)[0]

    def poll(self, timeout: float | None = None, max_records: int = 500) -> list[Record]:
        """The next records, of one partition; none where nothing comes within the timeout, or where reading has ended.

        Raises:
            OutOfRangeError: Where a partition cannot be read at the position; `seek` says where to go on.
            MillstreamError: What else stands in the way.
        """
        self._core.asks()
        if not self._core.is_ready() and not self._advance(timeout):
            return []
        return self._core.take(max_records)

    def seek(self, topic: str, partition: int, start: Start) -> None:
        """Goes on reading a partition from another position."""
        place = self._assigned(topic, partition)
        offset, _ = self._connection.call(self._core.offsets_call(place, start))
        with self._changed:
            self._core.reading.assign({place: offset})
            self._reopen()

    def pause(self, *partitions: tuple[str, int]) -> None:
        """Hands out no records of these partitions until they are resumed."""
        with self._changed:
            self._core.reading.pause([self._assigned(*place) for place in partitions])
            self._reopen()

    def resume(self, *partitions: tuple[str, int]) -> None:
        """Goes on with partitions that were paused."""
        with self._changed:
            self._core.reading.resume([self._assigned(*place) for place in partitions])
            self._reopen()

    def positions(self) -> dict[TopicPartition, int]:
        """The partitions that are read, and the next offset of each to be handed out."""
        self._open()
        with self._changed:
            return dict(self._core.reading.positions)

    def lag(self) -> dict[TopicPartition, int]:
        """How many offsets lie between the position and the high watermark, where an answer has told that already."""
        with self._changed:
            return self._core.lag()

    def commit(self, offsets: Mapping[TopicPartition, int] | None = None, metadata: str = "") -> None:
        """Stores how far the group has read: everything handed out so far, or these next offsets.

        Raises:
            AbortedError: Where the partitions were given to others meanwhile.
            FailedPreconditionError: Without a group.
        """
        membership, chosen = self._membership(), self._core.to_commit(offsets)
        if chosen:
            self._store(membership, chosen, metadata, CALL_TIMEOUT_S)

    def _store(self, membership: Membership, offsets: Mapping[TopicPartition, int], metadata: str, timeout_s: float) -> None:
        generation = membership.generation
        try:
            self._store_once(membership, offsets, metadata, timeout_s)
        except AbortedError as error:
            if not membership.is_behind(error):
                raise
            with self._changed:
                self._changed.wait_for(lambda: membership.generation != generation, BEAT_AGAIN_S)
            self._store_once(membership, offsets, metadata, timeout_s)

    def _store_once(
        self, membership: Membership, offsets: Mapping[TopicPartition, int], metadata: str, timeout_s: float
    ) -> None:
        with self._changed:
            call = membership.commit(offsets, metadata)
        answer = self._connection.call_until(call, time.monotonic() + timeout_s)
        with self._changed:
            self._core.committed(offsets, answer)

    def committed(self, *partitions: tuple[str, int]) -> dict[TopicPartition, int]:
        """The next offsets that the group has committed; where it has none there is no entry. Without any: of all."""
        places = [TopicPartition(*place) for place in partitions]
        return self._connection.call(self._membership().committed(places))

    def close(self, *, commit: bool = True) -> None:
        """Ends reading. A member commits as it does by itself, and leaves its group at once."""
        if self._core.closed:
            return
        membership = self._core.membership
        if commit and self._core.commits():
            self._commit_quietly(self._core.to_commit(), CLOSE_TIMEOUT_S)
        with self._changed:
            self._core.closed = True
            self._reopen()
        for thread in self._threads:
            thread.join()
        if membership is not None:
            self._leave(membership.leave(), membership)
        self._connection.close()

    def __enter__(self) -> Consumer:
        try:
            self._open()
        except BaseException:
            self.close(commit=False)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(commit=error is None)

    def _advance(self, timeout: float | None) -> bool:
        """Brings records to the head; False where none come within the timeout, or where reading has ended."""
        self._open()
        with self._core.waiting():
            return self._wait(None if timeout is None else time.monotonic() + timeout)

    def _wait(self, deadline: float | None) -> bool:
        core, reading = self._core, self._core.reading
        while True:
            if core.interrupted or core.is_commit_due():
                self._between()
            with self._changed:
                core.check()
                try:
                    found = reading.has_records()
                except BadAnswerError:
                    self._reopen()
                    raise
                # Credits may be due.
                self._changed.notify_all()
                if found or reading.is_finished():
                    return found
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)

    def _open(self) -> None:
        """Finds out where to begin, and starts to read; once."""
        if self._threads or self._core.closed:
            return
        core = self._core
        tasks = [self._run]
        if core.membership is not None:
            tasks.append(self._beat)
        else:
            places = [place for topic in core.topics for place in self._connection.call(core.partitions_call(topic))]
            core.begin(self._found(dict.fromkeys((*places, *core.partitions), core.settings.start)))
        self._threads = [threading.Thread(target=task, name="millstream-consumer", daemon=True) for task in tasks]
        for thread in self._threads:
            thread.start()

    def _found(self, starts: Mapping[TopicPartition, Start]) -> dict[TopicPartition, tuple[int, int]]:
        deadline = time.monotonic() + CALL_TIMEOUT_S
        calls = {place: self._core.offsets_call(place, start) for place, start in starts.items()}
        return {place: self._connection.call_until(call, deadline) for place, call in calls.items()}

    def _membership(self) -> Membership:
        if self._core.membership is None:
            raise FailedPreconditionError("the consumer is in no group", reason="NO_GROUP")
        return self._core.membership

    def _assigned(self, topic: str, partition: int) -> TopicPartition:
        self._open()
        return self._core.assigned(TopicPartition(topic, partition))

    def _reopen(self) -> None:
        """The stream is left, where it does not read what it should."""
        if self._call is not None:
            self._call.cancel()
        self._changed.notify_all()

    def _between(self) -> None:
        """What is done between two records: partitions that come and go, and commits."""
        core, membership = self._core, self._core.membership
        core.interrupted = False
        if membership is not None and membership.changes():
            self._give_up(membership)
            self._take_up(membership)
        if core.is_commit_due():
            core.committing()
            self._commit_quietly(core.to_commit())

    def _give_up(self, membership: Membership) -> None:
        core = self._core
        with self._changed:
            lost, membership.lost = membership.lost, False
            places = list(core.reading.positions) if lost else membership.revoked()
        if not places:
            return
        is_over = lost
        try:
            if self._listeners[1] is not None:
                with suppressed_if(lost):
                    self._listeners[1](places)
            if core.commits() and not lost:
                self._commit_quietly({place: at for place, at in core.to_commit().items() if place in places})
            is_over = True
        finally:
            # Whatever the listener raises: what is lost is others'.
            if is_over:
                with self._changed:
                    core.forget(places)
                    membership.owned.difference_update(places)
                    self._reopen()

    def _take_up(self, membership: Membership) -> None:
        core = self._core
        with self._changed:
            places = membership.gained()
        if not places:
            return
        committed = self._connection.call_until(membership.committed(places), time.monotonic() + CALL_TIMEOUT_S)
        found = self._found({place: core.start_of(place, committed) for place in places})
        with self._changed:
            if membership.lost:
                return
            core.taken_up(committed)
            core.begin(found)
            membership.owned.update(places)
            self._reopen()
        if self._listeners[0] is not None:
            self._listeners[0](places)

    def _commit_quietly(self, offsets: Mapping[TopicPartition, int], timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Who comes next reads again what could not be committed."""
        try:
            if offsets:
                self._store(self._membership(), offsets, "", timeout_s)
        except MillstreamError as error:
            _log.warning("committing failed, and is tried again later: %s", error)

    # What follows runs on threads of the consumer's own.

    def _run(self) -> None:
        while self._stream():
            pass

    def _stream(self) -> bool:
        """Reads one stream until it is over; False where there is nothing more to do."""
        core = self._core
        with self._changed:
            self._changed.wait_for(lambda: core.closed or core.fatal or core.wants_stream())
            if core.closed or core.fatal:
                return False
            stream = _Stream(core.reading.revision)
            requests = self._requests(stream, core.reading.start())
            call = consumer_pb2_grpc.ConsumerServiceStub(self._connection.channel).Subscribe(requests)
            self._call = call
        error = self._read(call, stream)
        call.cancel()
        with self._changed:
            stream.over, self._call = True, None
            self._changed.notify_all()
            if not core.closed and self._is_current(stream):
                pause_s = core.broke(error)
                self._changed.wait_for(lambda: core.closed or not self._is_current(stream), pause_s)
        return True

    def _read(self, call: Iterator[consumer_pb2.SubscribeResponse], stream: _Stream) -> MillstreamError | None:
        try:
            for answer in call:
                with self._changed:
                    if not self._is_current(stream):
                        break
                    self._core.works()
                    self._core.reading.accept(answer)
                    self._changed.notify_all()
        except grpc.RpcError as failure:
            return errors.from_call(failure, self._connection.server)
        return None

    def _requests(self, stream: _Stream, first: consumer_pb2.SubscribeRequest) -> Iterator[consumer_pb2.SubscribeRequest]:
        yield first
        while True:
            with self._changed:
                credit = 0
                while not stream.over and self._is_current(stream) and credit == 0:
                    credit = self._core.reading.take_credit()
                    if credit == 0:
                        self._changed.wait()
            if credit == 0:
                return
            yield consumer_pb2.SubscribeRequest(credit_bytes=credit)

    def _is_current(self, stream: _Stream) -> bool:
        return stream.revision == self._core.reading.revision

    def _beat(self) -> None:
        while not self._core.closed and self._core.fatal is None:
            self._beat_once(self._membership())

    def _beat_once(self, membership: Membership) -> None:
        """One heartbeat, and the wait until the next."""
        core = self._core
        if core.hangs():
            self._leave_for_others(membership)
            return
        with self._changed:
            reported = set(membership.owned)
            call = membership.heartbeat()
        wait_s = membership.heartbeat_interval_s
        try:
            answer = self._connection.call(call, wait_s)
        except MillstreamError as error:
            with self._changed:
                wait_s = core.heartbeat_failed(membership, error)
        else:
            with self._changed:
                membership.told(answer)
            wait_s = membership.heartbeat_interval_s
        with self._changed:
            core.interrupted = membership.changes()
            self._changed.notify_all()
            left_s = max(core.hangs_in(), 0.0)
            self._changed.wait_for(lambda: core.closed or membership.owned != reported, min(wait_s, left_s))

    def _leave_for_others(self, membership: Membership) -> None:
        """Leaves a group that waits for this member, until records are asked for again."""
        core = self._core
        with self._changed:
            leave = membership.leave()
            membership.lose()
            core.interrupted = True
        _log.warning("leaving group %r: nothing was asked for in %s s", membership.group, core.settings.max_poll_interval_s)
        self._leave(leave, membership)
        with self._changed:
            self._changed.wait_for(lambda: core.closed or not core.hangs())

    def _leave(self, leave: Call[group_pb2.LeaveGroupResponse, None] | None, membership: Membership) -> None:
        if leave is None:
            return
        try:
            self._connection.call(leave, CLOSE_TIMEOUT_S)
        except MillstreamError as error:
            _log.warning("leaving group %r failed: %s", membership.group, error)
