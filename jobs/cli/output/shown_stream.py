"""Standard output on which control characters appear as escapes.

Texts of a driver, a pod, a bucket or a data set are printed by most commands. One place for all of them cannot forget
one. Text on standard error has its own places, because progress bars of libraries need control characters there.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from data_io.wording import shown


class ShownStream:
    """A text stream that shows what it writes. All else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(shown(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def shown_output() -> Iterator[None]:
    """Everything that the block prints to standard output is shown."""
    before = sys.stdout
    sys.stdout = ShownStream(before)
    try:
        yield
    finally:
        sys.stdout = before
