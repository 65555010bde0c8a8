"""What a producer sends again, and under which numbers, against an agent that exists in memory alone."""

from __future__ import annotations

import random
from collections import deque

import grpc
import pytest
from fake_agent import FULL, REJECTED, Answer, FakeAgent, Request, refusal

from millstream import (
    Delivery,
    DeliveryTimeoutError,
    InvalidArgumentError,
    MillstreamError,
    ProducerFencedError,
    ProducerSettings,
    RecordsRejectedError,
    TopicPartition,
)
from millstream._producer.accumulator import Accumulator
from millstream._producer.pending import PendingBatch
from millstream._producer.session import Session, Settled
from millstream.batch import decode_batches

PLACES = [TopicPartition("t", 0), TopicPartition("t", 1)]


class Producer:
    """The part of a driver that the tests play themselves."""

    def __init__(self, agent: FakeAgent, settings: ProducerSettings | None = None) -> None:
        self.agent = agent
        self.accumulator = Accumulator(settings or ProducerSettings())
        self.session = Session(settings or ProducerSettings(), self.accumulator)
        self.now = 0.0
        self.records: list[tuple[PendingBatch, int]] = []
        self.answers: deque[Answer] = deque()

    def send(self, *values: bytes, partition: int = 0) -> None:
        """One batch."""
        for value in values:
            self.records.append(self.accumulator.append(PLACES[partition], None, value, (), 0, self.now))
        self.accumulator.seal_all()

    def transmit(self) -> list[Request]:
        """Everything that may be sent now is, and the agent answers each; the answers are on their way."""
        if self.session.wants_epoch:
            self.agent.epoch += 1
            self.session.begin_epoch((1, self.agent.epoch))
        requests = []
        while batch := self.session.take():
            requests.append(self.session.request(batch))
            self.answers.append(self.agent.produce(requests[-1]))
        return requests

    def receive(self, count: int | None = None) -> None:
        """Answers arrive: all, or so many."""
        for _ in range(len(self.answers) if count is None else count):
            self._settle(self.session.answered(self.answers.popleft()))

    def end(self) -> None:
        """The stream is over, and answers on their way are lost."""
        self.answers.clear()
        self._settle(self.session.ended(self.now))
        self.agent.open_stream()

    def run(self) -> None:
        """Until everything is settled."""
        while self.accumulator.held:
            sent = self.transmit()
            self.receive()
            if self.session.broken or not sent:
                self.end()

    def outcomes(self) -> list[Delivery | MillstreamError]:
        return [batch.outcome(index) for batch, index in self.records]

    def offsets(self) -> list[int | None]:
        return [outcome.offset if isinstance(outcome, Delivery) else None for outcome in self.outcomes()]

    def _settle(self, settled: list[Settled]) -> None:
        for batch, outcome in settled:
            batch.settle(outcome)
            self.accumulator.release(batch)


def test_batches_are_numbered_by_partition_and_continue() -> None:
    producer = Producer(FakeAgent())
    producer.send(b"a", b"b")
    producer.send(b"c", partition=1)
    producer.send(b"d")
    batches = [next(decode_batches(request.produce.batch)) for request in producer.transmit()]
    assert [batch.producer.base_sequence for batch in batches] == [0, 0, 2]
    producer.receive()
    assert producer.offsets() == [0, 1, 0, 2]


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_a_stream_that_breaks_loses_nothing_and_doubles_nothing(answered: int) -> None:
    producer = Producer(FakeAgent())
    for value in (b"a", b"b", b"c"):
        producer.send(value)
    producer.transmit()
    producer.receive(answered)
    producer.end()
    producer.run()
    assert producer.agent.logs[0] == [b"a", b"b", b"c"]
    assert producer.offsets() == [0, 1, 2]


def test_a_batch_that_may_be_tried_again_keeps_its_place() -> None:
    full = [True]
    agent = FakeAgent(lambda values: FULL if values == [b"b"] and full and full.pop() else None)
    producer = Producer(agent)
    for value in (b"a", b"b", b"c"):
        producer.send(value)
        producer.send(value, partition=1)
    producer.run()
    assert agent.logs == {0: [b"a", b"b", b"c"], 1: [b"a", b"b", b"c"]}


def test_what_stands_behind_a_refused_batch_takes_its_number() -> None:
    agent = FakeAgent(lambda values: REJECTED if b"bad" in values else None)
    producer = Producer(agent)
    for values in ((b"a",), (b"bad", b"x"), (b"b", b"c"), (b"bad",), (b"d",)):
        producer.send(*values)
    producer.send(b"e", partition=1)
    producer.run()
    assert agent.logs == {0: [b"a", b"b", b"c", b"d"], 1: [b"e"]}
    assert producer.offsets() == [0, None, None, 1, 2, None, 3, 0]
    errors = [outcome for outcome in producer.outcomes() if isinstance(outcome, MillstreamError)]
    assert [type(error) for error in errors] == [RecordsRejectedError] * 3
    assert agent.epoch == 0, "no new epoch is needed for that"


