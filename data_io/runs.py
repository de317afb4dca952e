"""What is worth one request, of things that lie in a row."""

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def split_runs(items: Iterable[T], joins: Callable[[list[T], T], bool]) -> list[list[T]]:
    """Items in their order, in runs: `joins(run, item)` says whether the item goes on the run before it."""
    runs: list[list[T]] = []
    for item in items:
        if runs and joins(runs[-1], item):
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs
