"""The producer for asyncio. It belongs to the event loop in which it is entered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING

import grpc

from millstream import errors
from millstream._connection import AsyncConnection
from millstream._producer.accumulator import record_size
from millstream._producer.core import Core, header_pairs
from millstream._producer.pending import PendingBatch
from millstream._producer.session import Settled
from millstream._producer.settings import ProducerSettings
from millstream._signal import Signal
from millstream.errors import BufferFullError, ClosedError, MillstreamError
from millstream.records import Delivery, Headers, TopicPartition
from millstream.v1 import producer_pb2, producer_pb2_grpc

if TYPE_CHECKING:
    _Call = grpc.aio.StreamStreamCall[producer_pb2.ProduceStreamRequest, producer_pb2.ProduceStreamResponse]


class AsyncDelivery:
    """What becomes of a record that was sent: awaiting it gives its `Delivery`, or raises why there is none."""

    __slots__ = ("_batch", "_index")

    def __init__(self, batch: PendingBatch, index: int) -> None:
        self._batch = batch
        self._index = index

    def done(self) -> bool:
        """Whether it is known."""
        return self._batch.settled.is_set()

    def __await__(self) -> Generator[object, None, Delivery]:
        yield from settled(self._batch).__await__()
        outcome = self._batch.outcome(self._index)
        if isinstance(outcome, MillstreamError):
            raise outcome
        return outcome


async def settled(batch: PendingBatch) -> None:
    """Waits until a batch is settled."""
    if not batch.settled.is_set():
        signal = asyncio.Event()
        batch.when_settled(signal.set)
        await signal.wait()


class AsyncProducer:
    """Sends records, in order within each partition, each exactly once.

        async with AsyncProducer("http://127.0.0.1:7070") as producer:
            delivery = await producer.send("orders", b"hello", key=b"k")   # taken into the buffer
            print((await delivery).offset)                                 # acknowledged

    The end of the block waits until everything is acknowledged, and raises the first failure that nobody was told.
    """

    def __init__(self, server: str | None = None, settings: ProducerSettings | None = None) -> None:
        self._server = server
        self._core = Core(settings or ProducerSettings())
        self._changed = Signal()
        self._connection: AsyncConnection | None = None
        self._task: asyncio.Task[None] | None = None

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> AsyncDelivery:
        """Takes a record; waits while the buffer is full. What it does and raises is as with `Producer.send`."""
        self._open()
        core, pairs = self._core, header_pairs(headers)
        size = record_size(key, value, pairs)
        partitions = await self._partitions(topic) if partition is None else 0
        await self._wait_for_room(size)
        if partition is None:
            partition = core.accumulator.partition(topic, key, size, partitions)
        ready = len(core.accumulator.ready)
        batch, index = core.append(TopicPartition(topic, partition), key, value, pairs, timestamp_ms)
        if index == 0 or len(core.accumulator.ready) > ready:
            self._changed.give()
            # Who only sends would never let the batch go.
            await asyncio.sleep(0)
        return AsyncDelivery(batch, index)

    async def flush(self) -> None:
        """Sends what waits, and returns once everything sent so far is acknowledged.

        Raises:
            MillstreamError: The first failure that nobody was told.
        """
        self._core.accumulator.seal_all()
        self._changed.give()
        for batch in list(self._core.accumulator.held):
            await settled(batch)
        failure = self._core.take_failure()
        if failure is not None:
            raise failure

    async def close(self) -> None:
        """Flushes, then ends; cancelled, it gives up what is left. Raises as `flush` does."""
        try:
            if not self._core.closing:
                await self.flush()
        finally:
            await self._stop()

    async def __aenter__(self) -> AsyncProducer:
        self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except MillstreamError:
            if error is None:
                raise

    def _open(self) -> AsyncConnection:
        if self._core.closing:
            raise ClosedError("the producer is closed", reason="CLOSED")
        if self._connection is None:
            self._connection = AsyncConnection(self._server)
            self._task = asyncio.create_task(self._run(self._connection), name="millstream-producer")
        return self._connection

    async def _partitions(self, topic: str) -> int:
        known = self._core.partitions(topic)
        if known is not None:
            return known
        deadline = time.monotonic() + self._core.settings.delivery_timeout_s
        partitions = await self._open().call_until(self._core.partitions_call(topic), deadline)
        return self._core.learn(topic, partitions)

    async def _wait_for_room(self, size: int) -> None:
        core, timeout_s = self._core, self._core.settings.delivery_timeout_s

        def ready() -> bool:
            return core.closing or core.session.fatal is not None or core.accumulator.fits(size)

        if not ready():
            # What fills the buffer must not wait for its linger.
            core.accumulator.seal_all()
            self._changed.give()
            if not await self._changed.wait_for(ready, timeout_s):
                message = f"the buffer of {core.settings.buffer_bytes_max} bytes stayed full for {timeout_s} s"
                raise BufferFullError(message, reason="BUFFER_FULL")
        if core.session.fatal is not None:
            raise core.session.fatal
        if core.closing:
            raise ClosedError("the producer is closed", reason="CLOSED")

    async def _stop(self) -> None:
        self._core.closing = True
        closed = ClosedError("the producer was closed before the record was acknowledged", reason="CLOSED")
        self._settle(self._core.session.fail(closed))
        connection, self._connection = self._connection, None
        if self._task is not None and connection is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await connection.close()

    async def _run(self, connection: AsyncConnection) -> None:
        while True:
            await self._work()
            error = await self._begin_epoch(connection) or await self._stream(connection)
            settled, pause_s = self._core.left(error)
            self._settle(settled)
            await asyncio.sleep(pause_s)

    async def _work(self) -> None:
        """Waits until there is something to send."""
        core = self._core
        while True:
            now = time.monotonic()
            due = core.accumulator.seal_due(now)
            if core.session.has_work():
                return
            await self._changed.wait(None if due is None else due - now)

    async def _begin_epoch(self, connection: AsyncConnection) -> MillstreamError | None:
        session = self._core.session
        if session.wants_epoch:
            try:
                session.begin_epoch(await connection.call(session.init_call()))
            except MillstreamError as error:
                return error
        return None

    async def _stream(self, connection: AsyncConnection) -> MillstreamError | None:
        """Sends over one stream until it is over; the error that it ended with."""
        core = self._core
        call = producer_pb2_grpc.ProducerServiceStub(connection.channel).ProduceStream()
        writer = asyncio.create_task(self._write(call))
        reader = asyncio.create_task(self._read(call))
        reader.add_done_callback(lambda _: self._changed.give())
        # A writer that fails leaves nothing to read.
        writer.add_done_callback(lambda task: task.cancelled() or task.exception() is None or call.cancel())
        try:
            while not reader.done():
                now, due = time.monotonic(), core.session.next_expiry()
                if core.session.expire(now):
                    call.cancel()
                    due = None
                await self._changed.wait(None if due is None else due - now)
        finally:
            call.cancel()
            writer.cancel()
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
        core = self._core
        while not (core.session.broken or core.session.wants_epoch):
            now = time.monotonic()
            due = core.accumulator.seal_due(now)
            batch = core.session.take()
            if batch is not None:
                await call.write(core.session.request(batch))
            else:
                await self._changed.wait(None if due is None else due - now)
        await call.done_writing()

    async def _read(self, call: _Call) -> None:
        async for answer in call:
            self._settle(self._core.session.answered(answer))

    def _settle(self, settled: list[Settled]) -> None:
        self._core.note_failures(settled)
        for batch, outcome in settled:
            batch.settle(outcome)
            self._core.accumulator.release(batch)
        self._changed.give()
