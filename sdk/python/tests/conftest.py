"""What the tests share: agents of their own, and the files that they read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent import Agent

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def binary() -> Path:
    """The binary under test: MILLSTREAM_BIN, else the one of the debug profile."""
    path = Path(os.environ.get("MILLSTREAM_BIN") or ROOT / "target/debug/millstream")
    assert path.is_file(), f"there is no {path}: run `cargo build --bin millstream` first, or set MILLSTREAM_BIN"
    return path.resolve()


@pytest.fixture(scope="session")
def agent(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent that all tests share, each with topics of its own."""
    with Agent(binary, tmp_path_factory.mktemp("agent")) as agent:
        yield agent


@pytest.fixture
def own_agent(binary: Path, tmp_path: Path) -> Iterator[Agent]:
    """An agent for one test, which may end it."""
    with Agent(binary, tmp_path) as agent:
        yield agent


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A name that no other test has."""
    return f"{request.node.name.translate({ord('['): '.', ord(']'): None})}"


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Batches that an independent Kafka client wrote, and what they hold."""
    return ROOT / "sdk/batch/tests/fixtures"


@pytest.fixture(scope="session")
def documents() -> list[bytes]:
    """Real documents, one a line; they are not part of the checkout."""
    path = ROOT.parent / "shared/data/nginxplus.ndjson"
    if not path.is_file():
        pytest.skip("there is no ../shared/data/nginxplus.ndjson")
    return path.read_bytes().splitlines()
