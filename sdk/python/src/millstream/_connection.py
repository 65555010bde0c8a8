"""Channels to an agent, and calls on them: what a call asks and how its answer is read is the same for both kinds."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import Message

from millstream import errors
from millstream.errors import MillstreamError

DEFAULT_SERVER = "http://127.0.0.1:7070"
#: How long a call may take, where nothing else is said.
CALL_TIMEOUT_S = 60.0
#: Waits between two tries of a call or of a stream.
PAUSE_MIN_S, PAUSE_MAX_S = 0.05, 2.0

#: Bound on a message: a batch may be four times its size once its records are decompressed, a module has 64 MiB.
_MESSAGE_BYTES_MAX = 96 << 20
_OPTIONS = [
    ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    # An agent that is gone without a word is noticed.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    # One that comes back is found soon, and nobody else's failures are waited for.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", int(PAUSE_MAX_S * 1000)),
    ("grpc.use_local_subchannel_pool", 1),
]

A = TypeVar("A", bound=Message)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Call(Generic[A, R]):
    """One call: what is asked, and what the caller gets of the answer."""

    method: str
    request: Message
    answer: type[A]
    read: Callable[[A], R]

    def on(self, channel: Any) -> Any:
        """The method on a channel of either kind."""
        return channel.unary_unary(
            f"/millstream.v1.{self.method}",
            request_serializer=type(self.request).SerializeToString,
            response_deserializer=self.answer.FromString,
        )


def target(server: str | None) -> tuple[str, str]:
    """The address of a server as a URL, and as gRPC wants it. Without one: MILLSTREAM_SERVER, else 127.0.0.1:7070."""
    url = server or os.environ.get("MILLSTREAM_SERVER") or DEFAULT_SERVER
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.netloc or parts.path not in ("", "/"):
        raise ValueError(f"{url!r} is no server address; give one like {DEFAULT_SERVER}")
    return f"http://{parts.netloc}", parts.netloc


class Pauses:
    """How long to wait before the next try: each time twice as long, and no shorter than the agent asks for."""

    def __init__(self) -> None:
        self._next_s = PAUSE_MIN_S

    def reset(self) -> None:
        """Something succeeded."""
        self._next_s = PAUSE_MIN_S

    def after(self, error: MillstreamError | None) -> float:
        """The wait after a failure."""
        asked = (error.retry_after_s if error else None) or 0.0
        pause = max(self._next_s, min(asked, PAUSE_MAX_S))
        self._next_s = min(self._next_s * 2, PAUSE_MAX_S)
        return pause


class Connection:
    """A channel and the calls on it."""

    def __init__(self, server: str | None) -> None:
        self.server, address = target(server)
        self.channel = grpc.insecure_channel(address, options=_OPTIONS)

    def call(self, call: Call[A, R], timeout_s: float = CALL_TIMEOUT_S) -> R:
        """Calls once."""
        try:
            return call.read(call.on(self.channel)(call.request, timeout=timeout_s))
        except grpc.RpcError as error:
            raise errors.from_call(error, self.server) from None

    def call_until(self, call: Call[A, R], deadline: float, wait: Callable[[float], object] = time.sleep) -> R:
        """Calls until it succeeds, fails for good, or the deadline of the monotonic clock has passed."""
        pauses = Pauses()
        while True:
            try:
                return self.call(call, max(deadline - time.monotonic(), PAUSE_MIN_S))
            except MillstreamError as error:
                pause = pauses.after(error)
                if not error.retryable or time.monotonic() + pause > deadline:
                    raise
            wait(pause)

    def close(self) -> None:
        """Ends everything that is under way on it."""
        self.channel.close()


class AsyncConnection:
    """The same for asyncio."""

    def __init__(self, server: str | None) -> None:
        self.server, address = target(server)
        self.channel = grpc.aio.insecure_channel(address, options=_OPTIONS)

    async def call(self, call: Call[A, R], timeout_s: float = CALL_TIMEOUT_S) -> R:
        """Calls once."""
        try:
            return call.read(await call.on(self.channel)(call.request, timeout=timeout_s))
        except grpc.RpcError as error:
            raise errors.from_call(error, self.server) from None

    async def call_until(self, call: Call[A, R], deadline: float) -> R:
        """Calls until it succeeds, fails for good, or the deadline of the monotonic clock has passed."""
        pauses = Pauses()
        while True:
            try:
                return await self.call(call, max(deadline - time.monotonic(), PAUSE_MIN_S))
            except MillstreamError as error:
                pause = pauses.after(error)
                if not error.retryable or time.monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Ends everything that is under way on it."""
        await self.channel.close()
