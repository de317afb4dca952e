"""How a long task is run, one piece at a time or several at once, and what it says in the meantime."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

P = TypeVar("P")
R = TypeVar("R")

Say = Callable[[str], None]
"""Takes a line of text for a person."""
Executor = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[tuple[Any, Any]]]
"""Applies a function to independent pieces in any order, yields each piece with its result. All of it must pickle."""
_LINE_SECONDS = 5.0


def silent(_text: str) -> None:
    """A `Say` that drops the text."""


def in_process(function: Callable[[P], R], pieces: Iterable[P]) -> Iterator[tuple[P, R]]:
    """A `Executor` that does one piece after the other, here."""
    for piece in pieces:
        yield piece, function(piece)


class Pace:
    """Says how fast something goes and how long it will still take, at most every few seconds."""

    def __init__(self, what: str, total_bytes: int, say: Say, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._total, self._say, self._clock = what, total_bytes, say, clock
        self._began = self._said = clock()
        self._bytes = self._rows = 0

    def __call__(self, rows: int, size: int) -> None:
        """`rows` more are done, which are `size` of the bytes in all."""
        self._rows += rows
        self._bytes += size
        now = self._clock()
        if now - self._said < _LINE_SECONDS or not self._total or not self._bytes:
            return
        self._said = now
        share, seconds = min(1.0, self._bytes / self._total), now - self._began
        self._say(
            f"{self._what}: {self._rows:,} rows, {self._rows / seconds:,.0f} rows/s, {share:.0%}, "
            f"about {duration_text(seconds / share - seconds)} left"
        )


def duration_text(seconds: float) -> str:
    """Seconds as people say them: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
