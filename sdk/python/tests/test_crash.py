"""An agent that is killed while it is used: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import asyncio
import threading

from agent import Agent

from millstream import (
    Admin,
    AsyncConsumer,
    AsyncProducer,
    Compression,
    Consumer,
    ConsumerSettings,
    Producer,
    ProducerSettings,
    Record,
)

RECORDS = 20_000
KILLS = 3
SETTINGS = ProducerSettings(batch_bytes=4 << 10, linger_s=0.001, compression=Compression.LZ4)


def check(records: list[Record], partitions: int) -> None:
    """Each partition has every number that was sent to it, once and in order."""
    for partition in range(partitions):
        found = [int(record.value or b"") for record in records if record.partition == partition]
        assert found == list(range(partition, RECORDS, partitions)), f"partition {partition}"


def kill_now_and_then(agent: Agent, reached: threading.Semaphore) -> None:
    """Kills the agent each time that a part of the records was sent, and starts it again."""
    for _ in range(KILLS):
        reached.acquire()
        agent.kill()
        agent.start()


def test_records_survive_kills_while_they_are_sent_and_read(own_agent: Agent) -> None:
    with Admin(own_agent.url) as admin:
        admin.create_topic("t", 2)
    reached = threading.Semaphore(0)
    killer = threading.Thread(target=kill_now_and_then, args=(own_agent, reached), daemon=True)
    killer.start()
    read: list[Record] = []
    with Consumer(own_agent.url, topics=["t"]) as consumer, Producer(own_agent.url, SETTINGS) as producer:
        sent = []
        for number in range(RECORDS):
            sent.append(producer.send("t", b"%d" % number, partition=number % 2))
            if number % (RECORDS // KILLS) == RECORDS // KILLS // 2:
                # It is killed while batches are under way.
                reached.release()
        producer.flush()
        killer.join()
        while len(read) < RECORDS:
            read += consumer.poll()
    check(read, 2)
    for number, delivery in enumerate(sent):
        assert delivery.result(0).offset == number // 2
    # What stands in the log is the same as what was read on the way.
    with Consumer(own_agent.url, topics=["t"], settings=ConsumerSettings(stop_at_end=True)) as again:
        check(list(again), 2)


async def survive_in_asyncio(agent: Agent, reached: threading.Semaphore) -> list[Record]:
    async with AsyncProducer(agent.url, SETTINGS) as producer:
        for number in range(RECORDS):
            await producer.send("t", b"%d" % number, partition=0)
            if number % (RECORDS // KILLS) == RECORDS // KILLS // 2:
                reached.release()
    settings = ConsumerSettings(stop_at_end=True)
    async with AsyncConsumer(agent.url, topics=["t"], settings=settings) as consumer:
        return [record async for record in consumer]


def test_records_survive_kills_in_asyncio(own_agent: Agent) -> None:
    with Admin(own_agent.url) as admin:
        admin.create_topic("t", 1)
    reached = threading.Semaphore(0)
    killer = threading.Thread(target=kill_now_and_then, args=(own_agent, reached), daemon=True)
    killer.start()
    records = asyncio.run(survive_in_asyncio(own_agent, reached))
    killer.join()
    check(records, 1)
