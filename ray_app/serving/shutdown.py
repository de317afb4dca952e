"""Shutdown of a server: the first SIGTERM or SIGINT lets it answer the accepted requests, a second ends it at once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from time import monotonic
from types import FrameType

from ray_app.signals import hearing

_POLL_SECONDS = 0.05
_QUIET_POLLS = 4


@dataclass(frozen=True)
class Stop:
    """The signals that were received so far."""

    numbers: list[int] = field(default_factory=list)
    once: Event = field(default_factory=Event)
    twice: Event = field(default_factory=Event)

    def wait(self, refuse_new: Callable[[], int], *, seconds: float, say: Callable[[str], None]) -> int:
        """Return the number of the first signal when the server can end: no request is in progress, `seconds` are over,
        or a second signal was received.

        `refuse_new` makes the server refuse new requests and returns the number of requests in progress.
        """
        self.once.wait()
        say("stopping: new requests are refused, accepted requests are answered (interrupt again to stop at once)")
        deadline = monotonic() + seconds
        quiet = 0
        # A request that was already sent at the first poll can still arrive.
        while quiet < _QUIET_POLLS and monotonic() < deadline and not self.twice.is_set():
            quiet = 0 if refuse_new() else quiet + 1
            self.twice.wait(_POLL_SECONDS)
        return self.numbers[0]

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        (self.twice if self.numbers else self.once).set()
        self.numbers.append(number)


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Inside the block SIGTERM and SIGINT are only recorded. Call it from the main thread."""
    stop = Stop()
    with hearing(stop._on_signal):
        yield stop
