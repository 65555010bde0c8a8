"""The producer for threads. It may be shared by several; one thread of its own sends, another one reads answers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

import grpc

from millstream import errors
from millstream._connection import Connection
from millstream._producer.accumulator import record_size
from millstream._producer.core import Core, header_pairs
from millstream._producer.pending import PendingBatch
from millstream._producer.session import Settled
from millstream._producer.settings import ProducerSettings
from millstream.errors import BufferFullError, ClosedError, MillstreamError
from millstream.records import Delivery, Headers, TopicPartition
from millstream.v1 import producer_pb2, producer_pb2_grpc

_log = logging.getLogger(__name__)


class DeliveryFuture:
    """What becomes of a record that was sent. The methods are those of `concurrent.futures.Future`."""

    __slots__ = ("_batch", "_index")

    def __init__(self, batch: PendingBatch, index: int) -> None:
        self._batch = batch
        self._index = index

    def done(self) -> bool:
        """Whether it is known."""
        return self._batch.settled.is_set()

    def result(self, timeout: float | None = None) -> Delivery:
        """What became of it, once that is known.

        Raises:
            MillstreamError: Where it was not delivered.
            TimeoutError: Where it is not known within the timeout, in seconds.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        delivery = self._batch.outcome(self._index)
        assert isinstance(delivery, Delivery), "what is no error is a delivery"
        return delivery

    def exception(self, timeout: float | None = None) -> MillstreamError | None:
        """Why it was not delivered; None where it was."""
        if not self._batch.settled.wait(timeout):
            raise TimeoutError("it is not known yet whether the record was delivered")
        outcome = self._batch.outcome(self._index)
        return outcome if isinstance(outcome, MillstreamError) else None

    def add_done_callback(self, callback: Callable[[DeliveryFuture], object]) -> None:
        """Calls back once it is known, on the producer's thread: a callback should be short, and never wait."""

        def call() -> None:
            try:
                callback(self)
            except Exception:
                _log.exception("a delivery callback failed")

        self._batch.when_settled(call)


class _Stream:
    """One call of ProduceStream; the producer's lock guards its fields."""

    def __init__(self) -> None:
        self.over = False
        self.error: MillstreamError | None = None


