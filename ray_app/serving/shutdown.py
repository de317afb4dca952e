"""How a server ends: at the first SIGTERM or SIGINT when what it accepted is answered, at the second one at once."""

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
    """Which of the two signals have come."""

    numbers: list[int] = field(default_factory=list)
    once: Event = field(default_factory=Event)
    twice: Event = field(default_factory=Event)

    def wait(self, refuse_new: Callable[[], int], *, seconds: float, say: Callable[[str], None]) -> int:
        """Return when the server may end, with the number of the first signal: nothing is under way any more, `seconds`
        are over, or a second signal has come.

        `refuse_new` has new requests refused and gives how many are under way.
        """
        self.once.wait()
        say("stopping: no new requests; those under way are answered (again to end at once)")
        deadline = monotonic() + seconds
        quiet = 0
        # A request that was on its way when the first look was taken may still come.
        while quiet < _QUIET_POLLS and monotonic() < deadline and not self.twice.is_set():
            quiet = 0 if refuse_new() else quiet + 1
            self.twice.wait(_POLL_SECONDS)
        return self.numbers[0]

    def _hear(self, number: int, _: FrameType | None) -> None:
        (self.twice if self.numbers else self.once).set()
        self.numbers.append(number)


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Inside the block the two signals are heard and do nothing else. From the main thread only."""
    stop = Stop()
    with hearing(stop._hear):
        yield stop
