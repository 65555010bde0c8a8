"""A gRPC server in front of an agent that exists in memory alone, for faults that a real one does not make on demand."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent import futures
from types import TracebackType

import grpc
from fake_agent import Answer, FakeAgent, Request
from fake_groups import FakeGroups

from millstream.v1 import (
    consumer_pb2,
    consumer_pb2_grpc,
    group_pb2_grpc,
    producer_pb2,
    producer_pb2_grpc,
    record_pb2,
    topic_pb2,
    topic_pb2_grpc,
)


class FakeServer(
    topic_pb2_grpc.TopicServiceServicer,
    producer_pb2_grpc.ProducerServiceServicer,
    consumer_pb2_grpc.ConsumerServiceServicer,
):
    """Serves one topic of two partitions, whatever it is called."""

    def __init__(self, agent: FakeAgent) -> None:
        self.agent = agent
        #: After so many answers the next stream breaks; what was processed then is not told.
        self.breaks: list[int] = []
        #: Whether batches are answered.
        self.answers = True
        self.streams = 0
        self._lock = threading.Condition()
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        topic_pb2_grpc.add_TopicServiceServicer_to_server(self, self._server)
        producer_pb2_grpc.add_ProducerServiceServicer_to_server(self, self._server)
        consumer_pb2_grpc.add_ConsumerServiceServicer_to_server(self, self._server)
        # Only what members call is there.
        self.groups = FakeGroups()  # type: ignore[abstract]
        group_pb2_grpc.add_GroupServiceServicer_to_server(self.groups, self._server)
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def GetTopic(  # noqa: N802
        self, request: topic_pb2.GetTopicRequest, context: grpc.ServicerContext
    ) -> topic_pb2.GetTopicResponse:
        return topic_pb2.GetTopicResponse(topic=topic_pb2.Topic(name=request.name, partitions=2))

    def InitProducer(  # noqa: N802
        self, request: producer_pb2.InitProducerRequest, context: grpc.ServicerContext
    ) -> producer_pb2.InitProducerResponse:
        with self._lock:
            self.agent.epoch += 1
            return producer_pb2.InitProducerResponse(producer_id=1, producer_epoch=self.agent.epoch)

    def ProduceStream(  # noqa: N802
        self, request_iterator: Iterator[Request], context: grpc.ServicerContext
    ) -> Iterator[Answer]:
        with self._lock:
            self.streams += 1
            self.agent.open_stream()
            left = self.breaks.pop(0) if self.breaks else None
        for request in request_iterator:
            with self._lock:
                answer = self.agent.produce(request)
                self._lock.notify_all()
                self._lock.wait_for(lambda: self.answers or not context.is_active())
            if left == 0:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the stream breaks")
            left = left - 1 if left is not None else None
            yield answer

    def ListOffsets(  # noqa: N802
        self, request: consumer_pb2.ListOffsetsRequest, context: grpc.ServicerContext
    ) -> consumer_pb2.ListOffsetsResponse:
        with self._lock:
            end = len(self.agent.logs.get(request.partition, []))
        return consumer_pb2.ListOffsetsResponse(high_watermark=end)

    def Subscribe(  # noqa: N802
        self, request_iterator: Iterator[consumer_pb2.SubscribeRequest], context: grpc.ServicerContext
    ) -> Iterator[consumer_pb2.SubscribeResponse]:
        start = next(request_iterator).start
        with self._lock:
            self.streams += 1
            left = self.breaks.pop(0) if self.breaks else None
            credit = [start.credit_bytes]
            positions = {one.partition: one.start.offset for one in start.partitions}
            context.add_callback(self._wake)

        def take_credits() -> None:
            # A client that leaves ends the iteration with an exception of no type of its own.
            with contextlib.suppress(Exception):
                for request in request_iterator:
                    take(request)

        def take(request: consumer_pb2.SubscribeRequest) -> None:
            with self._lock:
                credit[0] += request.credit_bytes
                self._lock.notify_all()

        threading.Thread(target=take_credits, daemon=True).start()
        while context.is_active():
            with self._lock:
                self._lock.wait_for(lambda: not context.is_active() or (credit[0] > 0 and self._waiting(positions)))
                answer = self._read(positions, start.partitions[0].topic)
                if answer is None:
                    continue
                credit[0] -= answer.credit_bytes
            if left == 0:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the stream breaks")
            left = left - 1 if left is not None else None
            yield answer

    def _waiting(self, positions: dict[int, int]) -> list[int]:
        return [one for one, at in positions.items() if at < len(self.agent.logs.get(one, []))]

    def _read(self, positions: dict[int, int], topic: str) -> consumer_pb2.SubscribeResponse | None:
        """Three records at most of the first partition that has any."""
        waiting = self._waiting(positions)
        if not waiting:
            return None
        partition, at, log = waiting[0], positions[waiting[0]], self.agent.logs[waiting[0]]
        values = log[at : at + 3]
        positions[partition] = at + len(values)
        records = [record_pb2.Record(offset=at + step, value=value) for step, value in enumerate(values)]
        fetched = consumer_pb2.FetchedPartition(
            topic=topic, partition=partition, records=records, next_offset=positions[partition], high_watermark=len(log)
        )
        return consumer_pb2.SubscribeResponse(fetched=fetched, credit_bytes=sum(map(len, values)))

    def answer_again(self) -> None:
        """Batches are answered from now on."""
        with self._lock:
            self.answers = True
            self._lock.notify_all()

    def wait_for_batches(self, count: int) -> None:
        """Until so many records are stored in partition 0."""
        with self._lock:
            assert self._lock.wait_for(lambda: len(self.agent.logs.get(0, [])) >= count, 10)

    def _wake(self) -> None:
        with self._lock:
            self._lock.notify_all()

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.stop(None)
        self.answer_again()
