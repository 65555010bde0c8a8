"""An agent that exists in memory alone, and fails as it is told; with a gRPC server in front of it where a test wants one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from millstream.batch import decode_batches
from millstream.v1 import error_pb2, producer_pb2

Request = producer_pb2.ProduceStreamRequest
Answer = producer_pb2.ProduceStreamResponse


def refusal(code: grpc.StatusCode, reason: str, retry_after_ms: int | None = None) -> Answer:
    return Answer(error=error_pb2.Error(code=code.value[0], reason=reason, retry_after_ms=retry_after_ms))


REJECTED = refusal(grpc.StatusCode.INVALID_ARGUMENT, "RECORDS_REJECTED")
FULL = refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "TAIL_FULL", 500)
BEHIND = refusal(grpc.StatusCode.ABORTED, "STREAM_BROKEN")
NOT_NEXT = refusal(grpc.StatusCode.FAILED_PRECONDITION, "SEQUENCE_OUT_OF_ORDER")
UNKNOWN = refusal(grpc.StatusCode.FAILED_PRECONDITION, "PRODUCER_UNKNOWN")
FENCED = refusal(grpc.StatusCode.FAILED_PRECONDITION, "PRODUCER_FENCED")


@dataclass
class FakeAgent:
    """Stores batches as an agent does: those that continue the numbers, each once."""

    #: What to answer instead, for a batch with these values that would be stored.
    refuses: Callable[[list[bytes]], Answer | None] = lambda _: None
    logs: dict[int, list[bytes]] = field(default_factory=dict)
    epoch: int = -1
    _known: dict[int, dict[int, tuple[int, int]]] = field(default_factory=dict)
    _next: dict[int, tuple[int, int]] = field(default_factory=dict)
    _broken: set[int] = field(default_factory=set)

    def open_stream(self) -> None:
        self._broken.clear()

    def forget(self) -> None:
        self._known.clear()
        self._next.clear()

    def produce(self, request: Request) -> Answer:
        partition = request.produce.partition
        if partition in self._broken:
            return BEHIND
        (batch,) = decode_batches(request.produce.batch)
        values = [record.value or b"" for record in batch.records("t", partition)]
        answer = self._store(partition, batch.producer.producer_epoch, batch.producer.base_sequence, values)
        if answer.HasField("error") and answer.error.HasField("retry_after_ms"):
            self._broken.add(partition)
        return answer

    def _store(self, partition: int, epoch: int, sequence: int, values: list[bytes]) -> Answer:
        known = self._known.setdefault(partition, {})
        at, expected = self._next.get(partition, (epoch, 0))
        if epoch < at:
            return FENCED
        if epoch > at:
            known.clear()
            expected = 0
        elif sequence in known:
            base, count = known[sequence]
            return Answer(produced=producer_pb2.ProduceResponse(base_offset=base, record_count=count, duplicate=True))
        if sequence != expected:
            return NOT_NEXT if partition in self._next else UNKNOWN
        refused = self.refuses(values)
        if refused is not None:
            return refused
        log = self.logs.setdefault(partition, [])
        base = len(log)
        log.extend(values)
        known[sequence] = (base, len(values))
        self._next[partition] = (epoch, sequence + len(values))
        return Answer(produced=producer_pb2.ProduceResponse(base_offset=base, record_count=len(values)))
