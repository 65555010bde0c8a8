"""Waiting for something to change, within one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Signal:
    """Wakes everybody who waits, each time it is given."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[bool]] = set()

    def give(self) -> None:
        """Wakes who waits now."""
        for waiter in self._waiters:
            _wake(waiter, True)

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Waits for the next time; False where the timeout came first."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        # `asyncio.wait_for` loses a cancellation that comes together with the signal, before Python 3.12.
        timer = None if timeout_s is None else loop.call_later(timeout_s, _wake, waiter, False)
        self._waiters.add(waiter)
        try:
            return await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()

    async def wait_for(self, ready: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Waits until something holds, looking each time; whether it does."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while not ready():
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                return False
            await self.wait(left)
        return True


def _wake(waiter: asyncio.Future[bool], given: bool) -> None:
    if not waiter.done():
        waiter.set_result(given)
