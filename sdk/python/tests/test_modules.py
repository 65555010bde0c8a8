"""What modules do to records, as producers are told."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from agent import Agent
from conftest import ROOT

from millstream import (
    Admin,
    AlreadyExistsError,
    AsyncProducer,
    Consumer,
    ConsumerSettings,
    Delivery,
    Fate,
    InvalidArgumentError,
    Producer,
    RecordsRejectedError,
)

LINE = b'83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /a.png HTTP/1.1" 200 203023 "http://x.org/" "Mozilla/5.0"'
NO_LINE = b"not a line of a log"


@pytest.fixture(scope="module")
def access_log(binary: Path, agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The ready-made module of that name, deployed."""
    component = tmp_path_factory.mktemp("modules") / "access-log.wasm"
    # Where `make test` has built it already.
    env = os.environ | {"CARGO_TARGET_DIR": str(binary.parents[1] / "modules")}
    build: list[str | Path] = [binary, "module", "build", ROOT / "modules/access-log", "-o", component]
    subprocess.run(build, env=env, check=True, capture_output=True)
    with Admin(agent.url) as admin:
        deployed = admin.deploy_module("access-log", component.read_bytes())
        assert (deployed.module.version, deployed.created) == (1, True)
        assert [module.name for module in admin.modules()] == ["access-log"]
    return "access-log"


def bind(agent: Agent, topic: str, module: str, unparsed: str) -> None:
    with Admin(agent.url) as admin:
        admin.create_topic(topic, 1)
        pipeline = admin.add_stage(topic, "produce", module, params={"unparsed": unparsed})
        assert (pipeline.version, pipeline.produce[0].module) == (1, module)


def test_a_rejected_record_is_told_why_and_the_others_of_its_batch_that_it_was_not_them(
    agent: Agent, access_log: str, topic: str
) -> None:
    bind(agent, topic, access_log, "reject")
    producer = Producer(agent.url)
    sent = [producer.send(topic, value, partition=0) for value in (LINE, NO_LINE, LINE)]
    with pytest.raises(RecordsRejectedError) as told:
        producer.flush()
    assert told.value.reason == "RECORDS_REJECTED"
    assert not told.value.retryable
    errors = [delivery.exception(0) for delivery in sent]
    assert all(isinstance(error, RecordsRejectedError) for error in errors)
    reasons = [error.own_reason for error in errors if isinstance(error, RecordsRejectedError)]
    assert (reasons[0], reasons[2]) == (None, None)
    assert reasons[1]
    # Nothing of the batch is stored, and the producer goes on.
    assert producer.send(topic, LINE, partition=0).result(10).offset == 0
    producer.close()


def test_a_rejected_record_is_told_in_asyncio(agent: Agent, access_log: str, topic: str) -> None:
    bind(agent, topic, access_log, "reject")

    async def produce() -> Delivery:
        async with AsyncProducer(agent.url) as producer:
            refused = await producer.send(topic, NO_LINE)
            with pytest.raises(RecordsRejectedError, match="access-log@1"):
                await refused
            return await (await producer.send(topic, LINE))

    assert asyncio.run(produce()).offset == 0


def test_many_rejected_batches_stand_in_nobodys_way(agent: Agent, access_log: str, topic: str) -> None:
    bind(agent, topic, access_log, "reject")
    with Producer(agent.url) as producer:
        sent = []
        for number in range(200):
            sent.append(producer.send(topic, NO_LINE if number % 3 == 0 else LINE, partition=0))
            # Each record is a batch of its own, and many are under way.
            with producer._changed:
                producer._core.accumulator.seal_all()
                producer._changed.notify_all()
        offsets = []
        for number, delivery in enumerate(sent):
            error = delivery.exception(10)
            assert (error is not None) == (number % 3 == 0)
            if error is None:
                offsets.append(delivery.result().offset)
    assert offsets == list(range(len(offsets)))
    with Consumer(agent.url, topics=[topic], settings=ConsumerSettings(stop_at_end=True)) as consumer:
        assert len(list(consumer)) == len(offsets)


def test_a_dropped_record_has_no_offset(agent: Agent, access_log: str, topic: str) -> None:
    bind(agent, topic, access_log, "drop")
    with Producer(agent.url) as producer:
        sent = [producer.send(topic, value, partition=0) for value in (LINE, NO_LINE, LINE, NO_LINE)]
        deliveries = [delivery.result(10) for delivery in sent]
    assert [(one.offset, one.stored) for one in deliveries] == [(0, 1), (None, 0), (1, 1), (None, 0)]
    assert {(one.fate, one.pipeline_version) for one in deliveries} == {(Fate.PIPELINE, 1)}


def test_pipelines_and_modules_are_administered(agent: Agent, access_log: str, topic: str) -> None:
    bind(agent, topic, access_log, "keep")
    with Admin(agent.url) as admin:
        with pytest.raises(InvalidArgumentError, match="unparsed"):
            admin.add_stage(topic, "fetch", access_log, params={"unparsed": "nonsense"})
        assert admin.pause_pipeline(topic, "produce").paused
        assert not admin.resume_pipeline(topic, "produce").paused
        found = admin.pipeline(topic)
        assert [stage.module for stage in found.pipeline.produce] == [access_log]
        assert not admin.remove_stage(topic, "produce", 0).produce
        with pytest.raises(AlreadyExistsError):
            admin.create_topic(topic, 1)
