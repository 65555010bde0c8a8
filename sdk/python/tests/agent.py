"""An agent as a process of its own, on free ports."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

#: How long a start, an end or a command may take on a busy machine.
PATIENCE_S = 60.0


class Agent:
    """`millstream serve` with a data folder of its own. Started again it keeps folder and address."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary = binary
        self._data_dir = folder / "data"
        self._listen = "127.0.0.1:0"
        self._process: subprocess.Popen[str] | None = None
        self._log_reader: threading.Thread | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self._listen}"

    def start(self) -> None:
        """Starts it, and returns once it serves."""
        addresses = ["--listen", self._listen, "--http", "127.0.0.1:0"]
        command: list[str | Path] = [self.binary, "serve", "--data-dir", self._data_dir, *addresses]
        # Nothing of the caller's settings reaches it.
        env = {name: value for name, value in os.environ.items() if not name.startswith("MILLSTREAM_")}
        self._process = subprocess.Popen(
            command, env=env, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=self._data_dir.parent
        )
        self._listen = self._serving(self._process)

    def _serving(self, process: subprocess.Popen[str]) -> str:
        assert process.stderr is not None, "it is piped"
        log = []
        # One that never serves is ended, which ends its log.
        watchdog = threading.Timer(PATIENCE_S, process.kill)
        watchdog.start()
        for line in process.stderr:
            log.append(line)
            found = re.search(r"serving grpc=(\S+)", line)
            if found:
                watchdog.cancel()
                # Nobody reads on, and a full pipe would stop it.
                self._log_reader = threading.Thread(target=process.stderr.read, daemon=True)
                self._log_reader.start()
                return found[1]
        watchdog.cancel()
        raise AssertionError("the agent did not start:\n" + "".join(log))

    def kill(self) -> None:
        """Ends it as a crash would."""
        self._end(signal.SIGKILL)

    def cli(self, *args: str | Path, stdin: str | None = None) -> str:
        """What a command of the binary prints, with this agent as its server."""
        env = os.environ | {"MILLSTREAM_SERVER": self.url}
        ran = subprocess.run(
            [self.binary, *args], env=env, input=stdin, text=True, capture_output=True, timeout=PATIENCE_S, check=False
        )
        assert ran.returncode == 0, f"{args}: {ran.stderr}"
        return ran.stdout

    def consume(self, topic: str, *args: str) -> list[dict[str, Any]]:
        """The records of a topic as the command line reads them."""
        out = self.cli("consume", topic, "--format", "json", *args)
        return [json.loads(line) for line in out.splitlines()]

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE_S)
            if self._log_reader is not None:
                self._log_reader.join()
            if self._process.stderr is not None:
                self._process.stderr.close()
            self._process = None

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end(signal.SIGTERM)
