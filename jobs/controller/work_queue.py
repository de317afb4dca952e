"""A work queue of keys, as in Kubernetes controllers. A key waits only once, even if it is added several times; one
worker at a time handles it; it can be delayed; and after failures it is retried with exponential backoff.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
_FIRST_SECONDS, _MOST_SECONDS = 0.2, 120.0


class WorkQueue(Generic[Key]):
    """For one event loop. `jitter` returns a factor between 0.5 and 1 that shortens waits."""

    def __init__(self, *, jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0)) -> None:
        self._waiting: deque[Key] = deque()
        self._in_hand: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._arrived = asyncio.Event()
        self._jitter = jitter

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: Key) -> None:
        """Queue the key now."""
        if key in self._in_hand:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.append(key)
            self._arrived.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Queue the key after a delay. A later call replaces an earlier one."""
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._due, key)

    async def get(self) -> Key:
        """The next key. No other worker gets it until `done` or `failed` is called for it."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        key = self._waiting.popleft()
        self._in_hand.add(key)
        return key

    def done(self, key: Key) -> None:
        """The key was handled successfully."""
        self._failures.pop(key, None)
        self._put_down(key)

    def failed(self, key: Key) -> float:
        """Handling the key failed. It is queued again after the returned number of seconds."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        seconds = min(_MOST_SECONDS, _FIRST_SECONDS * 2.0 ** min(count - 1, 20)) * self._jitter()
        self._put_down(key)
        self.add_after(key, seconds)
        return seconds

    def _put_down(self, key: Key) -> None:
        self._in_hand.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)
