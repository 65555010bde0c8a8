"""What the README shows works."""

from __future__ import annotations

import ast
import re

import pytest
from agent import Agent
from conftest import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "sdk/python/README.md").read_text(), re.DOTALL)


def test_the_five_minutes_print_a_thousand_records(
    own_agent: Agent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MILLSTREAM_SERVER", own_agent.url)
    exec(BLOCKS[0], {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1_000
    assert "b'customer-7'" in "".join(lines)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_is_python(block: str) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compile(block, "README.md", "exec", flags=flags)
