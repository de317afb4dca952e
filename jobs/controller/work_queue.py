"""A queue of keys as Kubernetes controllers have it: a key waits once however often it is added, is worked at by one
worker at a time, may be put off, and comes back later and later where the work fails.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
_FIRST_SECONDS, _MOST_SECONDS = 0.2, 120.0


class WorkQueue(Generic[Key]):
    """For one event loop; `jitter` gives a factor between 0.5 and 1 by which waits are shortened."""

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
        """Work at the key soon."""
        if key in self._in_hand:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.append(key)
            self._arrived.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Work at the key after a while; of several such calls the last counts."""
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._due, key)

    async def get(self) -> Key:
        """The next key; nobody else gets it before `done` or `failed` is called for it."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        key = self._waiting.popleft()
        self._in_hand.add(key)
        return key

    def done(self, key: Key) -> None:
        """The work went well."""
        self._failures.pop(key, None)
        self._put_down(key)

    def failed(self, key: Key) -> float:
        """The work failed: the key comes back after the seconds that this returns."""
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
