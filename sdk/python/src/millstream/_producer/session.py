"""What goes over the streams of one producer: the order of batches, their sequences, and what each answer means.

Within a partition batches are stored in the order of `send`, each once. Every batch is sent under a stamp: producer id,
epoch and sequence. The agent knows one that it has stored, and answers as it did then. A stream that breaks, or on which
something is refused that may be tried again, is left; what is not answered goes over the next one, in the old order.

A batch that is refused for good takes no sequence, so the ones behind it cannot be stored under theirs: they are sent again
under the sequences that follow. Where the agent has lost the numbers of this producer, or where a batch is given up whose
outcome is not known, a new epoch begins; what is in doubt then is never sent again.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import grpc

from millstream import errors
from millstream._connection import Call, Pauses
from millstream._producer.accumulator import Accumulator
from millstream._producer.pending import PendingBatch
from millstream._producer.settings import ProducerSettings
from millstream.batch import ProducerStamp
from millstream.errors import DeliveryTimeoutError, ExhaustedError, MillstreamError, ProducerFencedError
from millstream.records import Acks, TopicPartition
from millstream.v1 import producer_pb2

#: The agent did not look at the batch: because of one before it, or of the many partitions that the stream writes to.
_ANOTHER_STREAM = {"STREAM_BROKEN", "PARTITIONS_TOO_MANY"}
#: The agent stored a batch that it does not remember the outcome of.
_SEQUENCE_FORGOTTEN = "SEQUENCE_FORGOTTEN"
#: The batch does not continue what the agent knows of this producer.
_NOT_NEXT = {"SEQUENCE_OUT_OF_ORDER", "PRODUCER_UNKNOWN", _SEQUENCE_FORGOTTEN}
#: Codes of errors that do not say whether the batch was stored.
_UNCLEAR = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.CANCELLED}
_ACKS = {
    Acks.DEFAULT: producer_pb2.ACKS_UNSPECIFIED,
    Acks.DURABLE: producer_pb2.ACKS_DURABLE,
    Acks.MEMORY: producer_pb2.ACKS_MEMORY,
}
#: Sequences have 31 bits, and begin again behind the last.
_SEQUENCES = 1 << 31


class Settled(NamedTuple):
    """A batch and what became of it. The driver tells the batch, outside of its lock."""

    batch: PendingBatch
    outcome: producer_pb2.ProduceResponse | MillstreamError


class Session:
    """The batches of a producer from `ready` on. The driver holds its lock during every call, but for `request`."""

    def __init__(self, settings: ProducerSettings, accumulator: Accumulator) -> None:
        self._settings = settings
        self._accumulator = accumulator
        self._identity: tuple[int, int] | None = None
        self._sequences: dict[TopicPartition, int] = {}
        self._in_flight: deque[PendingBatch] = deque()
        #: Answered, and to be sent again, once nothing is in flight.
        self._redo: deque[PendingBatch] = deque()
        #: To be sent before anything that is ready.
        self._again: deque[PendingBatch] = deque()
        #: Partitions whose batches in flight stand behind one that was refused for good.
        self._rewound: set[TopicPartition] = set()
        self._pauses = Pauses()
        #: The stream takes nothing more, and why; it is left once everything is answered.
        self.broken: MillstreamError | None = None
        #: An epoch is to be asked for before anything else is sent.
        self.wants_epoch = True
        #: Nothing is sent any more.
        self.fatal: MillstreamError | None = None

    def init_call(self) -> Call[producer_pb2.InitProducerResponse, tuple[int, int]]:
        """The call that gives an epoch: of the name, of the id that this producer has, or of a new id."""
        request = producer_pb2.InitProducerRequest(producer_name=self._settings.name)
        if self._identity is not None and not self._settings.name:
            request.producer_id, request.producer_epoch = self._identity
        answer = producer_pb2.InitProducerResponse
        return Call("ProducerService/InitProducer", request, answer, lambda a: (a.producer_id, a.producer_epoch))

    def begin_epoch(self, identity: tuple[int, int]) -> None:
        """An epoch was given: sequences begin with 0."""
        self._identity = identity
        self._sequences.clear()
        self.wants_epoch = False

    def has_work(self) -> bool:
        """Whether a batch waits to be sent."""
        return bool(self._again or self._accumulator.ready)

    def is_idle(self) -> bool:
        """Whether every batch on the present stream is answered."""
        return not self._in_flight

    def take(self) -> PendingBatch | None:
        """The next batch to send over the present stream, which is in flight then; None where there is none now."""
        if self.broken or self.wants_epoch or self.fatal or len(self._in_flight) >= self._settings.in_flight_max:
            return None
        if self._rewound:
            if self._in_flight:
                return None
            self._requeue()
        queue = self._again or self._accumulator.ready
        if not queue:
            return None
        batch = queue.popleft()
        if batch.stamp is None:
            batch.stamp = self._next_stamp(batch)
        self._in_flight.append(batch)
        return batch

    def request(self, batch: PendingBatch) -> producer_pb2.ProduceStreamRequest:
        """A batch as it is sent."""
        topic, partition = batch.place
        encoded = batch.encode(self._settings.compression)
        acks = _ACKS[self._settings.acks]
        produce = producer_pb2.ProduceRequest(topic=topic, partition=partition, batch=encoded, acks=acks)
        return producer_pb2.ProduceStreamRequest(produce=produce)

    def answered(self, answer: producer_pb2.ProduceStreamResponse) -> list[Settled]:
        """The answer to the oldest batch in flight."""
        if not self._in_flight:
            # Everything was given up meanwhile.
            return []
        batch = self._in_flight.popleft()
        if answer.HasField("produced"):
            self._pauses.reset()
            return [Settled(batch, answer.produced)]
        error = errors.from_message(answer.error)
        if isinstance(error, ProducerFencedError):
            return [Settled(batch, error), *self.fail(error)]
        if error.retryable or error.reason in _ANOTHER_STREAM:
            # What stands behind the one at fault tells nothing new.
            self.broken = self.broken or error
            untouched = error.reason in _ANOTHER_STREAM or isinstance(error, ExhaustedError)
            return self._do_again(batch, in_doubt=not untouched)
        if error.reason in _NOT_NEXT:
            if batch.place not in self._rewound:
                self.broken, self.wants_epoch = error, True
            return self._do_again(batch, in_doubt=error.reason == _SEQUENCE_FORGOTTEN)
        if error.code in _UNCLEAR:
            self.broken, self.wants_epoch = error, True
        else:
            self._rewind(batch)
        return [Settled(batch, error)]

    def ended(self, now: float) -> list[Settled]:
        """No stream is open: what was not answered goes over the next one, but for what must not be sent again."""
        for batch in self._in_flight:
            batch.in_doubt = True
        cause, self.broken = self.broken, None
        expires = self.expire(now)
        self._requeue()
        if expires and any(batch.in_doubt for batch in self._again):
            self.wants_epoch = True
        settled = self._drop_doubtful(cause) if self.wants_epoch else []
        return settled + self._drop_old(now) if expires else settled

    def pause_s(self, error: MillstreamError | None) -> float:
        """How long to wait before the next stream."""
        return self._pauses.after(error)

    def expire(self, now: float) -> bool:
        """Whether a batch was not acknowledged in time: then the stream is to be left."""
        due = self.next_expiry()
        return due is not None and due <= now

    def next_expiry(self) -> float | None:
        """When the oldest batch is to be given up."""
        queues = (self._in_flight, self._redo, self._again, self._accumulator.ready)
        oldest = [queue[0].created_at for queue in queues if queue]
        return min(oldest) + self._settings.delivery_timeout_s if oldest else None

    def fail(self, error: MillstreamError) -> list[Settled]:
        """Gives everything up, for good."""
        self.fatal = error
        self._accumulator.seal_all()
        queues = (self._in_flight, self._redo, self._again, self._accumulator.ready)
        settled = [Settled(batch, error) for queue in queues for batch in queue]
        for queue in queues:
            queue.clear()
        return settled

    def _next_stamp(self, batch: PendingBatch) -> ProducerStamp:
        assert self._identity is not None, "nothing is taken before an epoch was given"
        sequence = self._sequences.get(batch.place, 0)
        self._sequences[batch.place] = (sequence + batch.count) % _SEQUENCES
        return ProducerStamp(*self._identity, sequence)

    def _do_again(self, batch: PendingBatch, in_doubt: bool) -> list[Settled]:
        batch.in_doubt = in_doubt
        self._redo.append(batch)
        return []

    def _rewind(self, refused: PendingBatch) -> None:
        """The next batch of the partition takes the sequence of one that was refused for good."""
        assert refused.stamp is not None, "what was sent has a stamp"
        place = refused.place
        if place in self._rewound:
            return
        self._sequences[place] = refused.stamp.base_sequence
        for batch in self._again:
            if batch.place == place:
                batch.stamp = None
        if any(batch.place == place for batch in self._in_flight):
            self._rewound.add(place)

    def _requeue(self) -> None:
        """Everything that was sent and is not settled is to be sent again, in the old order."""
        for batch in (*self._redo, *self._in_flight):
            if batch.place in self._rewound:
                # It stands behind a sequence that was never stored, so neither was it.
                batch.stamp, batch.in_doubt = None, False
        self._again.extendleft(reversed((*self._redo, *self._in_flight)))
        self._redo.clear()
        self._in_flight.clear()
        self._rewound.clear()

    def _drop_doubtful(self, cause: MillstreamError | None) -> list[Settled]:
        dropped = [batch for batch in self._again if batch.in_doubt]
        kept = [batch for batch in self._again if not batch.in_doubt]
        for batch in kept:
            batch.stamp = None
        self._again = deque(kept)
        return [Settled(batch, self._timeout(cause)) for batch in dropped]

    def _drop_old(self, now: float) -> list[Settled]:
        limit = now - self._settings.delivery_timeout_s
        queues = (self._again, self._accumulator.ready)
        old = [batch for queue in queues for batch in queue if batch.created_at <= limit]
        for queue in queues:
            kept = [batch for batch in queue if batch.created_at > limit]
            queue.clear()
            queue.extend(kept)
        if any(batch.stamp for batch in old):
            # What follows would leave a hole in the sequences.
            self.wants_epoch = True
            for batch in self._again:
                batch.stamp = None
        return [Settled(batch, self._timeout(None)) for batch in old]

    def _timeout(self, cause: MillstreamError | None) -> MillstreamError:
        told = f" ({cause})" if cause else ""
        message = f"the record was not acknowledged within {self._settings.delivery_timeout_s} s{told}"
        message = f"{message}; whether it is stored is not known"
        return DeliveryTimeoutError(message, code=grpc.StatusCode.DEADLINE_EXCEEDED, reason="DELIVERY_TIMEOUT")
