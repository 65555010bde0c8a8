"""What is produced is read back, against a real agent."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from agent import Agent

from millstream import (
    Acks,
    Admin,
    AsyncAdmin,
    AsyncConsumer,
    AsyncProducer,
    Compression,
    Consumer,
    ConsumerSettings,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    Producer,
    ProducerSettings,
    Record,
    Start,
    TopicPartition,
    partition_for_key,
)
from millstream.v1 import topic_pb2

TO_THE_END = ConsumerSettings(stop_at_end=True)


@pytest.fixture
def made(agent: Agent, topic: str) -> str:
    """A topic of three partitions."""
    with Admin(agent.url) as admin:
        admin.create_topic(topic, 3)
    return topic


def read(agent: Agent, topic: str, settings: ConsumerSettings = TO_THE_END) -> list[Record]:
    with Consumer(agent.url, topics=[topic], settings=settings) as consumer:
        return list(consumer)


def test_real_documents_come_back_byte_for_byte(agent: Agent, made: str, documents: list[bytes]) -> None:
    with Producer(agent.url) as producer:
        sent = [producer.send(made, document, partition=1) for document in documents]
        producer.flush()
    assert [delivery.result(0).offset for delivery in sent] == list(range(500))
    records = read(agent, made)
    assert [record.value for record in records] == documents
    assert [record.offset for record in records] == list(range(500))
    assert agent.cli("consume", made).encode().splitlines() == documents


def test_real_documents_come_back_in_asyncio(agent: Agent, made: str, documents: list[bytes]) -> None:
    async def there_and_back() -> list[bytes | None]:
        async with AsyncProducer(agent.url) as producer:
            sent = [await producer.send(made, document, partition=1) for document in documents]
            deliveries = await asyncio.gather(*sent)
        assert [delivery.offset for delivery in deliveries] == list(range(500))
        async with AsyncConsumer(agent.url, topics=[made], settings=TO_THE_END) as consumer:
            return [record.value async for record in consumer]

    assert asyncio.run(there_and_back()) == documents


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("compression", Compression)
def test_every_part_of_a_record_comes_back(agent: Agent, made: str, compression: Compression, encoded: bool) -> None:
    headers = (("h", b"1"), ("h", None), ("", b""), ("ünï", b"\xff"))
    records = [
        Record(made, 0, 0, 1_000, None, b"value"),
        Record(made, 0, 1, 999, b"key", None, headers),
        Record(made, 0, 2, -5, b"", b""),
        Record(made, 0, 3, 2**53, b"\x00\xff", b"x" * 100_000, headers[:1]),
    ]
    with Producer(agent.url, ProducerSettings(compression=compression)) as producer:
        for one in records:
            producer.send(made, one.value, key=one.key, headers=one.headers, timestamp_ms=one.timestamp_ms, partition=0)
    assert read(agent, made, ConsumerSettings(stop_at_end=True, encoded=encoded)) == records


def test_records_are_stamped_with_the_time_they_are_sent_at(agent: Agent, made: str) -> None:
    before = int(time.time() * 1000)
    with Producer(agent.url) as producer:
        producer.send(made, b"now", headers={"a": b"b"})
    (record,) = read(agent, made)
    assert before <= record.timestamp_ms <= time.time() * 1000
    assert record.headers == (("a", b"b"),)


def test_keys_go_where_the_command_line_sends_them(agent: Agent, topic: str) -> None:
    keys = [f"key-{number}" for number in range(100)]
    lines = "".join(json.dumps({"k": key}) + "\n" for key in keys)
    with Admin(agent.url) as admin, Producer(agent.url) as producer:
        for name in ("cli", "python"):
            admin.create_topic(f"{topic}.{name}", 7)
        for key in keys:
            producer.send(f"{topic}.python", b"", key=key.encode())
    agent.cli("produce", f"{topic}.cli", "--key-field", "k", stdin=lines)

    places = {}
    for name in ("cli", "python"):
        records = read(agent, f"{topic}.{name}")
        places[name] = {record.key: record.partition for record in records}
        assert len(records) == len(keys)
    assert places["cli"] == places["python"]
    assert places["python"] == {key.encode(): partition_for_key(key.encode(), 7) for key in keys}


def test_records_without_a_key_reach_every_partition(agent: Agent, made: str) -> None:
    with Producer(agent.url, ProducerSettings(batch_bytes=500)) as producer:
        for number in range(100):
            producer.send(made, b"%d" % number)
    records = read(agent, made)
    assert sorted(int(record.value or b"") for record in records) == list(range(100))
    assert {record.partition for record in records} == {0, 1, 2}


@pytest.mark.parametrize("acks", Acks)
def test_each_kind_of_acknowledgement_is_given(agent: Agent, made: str, acks: Acks) -> None:
    with Producer(agent.url, ProducerSettings(acks=acks)) as producer:
        assert producer.send(made, b"a", partition=2).result(10).offset == 0


@pytest.mark.parametrize(
    ("start", "first"),
    [
        (Start.EARLIEST, 0),
        (Start.LATEST, None),
        (Start.offset(7), 7),
        (Start.timestamp(1_500), 5),
        (Start.timestamp(9_999), None),
    ],
)
def test_reading_begins_where_it_is_told(agent: Agent, made: str, start: Start, first: int | None) -> None:
    with Producer(agent.url) as producer:
        for number in range(10):
            producer.send(made, b"", timestamp_ms=1_000 + number * 100, partition=1)
    with Consumer(agent.url, partitions=[(made, 1)], settings=ConsumerSettings(start=start)) as consumer:
        # What is latest is so when the consumer is entered.
        with Producer(agent.url) as producer:
            producer.send(made, b"later", partition=1)
        expected = 10 if first is None else first
        assert next(consumer).offset == expected


def test_a_consumer_moves_where_it_is_told(agent: Agent, made: str) -> None:
    with Producer(agent.url) as producer:
        for number in range(100):
            producer.send(made, b"%d" % number, timestamp_ms=number, partition=0)
    place = TopicPartition(made, 0)
    with Consumer(agent.url, topics=[made]) as consumer:
        assert [next(consumer).offset for _ in range(3)] == [0, 1, 2]
        for start, offset in ((Start.offset(50), 50), (Start.EARLIEST, 0), (Start.timestamp(97), 97)):
            consumer.seek(made, 0, start)
            assert consumer.positions()[place] == offset
            assert [next(consumer).offset for _ in range(3)] == [offset, offset + 1, offset + 2]
        consumer.seek(made, 0, Start.LATEST)
        assert consumer.poll(0.1) == []
        assert consumer.positions() == {TopicPartition(made, 0): 100, TopicPartition(made, 1): 0, TopicPartition(made, 2): 0}


def test_an_offset_beyond_the_end_is_told_and_can_be_mended(agent: Agent, made: str) -> None:
    with Producer(agent.url) as producer:
        producer.send(made, b"a", partition=0)
    settings = ConsumerSettings(start=Start.offset(5))
    with Consumer(agent.url, partitions=[(made, 0)], settings=settings) as consumer:
        with pytest.raises(OutOfRangeError) as told:
            consumer.poll(10)
        assert told.value.reason == "OFFSET_OUT_OF_RANGE"
        assert not told.value.retryable
        consumer.seek(made, 0, Start.EARLIEST)
        assert next(consumer).value == b"a"


def test_partitions_that_are_added_are_read_too(agent: Agent, topic: str) -> None:
    with Admin(agent.url) as admin, Producer(agent.url, ProducerSettings(topic_age_max_s=0.0)) as producer:
        admin.create_topic(topic, 1)
        with Consumer(agent.url, topics=[topic], settings=ConsumerSettings(start=Start.LATEST)) as consumer:
            admin.alter_topic(topic, partitions=2)
            producer.send(topic, b"new", partition=1)
            producer.flush()
            record = next(consumer)
            assert (record.partition, record.value) == (1, b"new")


def test_what_is_larger_than_a_topic_takes_is_refused_and_nothing_else(agent: Agent, topic: str) -> None:
    with Admin(agent.url) as admin:
        admin.create_topic(topic, 1, topic_pb2.TopicConfig(record_bytes_max=1_000))
    with Producer(agent.url, ProducerSettings(linger_s=0)) as producer:
        good = [producer.send(topic, b"a", partition=0)]
        good[0].result(10)
        bad = producer.send(topic, b"x" * 1_001, partition=0)
        with pytest.raises(InvalidArgumentError) as told:
            bad.result(10)
        good.append(producer.send(topic, b"b", partition=0))
        assert [delivery.result(10).offset for delivery in good] == [0, 1]
    assert told.value.reason == "BATCH_INVALID"


def test_a_topic_that_is_not_there_is_told_at_once(agent: Agent, topic: str) -> None:
    with Producer(agent.url) as producer:
        with pytest.raises(NotFoundError) as told:
            producer.send(topic, b"a")
        assert (told.value.reason, told.value.facts["topic"]) == ("TOPIC_UNKNOWN", topic)
        with pytest.raises(NotFoundError):
            producer.send(topic, b"a", partition=0).result(10)
    with pytest.raises(NotFoundError), Consumer(agent.url, topics=[topic]):
        pass


def test_topics_are_administered(agent: Agent, topic: str) -> None:
    with Admin(agent.url) as admin:
        made = admin.create_topic(topic, 2, topic_pb2.TopicConfig(retention_ms=3_600_000))
        assert (made.name, made.partitions, made.config.retention_ms) == (topic, 2, 3_600_000)
        assert topic in [one.name for one in admin.topics()]
        with Producer(agent.url) as producer:
            for value in (b"a", b"b", b"c"):
                producer.send(topic, value, partition=0)
        assert admin.topic(topic, flush=True).partitions[0].segment_count == 1
        assert admin.alter_topic(topic, topic_pb2.TopicConfig(retention_ms=0)).config.retention_ms == 0
        assert admin.truncate_topic(topic, 0, 2) == 2
        offsets = admin.offsets(topic, 0, timestamp_ms=0)
        assert (offsets.log_start_offset, offsets.high_watermark, offsets.offset_at) == (2, 3, 2)
        admin.delete_topic(topic)
        with pytest.raises(NotFoundError):
            admin.topic(topic)


def test_topics_are_administered_in_asyncio(agent: Agent, topic: str) -> None:
    async def administer() -> None:
        async with AsyncAdmin(agent.url) as admin:
            assert (await admin.create_topic(topic)).partitions == 1
            assert topic in [one.name for one in await admin.topics()]
            await admin.delete_topic(topic)
            with pytest.raises(NotFoundError):
                await admin.topic(topic)

    asyncio.run(administer())


def test_the_agent_knows_itself(agent: Agent) -> None:
    with Admin(agent.url) as admin:
        (found,) = admin.agents()
    assert found.alive
    assert found.this_one
    assert f"http://{found.address}" == agent.url


def test_many_threads_share_a_producer(agent: Agent, made: str) -> None:
    def send(thread: int) -> None:
        for number in range(500):
            producer.send(made, b"%d:%d" % (thread, number), key=b"%d" % thread)

    with Producer(agent.url, ProducerSettings(batch_bytes=2_000)) as producer, ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(8)))
    records = read(agent, made)
    for thread in range(8):
        own = [record.value for record in records if record.key == b"%d" % thread]
        assert own == [b"%d:%d" % (thread, number) for number in range(500)], f"thread {thread} is out of order"
