"""The consumer for asyncio. It belongs to the event loop in which it is entered."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import grpc

from millstream import errors
from millstream._connection import CALL_TIMEOUT_S, AsyncConnection, Call
from millstream._consumer.core import BEAT_AGAIN_S, CLOSE_TIMEOUT_S, Core, suppressed_if
from millstream._consumer.membership import Membership
from millstream._consumer.settings import ConsumerSettings
from millstream._signal import Signal
from millstream.errors import AbortedError, BadAnswerError, FailedPreconditionError, MillstreamError
from millstream.records import Record, Start, TopicPartition
from millstream.v1 import consumer_pb2, consumer_pb2_grpc, group_pb2

if TYPE_CHECKING:
    _Call = grpc.aio.StreamStreamCall[consumer_pb2.SubscribeRequest, consumer_pb2.SubscribeResponse]

_log = logging.getLogger(__name__)

AsyncListener = Callable[[list[TopicPartition]], Awaitable[object]]


class AsyncConsumer:
    """Reads records, in order within each partition, through a stream that reads ahead.

        async with AsyncConsumer("http://127.0.0.1:7070", topics=["orders"], group="billing") as consumer:
            async for record in consumer:
                print(record.offset, record.value)

    What it reads, when it ends and when it commits is as with `Consumer`.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        topics: Sequence[str] = (),
        partitions: Sequence[tuple[str, int]] = (),
        group: str | None = None,
        settings: ConsumerSettings | None = None,
        on_assigned: AsyncListener | None = None,
        on_revoked: AsyncListener | None = None,
    ) -> None:
        self._server = server
        self._core = Core(topics, partitions, group, settings or ConsumerSettings())
        self._changed = Signal()
        self._listeners = (on_assigned, on_revoked)
        self._connection: AsyncConnection | None = None
        self._call: _Call | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving: asyncio.Task[None] | None = None

    def __aiter__(self) -> AsyncConsumer:
        return self

    async def __anext__(self) -> Record:
        core = self._core
        core.asks()
        if not core.is_ready():
            try:
                more = await self._advance(None)
            except errors.ClosedError:
                more = False
            if not more:
                raise StopAsyncIteration
        return core.take(1)[0]

    async def poll(self, timeout: float | None = None, max_records: int = 500) -> list[Record]:
        """The next records, of one partition; none where nothing comes within the timeout, or where reading has ended.

        Raises:
            OutOfRangeError: Where a partition cannot be read at the position; `seek` says where to go on.
            MillstreamError: What else stands in the way.
        """
        self._core.asks()
        if not self._core.is_ready() and not await self._advance(timeout):
            return []
        return self._core.take(max_records)

    async def seek(self, topic: str, partition: int, start: Start) -> None:
        """Goes on reading a partition from another position."""
        connection = await self._open()
        place = self._core.assigned(TopicPartition(topic, partition))
        offset, _ = await connection.call(self._core.offsets_call(place, start))
        self._core.reading.assign({place: offset})
        self._reopen()

    async def pause(self, *partitions: tuple[str, int]) -> None:
        """Hands out no records of these partitions until they are resumed."""
        await self._open()
        self._core.reading.pause([self._core.assigned(TopicPartition(*place)) for place in partitions])
        self._reopen()

    async def resume(self, *partitions: tuple[str, int]) -> None:
        """Goes on with partitions that were paused."""
        await self._open()
        self._core.reading.resume([self._core.assigned(TopicPartition(*place)) for place in partitions])
        self._reopen()

    async def positions(self) -> dict[TopicPartition, int]:
        """The partitions that are read, and the next offset of each to be handed out."""
        await self._open()
        return dict(self._core.reading.positions)

    def lag(self) -> dict[TopicPartition, int]:
        """How many offsets lie between the position and the high watermark, where an answer has told that already."""
        return self._core.lag()

    async def commit(self, offsets: Mapping[TopicPartition, int] | None = None, metadata: str = "") -> None:
        """Stores how far the group has read: everything handed out so far, or these next offsets.

        Raises:
            AbortedError: Where the partitions were given to others meanwhile.
            FailedPreconditionError: Without a group.
        """
        membership, chosen = self._membership(), self._core.to_commit(offsets)
        if chosen:
            await self._store(membership, chosen, metadata, CALL_TIMEOUT_S)

    async def _store(
        self, membership: Membership, offsets: Mapping[TopicPartition, int], metadata: str, timeout_s: float
    ) -> None:
        generation = membership.generation
        try:
            await self._store_once(membership, offsets, metadata, timeout_s)
        except AbortedError as error:
            if not membership.is_behind(error):
                raise
            await self._changed.wait_for(lambda: membership.generation != generation, BEAT_AGAIN_S)
            await self._store_once(membership, offsets, metadata, timeout_s)

    async def _store_once(
        self, membership: Membership, offsets: Mapping[TopicPartition, int], metadata: str, timeout_s: float
    ) -> None:
        connection, call = await self._open(), membership.commit(offsets, metadata)
        answer = await connection.call_until(call, time.monotonic() + timeout_s)
        self._core.committed(offsets, answer)

    async def committed(self, *partitions: tuple[str, int]) -> dict[TopicPartition, int]:
        """The next offsets that the group has committed; where it has none there is no entry. Without any: of all."""
        places = [TopicPartition(*place) for place in partitions]
        connection = await self._open()
        return await connection.call(self._membership().committed(places))

    async def close(self, *, commit: bool = True) -> None:
        """Ends reading. A member commits as it does by itself, and leaves its group at once."""
        core, connection = self._core, self._connection
        if core.closed or connection is None:
            core.closed = True
            return
        try:
            if commit and core.commits():
                await self._commit_quietly(core.to_commit(), CLOSE_TIMEOUT_S)
        finally:
            core.closed = True
            self._reopen()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._leaving is not None:
                await self._leaving
            await self._leave(connection, core.membership.leave() if core.membership is not None else None)
            await connection.close()

    async def __aenter__(self) -> AsyncConsumer:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(commit=error is None)

    async def _advance(self, timeout: float | None) -> bool:
        """Brings records to the head; False where none come within the timeout, or where reading has ended."""
        await self._open()
        with self._core.waiting():
            return await self._wait(None if timeout is None else time.monotonic() + timeout)

    async def _wait(self, deadline: float | None) -> bool:
        core, reading = self._core, self._core.reading
        while True:
            if core.interrupted or core.is_commit_due():
                await self._between()
            core.check()
            try:
                found = reading.has_records()
            except BadAnswerError:
                self._reopen()
                raise
            # Credits may be due.
            self._changed.give()
            if found or reading.is_finished():
                return found
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            await self._changed.wait(left)

    async def _open(self) -> AsyncConnection:
        """Finds out where to begin, and starts to read; once."""
        core = self._core
        core.check_open()
        if self._connection is not None:
            return self._connection
        connection = AsyncConnection(self._server)
        try:
            if core.membership is None:
                places = [place for topic in core.topics for place in await connection.call(core.partitions_call(topic))]
                starts = dict.fromkeys((*places, *core.partitions), core.settings.start)
                core.begin(await self._found(connection, starts))
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        self._tasks = [asyncio.create_task(self._run(connection), name="millstream-consumer")]
        if core.membership is not None:
            self._tasks.append(asyncio.create_task(self._beat(connection, core.membership), name="millstream-heartbeat"))
        return connection

    async def _found(
        self, connection: AsyncConnection, starts: Mapping[TopicPartition, Start]
    ) -> dict[TopicPartition, tuple[int, int]]:
        deadline = time.monotonic() + CALL_TIMEOUT_S
        calls = {place: self._core.offsets_call(place, start) for place, start in starts.items()}
        return {place: await connection.call_until(call, deadline) for place, call in calls.items()}

    async def _leave(self, connection: AsyncConnection, leave: Call[group_pb2.LeaveGroupResponse, None] | None) -> None:
        if leave is not None:
            try:
                await connection.call(leave, CLOSE_TIMEOUT_S)
            except MillstreamError as error:
                _log.warning("leaving the group failed: %s", error)

    def _membership(self) -> Membership:
        if self._core.membership is None:
            raise FailedPreconditionError("the consumer is in no group", reason="NO_GROUP")
        return self._core.membership

    def _reopen(self) -> None:
        """The stream is left, where it does not read what it should."""
        if self._call is not None:
            self._call.cancel()
        self._changed.give()

    async def _between(self) -> None:
        """What is done between two records: partitions that come and go, and commits."""
        core, membership = self._core, self._core.membership
        core.interrupted = False
        if membership is not None and membership.changes():
            await self._give_up(membership)
            await self._take_up(membership)
        if core.is_commit_due():
            core.committing()
            await self._commit_quietly(core.to_commit())

    async def _give_up(self, membership: Membership) -> None:
        core = self._core
        lost, membership.lost = membership.lost, False
        places = list(core.reading.positions) if lost else membership.revoked()
        if not places:
            return
        is_over = lost
        try:
            if self._listeners[1] is not None:
                with suppressed_if(lost):
                    await self._listeners[1](places)
            if core.commits() and not lost:
                await self._commit_quietly({place: at for place, at in core.to_commit().items() if place in places})
            is_over = True
        finally:
            # Whatever the listener raises: what is lost is others'.
            if is_over:
                core.forget(places)
                membership.owned.difference_update(places)
                self._reopen()

    async def _take_up(self, membership: Membership) -> None:
        core, places = self._core, membership.gained()
        if not places:
            return
        connection = await self._open()
        committed = await connection.call_until(membership.committed(places), time.monotonic() + CALL_TIMEOUT_S)
        found = await self._found(connection, {place: core.start_of(place, committed) for place in places})
        if membership.lost:
            return
        core.taken_up(committed)
        core.begin(found)
        membership.owned.update(places)
        self._reopen()
        if self._listeners[0] is not None:
            await self._listeners[0](places)

    async def _commit_quietly(self, offsets: Mapping[TopicPartition, int], timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Who comes next reads again what could not be committed."""
        try:
            if offsets:
                await self._store(self._membership(), offsets, "", timeout_s)
        except MillstreamError as error:
            _log.warning("committing failed, and is tried again later: %s", error)

    async def _run(self, connection: AsyncConnection) -> None:
        while self._core.fatal is None:
            await self._changed.wait_for(self._core.wants_stream)
            await self._read_on(connection, self._core.reading.revision)

    async def _read_on(self, connection: AsyncConnection, revision: int) -> None:
        """One stream, and where it was not left on purpose a wait before the next."""
        core, error = self._core, await self._stream(connection, revision)
        if core.reading.revision == revision:
            pause_s = core.broke(error)
            self._changed.give()
            await self._changed.wait_for(lambda: core.reading.revision != revision, pause_s)

    async def _stream(self, connection: AsyncConnection, revision: int) -> MillstreamError | None:
        """Reads one stream until it is over; the error that it ended with."""
        call = consumer_pb2_grpc.ConsumerServiceStub(connection.channel).Subscribe()
        self._call = call
        writer = asyncio.create_task(self._write(call))
        reader = asyncio.create_task(self._read(call, revision))
        # A writer that fails leaves nothing to read.
        writer.add_done_callback(lambda task: task.cancelled() or task.exception() is None or call.cancel())
        try:
            await asyncio.wait([reader])
        finally:
            self._call = None
            call.cancel()
            writer.cancel()
            reader.cancel()
            await asyncio.gather(writer, reader, return_exceptions=True)
        try:
            reader.result()
        except grpc.RpcError as failure:
            return errors.from_call(failure, connection.server)
        except asyncio.CancelledError:
            # The call was, not this task.
            return errors.UnavailableError("the stream was left", retry_after_s=0.0)
        return None

    async def _write(self, call: _Call) -> None:
        await call.write(self._core.reading.start())
        while True:
            credit = self._core.reading.take_credit()
            if credit:
                await call.write(consumer_pb2.SubscribeRequest(credit_bytes=credit))
            else:
                await self._changed.wait()

    async def _read(self, call: _Call, revision: int) -> None:
        async for answer in call:
            if self._core.reading.revision != revision:
                return
            self._core.works()
            self._core.reading.accept(answer)
            self._changed.give()

    async def _beat(self, connection: AsyncConnection, membership: Membership) -> None:
        while self._core.fatal is None:
            await self._beat_once(connection, membership)

    async def _beat_once(self, connection: AsyncConnection, membership: Membership) -> None:
        """One heartbeat, and the wait until the next."""
        core, reported = self._core, set(membership.owned)
        if core.hangs():
            await self._leave_for_others(connection, membership)
            return
        wait_s = membership.heartbeat_interval_s
        try:
            membership.told(await connection.call(membership.heartbeat(), wait_s))
            wait_s = membership.heartbeat_interval_s
        except MillstreamError as error:
            wait_s = core.heartbeat_failed(membership, error)
        core.interrupted = membership.changes()
        self._changed.give()
        left_s = max(core.hangs_in(), 0.0)
        await self._changed.wait_for(lambda: membership.owned != reported, min(wait_s, left_s))

    async def _leave_for_others(self, connection: AsyncConnection, membership: Membership) -> None:
        """Leaves a group that waits for this member, until records are asked for again."""
        core, leave = self._core, membership.leave()
        membership.lose()
        core.interrupted = True
        _log.warning("leaving group %r: nothing was asked for in %s s", membership.group, core.settings.max_poll_interval_s)
        # The group is told even where the consumer is closed meanwhile.
        self._leaving = asyncio.create_task(self._leave(connection, leave), name="millstream-leave")
        await asyncio.shield(self._leaving)
        await self._changed.wait_for(lambda: not core.hangs())
