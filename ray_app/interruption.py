"""SIGTERM and SIGINT as a wish to end in good order. Standard library only."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """The first SIGTERM or SIGINT: a wish to end in good order. A second SIGINT ends at once."""

    signal: int | None = None

    def hear(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def listening() -> Iterator[Interruption]:
    """Hear both signals until the block ends; in the main thread only."""
    interruption = Interruption()
    before = {number: signal.signal(number, interruption.hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
