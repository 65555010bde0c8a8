"""Members of a group on bad days: sessions that end, commits that come late, partitions that move."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from fake_agent import FakeAgent
from fake_server import FakeServer

from millstream import AbortedError, AsyncConsumer, Consumer, ConsumerSettings, Record, TopicPartition

BOTH = {TopicPartition("t", 0), TopicPartition("t", 1)}
MANUAL = ConsumerSettings(auto_commit_interval_s=None)
VALUES = [b"%d" % number for number in range(50)]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """Fifty records in each of two partitions."""
    agent = FakeAgent(logs={0: list(VALUES), 1: list(VALUES)})
    # Only what the clients call is there.
    with FakeServer(agent) as server:  # type: ignore[abstract]
        yield server


def read(consumer: Consumer, count: int) -> list[Record]:
    records: list[Record] = []
    while len(records) < count:
        records += consumer.poll(max_records=count - len(records))
    return records


def until(consumer: Consumer, holds: Callable[[], bool]) -> None:
    """Goes on asking for records until something holds."""
    while not holds():
        consumer.poll(0.02, max_records=1)


def test_what_was_handed_out_is_committed_when_more_is_asked_for(server: FakeServer) -> None:
    settings = ConsumerSettings(auto_commit_interval_s=0.01)
    with Consumer(server.url, topics=["t"], group="g", settings=settings) as consumer:
        first = next(consumer)
        until(consumer, lambda: server.groups.committed.get(first.partition, 0) >= 1)
        last = consumer.positions()
    assert server.groups.committed == {place.partition: offset for place, offset in last.items()}
    assert not server.groups.members, "it left at once"


def test_a_block_that_fails_does_not_commit(server: FakeServer) -> None:
    consumer = Consumer(server.url, topics=["t"], group="g")
    with pytest.raises(ZeroDivisionError), consumer:
        raise ZeroDivisionError(next(consumer))
    assert server.groups.committed == {}


def test_a_member_whose_session_ended_joins_anew_and_reads_again_what_it_had_not_committed(server: FakeServer) -> None:
    revoked: list[list[TopicPartition]] = []
    with Consumer(server.url, topics=["t"], group="g", settings=MANUAL, on_revoked=revoked.append) as consumer:
        until(consumer, lambda: set(consumer.positions()) == BOTH)
        consumer.commit({TopicPartition("t", 0): 10, TopicPartition("t", 1): 10})
        server.groups.lose()
        until(consumer, lambda: bool(revoked))
        assert set(revoked[0]) == BOTH
        until(consumer, lambda: set(consumer.positions()) == BOTH)
        assert min(consumer.positions().values()) >= 10
        assert {record.offset for record in read(consumer, 70)} <= set(range(10, 50))


def test_a_commit_that_comes_late_is_made_again(server: FakeServer) -> None:
    with Consumer(server.url, topics=["t"], group="g", settings=MANUAL) as consumer:
        next(consumer)
        server.groups.stale = 1
        consumer.commit()
        assert len(server.groups.commits) == 1
        next(consumer)
        server.groups.stale = 5
        with pytest.raises(AbortedError) as told:
            consumer.commit()
        assert told.value.reason == "GENERATION_STALE"
        server.groups.stale = 0


def test_partitions_move_between_two_records_and_none_is_read_by_both(server: FakeServer) -> None:
    with Consumer(server.url, topics=["t"], group="g") as first:
        until(first, lambda: set(first.positions()) == BOTH)
        with Consumer(server.url, topics=["t"], group="g") as second:
            # The second gets nothing before the first has let go, which it does when it asks for more.
            assert second.poll(0.2) == []
            assert set(first.positions()) == BOTH
            mover = threading.Thread(target=until, args=(second, lambda: len(second.positions()) == 1), daemon=True)
            mover.start()
            until(first, lambda: len(first.positions()) == 1)
            mover.join(10)
            assert not set(first.positions()) & set(second.positions())
            (moved,) = second.positions()
            # It goes on where the first one committed when it let go.
            assert second.positions()[moved] >= server.groups.committed[moved.partition]


def drain(consumer: Consumer) -> list[Record]:
    """Reads both partitions to their end."""
    records: list[Record] = []
    while sorted(consumer.positions().values()) != [50, 50]:
        records += consumer.poll(0.05)
    return records


HASTY = ConsumerSettings(auto_commit_interval_s=None, max_poll_interval_s=0.3)


def test_a_member_that_asks_for_nothing_leaves_and_joins_anew_when_it_does(server: FakeServer) -> None:
    revoked: list[list[TopicPartition]] = []
    with Consumer(server.url, topics=["t"], group="g", settings=HASTY, on_revoked=revoked.append) as consumer:
        until(consumer, lambda: set(consumer.positions()) == BOTH)
        (former,) = server.groups.members
        consumer.commit({TopicPartition("t", 0): 10, TopicPartition("t", 1): 20})
        server.groups.wait_until(lambda members: not members)
        with Consumer(server.url, topics=["t"], group="g", settings=MANUAL) as other:
            until(other, lambda: set(other.positions()) == BOTH)
        assert revoked == [], "it is at work on something still"
        with pytest.raises(AbortedError):
            consumer.commit({TopicPartition("t", 0): 11})
        consumer.poll(0.0)
        assert set(revoked[0]) == BOTH
        records = drain(consumer)
        assert former not in server.groups.members
        assert sorted(record.offset for record in records) == sorted([*range(10, 50), *range(20, 50)])
        # Whoever waits for records hangs not.
        (present,) = server.groups.members
        assert consumer.poll(1.0) == []
        assert list(server.groups.members) == [present]


async def hasty_in_asyncio(server: FakeServer) -> None:
    async with AsyncConsumer(server.url, topics=["t"], group="g", settings=HASTY) as consumer:
        while set(await consumer.positions()) != BOTH:
            await consumer.poll(0.02, max_records=1)
        (former,) = server.groups.members
        await asyncio.to_thread(server.groups.wait_until, lambda members: not members)
        seen = 0
        while seen < 100:
            seen += len(await consumer.poll())
        (present,) = server.groups.members
        assert present != former
        assert await consumer.poll(1.0) == []
        assert list(server.groups.members) == [present]


def test_a_member_in_asyncio_that_asks_for_nothing_leaves_too(server: FakeServer) -> None:
    asyncio.run(hasty_in_asyncio(server))


async def group_in_asyncio(server: FakeServer) -> None:
    moves: list[tuple[str, int]] = []

    async def take(places: list[TopicPartition]) -> None:
        moves.append(("assigned", len(places)))

    async def give(places: list[TopicPartition]) -> None:
        moves.append(("revoked", len(places)))
        await first.commit()

    first = AsyncConsumer(server.url, topics=["t"], group="g", settings=MANUAL, on_assigned=take, on_revoked=give)
    async with first:
        seen = [await anext(first) for _ in range(3)]
        while set(await first.positions()) != BOTH:
            await first.poll(0.02, max_records=1)
        async with AsyncConsumer(server.url, topics=["t"], group="g", settings=MANUAL) as second:
            while not await second.positions():
                await asyncio.gather(first.poll(0.02, max_records=1), second.poll(0.02, max_records=1))
            assert ("revoked", 1) in moves
            server.groups.stale = 1
            await first.commit()
        assert sum(server.groups.committed.values()) >= len(seen)
        server.groups.lose()
        while moves[-1][0] != "assigned":
            await first.poll(0.02, max_records=1)


def test_members_in_asyncio_do_the_same(server: FakeServer) -> None:
    asyncio.run(group_in_asyncio(server))
    assert not server.groups.members


def refuse(_: list[TopicPartition]) -> None:
    raise ZeroDivisionError


async def refuse_in_asyncio(places: list[TopicPartition]) -> None:
    refuse(places)


def test_what_is_lost_is_read_no_more_where_the_listener_fails(server: FakeServer) -> None:
    with Consumer(server.url, topics=["t"], group="g", settings=MANUAL, on_revoked=refuse) as consumer:
        until(consumer, lambda: set(consumer.positions()) == BOTH)
        server.groups.lose()
        with pytest.raises(ZeroDivisionError):
            until(consumer, lambda: False)
        assert consumer.positions() == {}
        until(consumer, lambda: set(consumer.positions()) == BOTH)


async def drain_in_asyncio(consumer: AsyncConsumer) -> None:
    """Reads on and on."""
    while True:
        await consumer.poll(0.02, max_records=1)


async def lost_in_asyncio(server: FakeServer) -> None:
    consumer = AsyncConsumer(server.url, topics=["t"], group="g", settings=MANUAL, on_revoked=refuse_in_asyncio)
    async with consumer:
        while set(await consumer.positions()) != BOTH:
            await consumer.poll(0.02, max_records=1)
        server.groups.lose()
        with pytest.raises(ZeroDivisionError):
            await drain_in_asyncio(consumer)
        assert await consumer.positions() == {}


def test_what_is_lost_is_read_no_more_in_asyncio_either(server: FakeServer) -> None:
    asyncio.run(lost_in_asyncio(server))


async def closed_while_it_leaves(server: FakeServer) -> None:
    consumer = AsyncConsumer(server.url, topics=["t"], group="g", settings=HASTY)
    while set(await consumer.positions()) != BOTH:
        await consumer.poll(0.02, max_records=1)
    server.groups.may_leave.clear()
    await asyncio.to_thread(server.groups.leaving.wait, 30)
    closing = asyncio.create_task(consumer.close())
    # All that it cancels is cancelled before it waits for the agent.
    for _ in range(10):
        await asyncio.sleep(0)
    server.groups.may_leave.set()
    await closing
    assert not server.groups.members


def test_who_is_closed_while_it_leaves_has_left(server: FakeServer) -> None:
    asyncio.run(closed_while_it_leaves(server))
