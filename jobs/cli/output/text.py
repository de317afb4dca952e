"""Text helpers of the commands: sizes, progress and tables."""

import sys
from collections.abc import Callable, Sequence
from time import monotonic

from data_io.wording import shown

GIB = 2**30
_EVERY_SECONDS = 5.0


def size_text(size: int) -> str:
    """A size in words: 12.3 GiB, 410.0 MiB, 3 KiB."""
    if size >= GIB:
        return f"{size / GIB:.1f} GiB"
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{-(-size // 1024)} KiB"


def say(text: str) -> None:
    """Print one line of progress on standard error."""
    print(shown(text), file=sys.stderr, flush=True)


def say_nothing(_text: str) -> None:
    """In place of `say` with --quiet."""


class Percent:
    """Prints progress at every 10%."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._said = -1

    def __call__(self, done: int, total: int) -> None:
        tenths = 10 if done >= total else 10 * done // total
        if tenths > self._said:
            say(f"{self._what}: {tenths * 10}% of {size_text(total)}")
            self._said = tenths


class EveryFewSeconds:
    """Prints at most one line of progress every few seconds; an `urgent` line is always printed."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._due = 0.0

    def __call__(self, text: str, *, urgent: bool) -> None:
        now = monotonic()
        if urgent or now >= self._due:
            self._tell(text)
            self._due = now + _EVERY_SECONDS


def one_line(text: str, width: int) -> str:
    """A text on one line, cut to `width` characters."""
    words = " ".join(text.split())
    return words if len(words) <= width else f"{words[: width - 3].rstrip()}..."


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """One line per row, with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
