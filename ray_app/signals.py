"""SIGTERM and SIGINT as requests for a graceful shutdown. Imports only the standard library."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """The first SIGTERM or SIGINT requests a graceful shutdown. A SIGINT after it ends the process at once."""

    signal: int | None = None

    def receive(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def listening() -> Iterator[Interruption]:
    """Record both signals until the block ends. Only for the main thread."""
    interruption = Interruption()
    with hearing(interruption.receive):
        yield interruption


@contextmanager
def hearing(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Send both signals only to `handler` until the block ends. Only for the main thread."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)
