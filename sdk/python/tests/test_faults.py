"""Producers and consumers on bad days: streams that break, agents that refuse or say nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fake_agent import FULL, REJECTED, FakeAgent
from fake_server import FakeServer

from millstream import (
    AsyncConsumer,
    AsyncProducer,
    BufferFullError,
    ClosedError,
    Consumer,
    ConsumerSettings,
    DeliveryTimeoutError,
    Producer,
    ProducerSettings,
    RecordsRejectedError,
    UnavailableError,
)

VALUES = [b"%d" % number for number in range(100)]
#: Batches of a few records.
SMALL = ProducerSettings(batch_bytes=120)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    # Only what the clients call is there.
    with FakeServer(FakeAgent()) as server:  # type: ignore[abstract]
        yield server


async def produce_async(server: FakeServer, values: list[bytes], settings: ProducerSettings = SMALL) -> list[int | None]:
    async with AsyncProducer(server.url, settings) as producer:
        sent = [await producer.send("t", value, partition=0) for value in values]
        return [(await delivery).offset for delivery in sent]


def produce(server: FakeServer, values: list[bytes], settings: ProducerSettings = SMALL) -> list[int | None]:
    with Producer(server.url, settings) as producer:
        sent = [producer.send("t", value, partition=0) for value in values]
        return [delivery.result(10).offset for delivery in sent]


def produce_either(kind: str, server: FakeServer, values: list[bytes]) -> list[int | None]:
    return produce(server, values) if kind == "sync" else asyncio.run(produce_async(server, values))


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_streams_that_break_lose_nothing_and_double_nothing(server: FakeServer, kind: str) -> None:
    server.breaks = [0, 3, 1]
    assert produce_either(kind, server, VALUES) == list(range(100))
    assert server.agent.logs[0] == VALUES
    assert server.streams == 4


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_bound_that_is_met_slows_down_and_loses_nothing(server: FakeServer, kind: str) -> None:
    full = [True, True]
    server.agent.refuses = lambda values: FULL if VALUES[50] in values and full and full.pop() else None
    assert produce_either(kind, server, VALUES) == list(range(100))
    assert server.agent.logs[0] == VALUES


def test_a_failure_that_nobody_asked_about_is_told_at_the_end(server: FakeServer) -> None:
    server.agent.refuses = lambda values: REJECTED if b"bad" in values else None
    producer = Producer(server.url)
    producer.send("t", b"bad", partition=0)
    producer.send("t", b"good", partition=1)
    with pytest.raises(RecordsRejectedError), producer:
        pass
    assert server.agent.logs == {1: [b"good"]}


def test_a_failure_that_was_asked_about_is_not_told_again(server: FakeServer) -> None:
    server.agent.refuses = lambda values: REJECTED if b"bad" in values else None
    told = []
    with Producer(server.url) as producer:
        delivery = producer.send("t", b"bad", partition=0)
        delivery.add_done_callback(lambda future: told.append(future.exception(0)))
        with pytest.raises(RecordsRejectedError):
            delivery.result(10)
    assert [type(error) for error in told] == [RecordsRejectedError]


async def refused_async(server: FakeServer) -> None:
    async with AsyncProducer(server.url) as producer:
        delivery = await producer.send("t", b"bad", partition=0)
        with pytest.raises(RecordsRejectedError):
            await delivery
        await producer.send("t", b"bad", partition=0)
        with pytest.raises(RecordsRejectedError):
            await producer.flush()


def test_failures_are_told_in_asyncio_too(server: FakeServer) -> None:
    server.agent.refuses = lambda values: REJECTED if b"bad" in values else None
    asyncio.run(refused_async(server))


def test_an_agent_that_says_nothing_is_given_up_in_time(server: FakeServer) -> None:
    server.answers = False
    with Producer(server.url, ProducerSettings(delivery_timeout_s=0.5)) as producer:
        lost = producer.send("t", b"a", partition=0)
        with pytest.raises(DeliveryTimeoutError, match="not known"):
            lost.result(10)
        server.answer_again()
        assert producer.send("t", b"b", partition=0).result(10).offset == 1
    assert server.agent.epoch == 1, "the numbers of what is in doubt are left behind"


async def give_up_async(server: FakeServer) -> None:
    async with AsyncProducer(server.url, ProducerSettings(delivery_timeout_s=0.5)) as producer:
        lost = await producer.send("t", b"a", partition=0)
        with pytest.raises(DeliveryTimeoutError, match="not known"):
            await lost
        server.answer_again()
        assert (await (await producer.send("t", b"b", partition=0))).offset == 1


def test_an_agent_that_says_nothing_is_given_up_in_asyncio_too(server: FakeServer) -> None:
    server.answers = False
    asyncio.run(give_up_async(server))


def test_a_full_buffer_holds_back_and_then_refuses(server: FakeServer) -> None:
    server.answers = False
    producer = Producer(server.url, ProducerSettings(buffer_bytes_max=1_000, delivery_timeout_s=60))
    first = producer.send("t", b"x" * 900, partition=0)
    # Who comes later waits less long than the first one, which keeps its room meanwhile.
    producer._core.settings = replace(producer._core.settings, delivery_timeout_s=0.2)
    with pytest.raises(BufferFullError):
        producer.send("t", b"x" * 900, partition=0)
    server.answer_again()
    assert first.result(60).offset == 0
    producer.close()


def test_a_closed_producer_takes_nothing(server: FakeServer) -> None:
    producer = Producer(server.url)
    producer.close()
    producer.close()
    with pytest.raises(ClosedError):
        producer.send("t", b"a", partition=0)


def test_what_is_left_when_a_producer_is_closed_in_a_hurry_is_told(server: FakeServer) -> None:
    server.answers = False
    producer = Producer(server.url)
    delivery = producer.send("t", b"a", partition=0)
    with pytest.raises(TimeoutError):
        producer.close(0.1)
    assert isinstance(delivery.exception(10), ClosedError)


def test_without_an_agent_everything_says_so() -> None:
    settings = ProducerSettings(delivery_timeout_s=0.5)
    with Producer("http://127.0.0.1:9", settings) as producer:
        with pytest.raises(UnavailableError, match="millstream serve"):
            producer.send("t", b"a")
        with pytest.raises(DeliveryTimeoutError):
            producer.send("t", b"a", partition=0).result(10)
    with pytest.raises(UnavailableError), Consumer("http://127.0.0.1:9", topics=["t"]) as consumer:
        next(consumer)


def consume(server: FakeServer, settings: ConsumerSettings) -> list[bytes | None]:
    with Consumer(server.url, topics=["t"], settings=settings) as consumer:
        return [record.value for record in consumer]


async def consume_async(server: FakeServer, settings: ConsumerSettings) -> list[bytes | None]:
    async with AsyncConsumer(server.url, topics=["t"], settings=settings) as consumer:
        return [record.value async for record in consumer]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_consumer_goes_on_where_its_stream_broke(server: FakeServer, kind: str) -> None:
    produce(server, VALUES)
    server.streams, server.breaks = 0, [0, 2, 5]
    settings = ConsumerSettings(stop_at_end=True, prefetch_bytes=10)
    read = consume(server, settings) if kind == "sync" else asyncio.run(consume_async(server, settings))
    assert read == VALUES
    assert server.streams == 4


def test_a_consumer_waits_for_what_is_not_there_yet(server: FakeServer) -> None:
    with Consumer(server.url, topics=["t"]) as consumer:
        assert consumer.poll(0.05) == []
        produce(server, VALUES[:5])
        assert next(consumer).value == b"0"
        assert [record.value for record in consumer.poll(10, max_records=1)] == [b"1"]
        assert consumer.poll(10)[0].value == b"2"


def test_a_paused_partition_is_silent_and_then_goes_on(server: FakeServer) -> None:
    produce(server, VALUES[:4])
    with Consumer(server.url, partitions=[("t", 0)]) as consumer:
        assert next(consumer).value == b"0"
        consumer.pause(("t", 0))
        assert consumer.poll(0.1) == []
        consumer.resume(("t", 0))
        assert [next(consumer).value for _ in range(3)] == VALUES[1:4]
        assert consumer.lag() == {("t", 0): 0}
        with pytest.raises(ValueError, match="not read here"):
            consumer.pause(("t", 9))


def test_closing_ends_the_iteration_of_another_thread(server: FakeServer) -> None:
    consumer = Consumer(server.url, topics=["t"])
    ended = threading.Thread(target=lambda: list(consumer))
    ended.start()
    while not consumer._threads:
        ended.join(0.01)
    consumer.close()
    ended.join(10)
    assert not ended.is_alive()
    with pytest.raises(ClosedError):
        consumer.poll(0)
