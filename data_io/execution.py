"""Running the tasks of a long job, one at a time or several at once, and the progress lines that it prints."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Say = Callable[[str], None]
"""Receives one line of text for the user."""
Executor = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[tuple[Any, Any]]]
"""Applies a function to independent tasks, in any order, and yields each task with its result.

The function, the tasks and the results must be picklable. The first error of a task ends the iteration and is raised.
"""
_LINE_SECONDS = 5.0


def silent(_text: str) -> None:
    """A `Say` that drops the text."""


def in_process(function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[T, R]]:
    """An `Executor` that runs the tasks one after another in this process."""
    for task in tasks:
        yield task, function(task)


class ProgressLine:
    """Prints rows, rows per second, share and remaining time of a stage, at most every five seconds.

    `total` is the work of the whole stage in any unit (bytes, rows, row groups). If it is 0, nothing is printed.
    """

    def __init__(self, stage: str, total: int, say: Say, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stage, self._total, self._say, self._clock = stage, total, say, clock
        self._began = self._said = clock()
        self._done = self._rows = 0

    def advance(self, rows: int, amount: int) -> None:
        """Count `rows` more rows, which are `amount` units of `total`."""
        self._rows += rows
        self._done += amount
        now = self._clock()
        if now - self._said < _LINE_SECONDS or not self._total or not self._done:
            return
        self._said = now
        share, seconds = min(1.0, self._done / self._total), now - self._began
        self._say(
            f"{self._stage}: {self._rows:,} rows, {self._rows / seconds:,.0f} rows/s, {share:.0%}, "
            f"about {duration_text(seconds / share - seconds)} left"
        )


def duration_text(seconds: float) -> str:
    """A duration in words: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