class Producer:
    """Sends records, in order within each partition, each exactly once.

        with Producer("http://127.0.0.1:7070") as producer:
            producer.send("orders", b"hello", key=b"k")

    The end of the block waits until everything is acknowledged, and raises the first failure that nobody was told.
    """

    def __init__(self, server: str | None = None, settings: ProducerSettings | None = None) -> None:
        self._core = Core(settings or ProducerSettings())
        self._connection = Connection(server)
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="millstream-producer", daemon=True)
        self._thread.start()

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> DeliveryFuture:
        """Takes a record; waits while the buffer is full.

        Without a partition the key chooses, as with Kafka; records without a key stay together until their batch is full.

        Raises:
            NotFoundError: For a topic that does not exist.
            BufferFullError: Where there is no room within the delivery timeout.
            ClosedError: After `close`.
            ProducerFencedError: Where another producer took this one's name.
        """
        pairs = header_pairs(headers)
        size = record_size(key, value, pairs)
        partitions = self._partitions(topic) if partition is None else 0
        core = self._core
        with self._changed:
            self._wait_for_room(size)
            if partition is None:
                partition = core.accumulator.partition(topic, key, size, partitions)
            ready = len(core.accumulator.ready)
            batch, index = core.append(TopicPartition(topic, partition), key, value, pairs, timestamp_ms)
            if index == 0 or len(core.accumulator.ready) > ready:
                self._changed.notify_all()
        return DeliveryFuture(batch, index)

    def flush(self, timeout: float | None = None) -> None:
        """Sends what waits, and returns once everything sent so far is acknowledged.

        Raises:
            MillstreamError: The first failure that nobody was told.
            TimeoutError: Where it takes longer than the timeout, in seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            self._core.accumulator.seal_all()
            self._changed.notify_all()
            held = list(self._core.accumulator.held)
        for batch in held:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            if not batch.settled.wait(left):
                raise TimeoutError(f"not everything is acknowledged after {timeout} s")
        with self._changed:
            failure = self._core.take_failure()
        if failure is not None:
            raise failure

    def close(self, timeout: float | None = None) -> None:
        """Flushes, then ends. What a timeout leaves is given up.

        Raises:
            MillstreamError: As `flush` does.
            TimeoutError: As `flush` does; the producer is closed all the same.
        """
        if self._closed:
            return
        try:
            self.flush(timeout)
        finally:
            self._stop()

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.close()
        except MillstreamError:
            if error is None:
                raise

    def _partitions(self, topic: str) -> int:
        known = self._core.partitions(topic)
        if known is not None:
            return known
        deadline = time.monotonic() + self._core.settings.delivery_timeout_s
        partitions = self._connection.call_until(self._core.partitions_call(topic), deadline)
        with self._changed:
            return self._core.learn(topic, partitions)

    def _wait_for_room(self, size: int) -> None:
        core, timeout_s = self._core, self._core.settings.delivery_timeout_s

        def ready() -> bool:
            return core.closing or core.session.fatal is not None or core.accumulator.fits(size)

        if not ready():
            # What fills the buffer must not wait for its linger.
            core.accumulator.seal_all()
            self._changed.notify_all()
            if not self._changed.wait_for(ready, timeout_s):
                message = f"the buffer of {core.settings.buffer_bytes_max} bytes stayed full for {timeout_s} s"
                raise BufferFullError(message, reason="BUFFER_FULL")
        if core.session.fatal is not None:
            raise core.session.fatal
        if core.closing:
            raise ClosedError("the producer is closed", reason="CLOSED")

    def _stop(self) -> None:
        with self._changed:
            self._closed = self._core.closing = True
            closed = ClosedError("the producer was closed before the record was acknowledged", reason="CLOSED")
            settled = self._core.session.fail(closed)
            self._changed.notify_all()
        self._settle(settled)
        self._connection.close()
        self._thread.join()

    # What follows runs on threads of the producer's own.

    def _run(self) -> None:
        while self._wait_for_work():
            error = self._begin_epoch() or self._stream()
            with self._changed:
                settled, pause_s = self._core.left(error)
            self._settle(settled)
            with self._changed:
                self._changed.wait_for(lambda: self._core.closing, pause_s)

    def _wait_for_work(self) -> bool:
        core = self._core
        with self._changed:
            while not core.closing:
                now = time.monotonic()
                due = core.accumulator.seal_due(now)
                if core.session.has_work():
                    return True
                self._changed.wait(None if due is None else due - now)
        return False

    def _begin_epoch(self) -> MillstreamError | None:
        session = self._core.session
        if session.wants_epoch:
            try:
                identity = self._connection.call(session.init_call())
            except MillstreamError as error:
                return error
            with self._changed:
                session.begin_epoch(identity)
        return None

    def _stream(self) -> MillstreamError | None:
        """Sends over one stream until it is over; the error that it ended with."""
        stream, core = _Stream(), self._core
        call = producer_pb2_grpc.ProducerServiceStub(self._connection.channel).ProduceStream(self._requests(stream))
        reader = threading.Thread(target=self._read, args=(call, stream), name="millstream-answers", daemon=True)
        reader.start()
        with self._changed:
            while not stream.over:
                now, due = time.monotonic(), core.session.next_expiry()
                if core.closing or core.session.expire(now):
                    call.cancel()
                    due = None
                self._changed.wait(None if due is None else due - now)
        reader.join()
        return stream.error

    def _requests(self, stream: _Stream) -> Iterator[producer_pb2.ProduceStreamRequest]:
        core = self._core
        while True:
            with self._changed:
                while True:
                    if stream.over or core.closing or core.session.broken or core.session.wants_epoch:
                        return
                    now = time.monotonic()
                    due = core.accumulator.seal_due(now)
                    batch = core.session.take()
                    if batch is not None:
                        break
                    self._changed.wait(None if due is None else due - now)
            yield core.session.request(batch)

    def _read(self, call: Iterator[producer_pb2.ProduceStreamResponse], stream: _Stream) -> None:
        error: MillstreamError | None = None
        try:
            for answer in call:
                with self._changed:
                    settled = self._core.session.answered(answer)
                self._settle(settled)
        except grpc.RpcError as failure:
            error = errors.from_call(failure, self._connection.server)
        with self._changed:
            stream.over, stream.error = True, error
            self._changed.notify_all()

    def _settle(self, settled: list[Settled]) -> None:
        with self._changed:
            self._core.note_failures(settled)
        for batch, outcome in settled:
            batch.settle(outcome)
        with self._changed:
            for batch, _ in settled:
                self._core.accumulator.release(batch)
            self._changed.notify_all()
