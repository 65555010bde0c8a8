"""The stubs that are checked in are those of the protos."""

import importlib.util
from pathlib import Path

from conftest import ROOT

SCRIPT = ROOT / "sdk/python/scripts/stubs.py"


def test_checked_in_stubs_equal_what_the_protos_generate(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("stubs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    stubs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stubs)

    stubs.generate(ROOT / "sdk/proto", tmp_path)

    made = {file.name: file.read_text() for file in tmp_path.iterdir()}
    checked_in = {file.name: file.read_text() for file in stubs.CHECKED_IN.glob("*_pb2*")}
    differing = sorted(name for name in made.keys() | checked_in if made.get(name) != checked_in.get(name))
    assert not differing, f"run `make stubs`: {', '.join(differing)} are not as the protos say"
