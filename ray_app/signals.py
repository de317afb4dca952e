"""SIGTERM and SIGINT as a wish to end in good order. Standard library only."""

import signal
from collections.abc import Callable, Iterator
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
    with hearing(interruption.hear):
        yield interruption


@contextmanager
def hearing(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Both signals go to `handler` until the block ends, and nowhere else; in the main thread only."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)
