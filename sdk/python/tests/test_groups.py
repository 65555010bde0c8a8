"""Consumer groups, against a real agent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
from agent import Agent

from millstream import (
    Admin,
    AsyncConsumer,
    Consumer,
    ConsumerSettings,
    FailedPreconditionError,
    NotFoundError,
    OutOfRangeError,
    Producer,
    Record,
    Start,
    TopicPartition,
)

PARTITIONS = 4
MANUAL = ConsumerSettings(auto_commit_interval_s=None)


@pytest.fixture
def made(agent: Agent, topic: str) -> str:
    """A topic of some partitions, with a hundred records in each."""
    with Admin(agent.url) as admin, Producer(agent.url) as producer:
        admin.create_topic(topic, PARTITIONS)
        for number in range(100 * PARTITIONS):
            producer.send(topic, b"%d" % number, partition=number % PARTITIONS)
    return topic


def read(consumer: Consumer, count: int) -> list[Record]:
    """The next records, however long they take to come."""
    records: list[Record] = []
    while len(records) < count:
        records += consumer.poll(max_records=count - len(records))
    return records


def values(records: list[Record]) -> list[int]:
    return sorted(int(record.value or b"") for record in records)


def test_a_member_goes_on_where_the_one_before_ended(agent: Agent, made: str) -> None:
    with Consumer(agent.url, topics=[made], group=made) as consumer:
        first = read(consumer, 150)
    with Consumer(agent.url, topics=[made], group=made) as consumer:
        second = read(consumer, 250)
    assert values(first + second) == list(range(400))
    with Admin(agent.url) as admin:
        found = admin.group(made)
        assert (len(found.members), {one.lag for one in found.partitions}) == (0, {0})
        assert made in [group.name for group in admin.groups()]


def test_what_is_not_committed_is_read_again(agent: Agent, made: str) -> None:
    with Consumer(agent.url, topics=[made], group=made, settings=MANUAL) as consumer:
        for place in (TopicPartition(made, partition) for partition in range(PARTITIONS)):
            read_first(consumer, place)
        consumer.commit({TopicPartition(made, 2): 40}, metadata="here")
        assert consumer.committed((made, 2), (made, 3)) == {TopicPartition(made, 2): 40}
        with pytest.raises(OutOfRangeError):
            consumer.commit({TopicPartition(made, 2): 101})
    with Consumer(agent.url, topics=[made], group=made, settings=MANUAL) as consumer:
        records = read(consumer, 360)
        assert {record.offset for record in records if record.partition == 2} == set(range(40, 100))
        consumer.commit()
        assert set(consumer.committed().values()) == {100}


def read_first(consumer: Consumer, place: TopicPartition) -> None:
    """Until the member has the partition."""
    while place not in consumer.positions():
        consumer.poll(0.05, max_records=1)


def test_a_block_that_fails_commits_nothing_of_what_it_was_at(agent: Agent, made: str) -> None:
    consumer = Consumer(agent.url, topics=[made], group=made)
    with pytest.raises(ZeroDivisionError), consumer:
        raise ZeroDivisionError(next(consumer))
    with Consumer(agent.url, topics=[made], group=made) as consumer:
        assert values(read(consumer, 400)) == list(range(400))


class Member(threading.Thread):
    """Reads in a thread of its own until it is told to end."""

    def __init__(self, agent: Agent, topic: str, enough: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self.records: list[Record] = []
        self.held: set[TopicPartition] = set()
        self._enough = enough
        self.consumer = Consumer(
            agent.url, topics=[topic], group=topic, on_assigned=self.held.update, on_revoked=self.held.difference_update
        )
        self.start()

    def run(self) -> None:
        with self.consumer:
            while not self._enough():
                self.records += self.consumer.poll(0.1)


def test_members_share_the_partitions_and_each_record_is_read_once(agent: Agent, made: str) -> None:
    ended = threading.Event()
    first = Member(agent, made, ended.is_set)
    wait_until(lambda: len(first.held) == PARTITIONS)
    second = Member(agent, made, ended.is_set)
    wait_until(lambda: len(first.held) == 2 and len(second.held) == 2)
    assert not first.held & second.held
    with Producer(agent.url) as producer:
        for number in range(400, 800):
            producer.send(made, b"%d" % number, partition=number % PARTITIONS)
    wait_until(lambda: len(first.records) + len(second.records) >= 800)
    with Admin(agent.url) as admin:
        assert sorted(len(member.owned) for member in admin.group(made).members) == [2, 2]
        with pytest.raises(FailedPreconditionError):
            admin.reset_group(made, Start.EARLIEST)
    ended.set()
    first.join()
    second.join()
    assert values(first.records + second.records) == list(range(800))
    assert any(record.partition for record in second.records)


def wait_until(holds: Callable[[], bool]) -> None:
    """Waits for a state, looking at it again and again."""
    looked = threading.Event()
    for _ in range(3_000):
        if holds():
            return
        looked.wait(0.01)
    raise AssertionError("the state did not come")


def test_a_group_is_moved_and_forgotten(agent: Agent, made: str) -> None:
    with Consumer(agent.url, topics=[made], group=made) as consumer:
        read(consumer, 400)
    with Admin(agent.url) as admin:
        planned = admin.reset_group(made, Start.offset(90), partitions=[(made, 1)], dry_run=True)
        assert planned == {TopicPartition(made, 1): 90}
        assert {one.lag for one in admin.group(made).partitions} == {0}
        assert admin.reset_group(made, Start.offset(90), partitions=[(made, 1)]) == planned
        with Consumer(agent.url, topics=[made], group=made) as consumer:
            assert [record.offset for record in read(consumer, 10)] == list(range(90, 100))
        admin.delete_group(made)
        with pytest.raises(NotFoundError):
            admin.group(made)


def test_a_group_is_read_in_asyncio(agent: Agent, made: str) -> None:
    assigned: list[TopicPartition] = []

    async def take(places: list[TopicPartition]) -> None:
        assigned.extend(places)

    async def member(count: int) -> list[Record]:
        records: list[Record] = []
        async with AsyncConsumer(agent.url, topics=[made], group=made, on_assigned=take) as consumer:
            async for record in consumer:
                records.append(record)
                if len(records) == count:
                    break
        return records

    async def both() -> list[Record]:
        return [*await member(170), *await member(230)]

    assert values(asyncio.run(both())) == list(range(400))
    assert sorted(set(assigned)) == [TopicPartition(made, partition) for partition in range(PARTITIONS)]


def test_a_consumer_without_a_group_has_nothing_to_commit(agent: Agent, made: str) -> None:
    with Consumer(agent.url, topics=[made]) as consumer:
        next(consumer)
        with pytest.raises(FailedPreconditionError, match="no group"):
            consumer.commit()
