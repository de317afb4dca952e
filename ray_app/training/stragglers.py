"""Stragglers: workers that are slower than the others, by the seconds per token of their own forward passes.

Backward passes do not count, because a worker waits for the others during them.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch

WINDOW = 50
LIMIT = 1.5
"""A straggler takes at least this many times as long per token as the median worker."""
_FEWEST_STEPS = 10


@dataclass(frozen=True)
class ForwardTiming:
    """One rank's forward passes in a step: their seconds and their tokens."""

    seconds: float = 0.0
    tokens: int = 0


class Stopwatch:
    """Adds up the time of `with stopwatch: ...` blocks. On a GPU it is device time, which only `take` reads."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds = 0.0
        self._begin = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __enter__(self) -> None:
        if self._on_gpu:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            self._events.append((begin, end))
            begin.record()
        else:
            self._begin = perf_counter()

    def __exit__(self, *_: object) -> None:
        if self._on_gpu:
            self._events[-1][1].record()
        else:
            self._seconds += perf_counter() - self._begin

    def take(self) -> float:
        """Seconds of all blocks since the previous call. Waits until the GPU has finished them."""
        for begin, end in self._events:
            end.synchronize()
            self._seconds += begin.elapsed_time(end) / 1000
        self._events.clear()
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class Stragglers:
    """The slowness of each rank relative to the median rank, over the last WINDOW steps."""

    def __init__(self) -> None:
        self._steps: deque[Sequence[ForwardTiming]] = deque(maxlen=WINDOW)
        self._warm = False
        self._reported: set[int] = set()
        self.slowness: tuple[float, ...] = ()
        """By rank, 1 for the median. Empty for a single rank, and until enough steps are known."""

    def add(self, by_rank: Sequence[ForwardTiming]) -> None:
        """Add a step. The first step of an attempt is a warm-up and does not count."""
        if self._warm:
            self._steps.append(by_rank)
            self.slowness = self._measure()
        self._warm = True

    def _measure(self) -> tuple[float, ...]:
        if len(self._steps) < _FEWEST_STEPS or len(self._steps[0]) < 2:
            return ()
        ranks = range(len(self._steps[0]))
        seconds = [sum(step[rank].seconds for step in self._steps) for rank in ranks]
        tokens = [sum(step[rank].tokens for step in self._steps) for rank in ranks]
        if not all(tokens):
            return ()
        each = [spent / count for spent, count in zip(seconds, tokens, strict=True)]
        middle = median(each)
        return tuple(round(one / middle, 3) for one in each) if middle else ()

    def newly_found(self) -> list[tuple[int, float]]:
        """(rank, slowness) of ranks that are stragglers over a whole window; each rank is returned once."""
        if len(self._steps) < WINDOW:
            return []
        found = [
            (rank, ratio) for rank, ratio in enumerate(self.slowness) if ratio >= LIMIT and rank not in self._reported
        ]
        self._reported |= {rank for rank, _ in found}
        return found