def test_a_refused_batch_and_a_broken_stream_together() -> None:
    agent = FakeAgent(lambda values: REJECTED if b"bad" in values else None)
    producer = Producer(agent)
    for value in (b"bad", b"a", b"b"):
        producer.send(value)
    producer.transmit()
    producer.receive(2)
    producer.end()
    producer.run()
    assert agent.logs == {0: [b"a", b"b"]}


def test_a_producer_that_the_agent_forgot_begins_a_new_epoch() -> None:
    producer = Producer(FakeAgent())
    producer.send(b"a")
    producer.run()
    producer.agent.forget()
    producer.send(b"b")
    producer.send(b"c")
    producer.run()
    assert producer.agent.logs[0] == [b"a", b"b", b"c"]
    assert producer.agent.epoch == 1


def test_what_was_given_up_in_doubt_is_never_sent_again() -> None:
    producer = Producer(FakeAgent(), ProducerSettings(delivery_timeout_s=10))
    producer.send(b"a")
    producer.transmit()
    producer.now = 9.0
    producer.send(b"b")
    producer.now = 11.0
    assert producer.session.expire(producer.now)
    producer.end()
    producer.run()
    assert producer.agent.logs[0] == [b"a", b"b"]
    first, second = producer.outcomes()
    assert isinstance(first, DeliveryTimeoutError)
    assert isinstance(second, Delivery)
    assert producer.agent.epoch == 1, "the numbers of what is in doubt are left behind"


def test_what_never_left_is_given_up_in_time() -> None:
    producer = Producer(FakeAgent(), ProducerSettings(delivery_timeout_s=10))
    producer.send(b"a")
    assert producer.session.next_expiry() == 10.0
    producer.now = 10.0
    producer.end()
    assert isinstance(producer.outcomes()[0], DeliveryTimeoutError)
    assert not producer.accumulator.held


def test_a_fenced_producer_sends_nothing_more() -> None:
    agent = FakeAgent()
    producer, other = Producer(agent), Producer(agent)
    producer.send(b"a")
    producer.run()
    other.send(b"b")
    other.run()
    producer.send(b"c")
    producer.send(b"d", partition=1)
    producer.transmit()
    producer.receive(1)
    assert agent.logs[0] == [b"a", b"b"]
    assert all(isinstance(outcome, ProducerFencedError) for outcome in producer.outcomes()[1:])
    assert isinstance(producer.session.fatal, ProducerFencedError)
    producer.receive()


def test_an_error_that_leaves_it_open_is_told_and_begins_a_new_epoch() -> None:
    defect = [refusal(grpc.StatusCode.INTERNAL, "DEFECT")]
    producer = Producer(FakeAgent(lambda values: defect.pop() if values == [b"a"] and defect else None))
    producer.send(b"a")
    producer.send(b"b")
    producer.run()
    assert producer.agent.logs[0] == [b"b"]
    assert producer.agent.epoch == 1


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_order_holds_and_nothing_is_doubled(seed: int) -> None:
    rng = random.Random(seed)

    def refuses(values: list[bytes]) -> Answer | None:
        if rng.random() < 0.1:
            return FULL
        return REJECTED if values[0].endswith(b"7") else None

    producer = Producer(FakeAgent(refuses), ProducerSettings(in_flight_max=rng.randint(1, 8)))
    numbers = iter(range(1000))
    for _ in range(200):
        if rng.random() < 0.5:
            values = [b"%d" % next(numbers) for _ in range(rng.randint(1, 3))]
            producer.send(*values, partition=rng.randrange(2))
        producer.transmit()
        producer.receive(rng.randint(0, len(producer.answers)))
        if rng.random() < 0.2 or (producer.session.broken and not producer.answers):
            producer.end()
    producer.end()
    producer.run()

    for partition, log in producer.agent.logs.items():
        assert log == sorted(log, key=int), f"partition {partition} is out of order"
    sent = dict.fromkeys(PLACES, 0)
    for (batch, _), outcome in zip(producer.records, producer.outcomes(), strict=True):
        sent[batch.place] += isinstance(outcome, Delivery)
        assert isinstance(outcome, Delivery | InvalidArgumentError), f"seed {seed}: {outcome}"
    stored = {place: len(producer.agent.logs.get(place.partition, [])) for place in PLACES}
    assert stored == sent, f"seed {seed}"
    assert producer.agent.epoch == 0, f"seed {seed}"
