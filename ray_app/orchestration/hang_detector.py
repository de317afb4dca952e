"""Detects that workers hang, and which of them block the others. Pure functions of reports and of a clock argument.

A single worker cannot detect a hang: all but one worker wait in a collective, as in every step. So each worker reports
its position every few seconds. A hang is a step that takes much longer than a typical step. Expected slow stages are
not hangs: the start with its first step, a checkpoint and the end. This holds only while all workers answer.

A hang is resolved in two stages. First, workers are asked for their stack traces. When all workers that answer have
sent them and the driver has collected them, each worker ends its own process. The driver kills workers that do not
answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from time import monotonic

from data_io.storage.store import OUTAGE_SECONDS
from ray_app.training.heartbeat import Position, Stage

_TIMES_TYPICAL = 10
_FLOOR_SECONDS = 60.0
_STORE_FLOOR_SECONDS = OUTAGE_SECONDS + 30
"""The limit while a worker waits for the store: it waits for the end of an outage, and a restart would not help."""
_UNRESPONSIVE_SECONDS = 10.0
_SHOW_SECONDS = 10.0
"""How long to wait for stack traces."""
_MOST_NAMED = 8

_EXPECTED_SLOW = (Stage.STARTING, Stage.SAVING, Stage.ENDING)
_AT_THE_STORE = (Stage.WAITING_FOR_DATA, Stage.RECORDING)


class Order(Enum):
    """The answer to a worker's report: what to do next."""

    CONTINUE = auto()
    SHOW_STACKS = auto()
    END = auto()
    """End the process at once: no exception can be raised inside a collective."""


@dataclass(frozen=True)
class Hang:
    """`step` did not end. `places`: the last position of each rank, None if it never reported. `stacks`: the stack
    traces of the ranks that answered.
    """

    step: int
    seconds: float
    limit_seconds: float
    places: Mapping[int, Position | None]
    stacks: Mapping[int, str]

    @property
    def unresponsive(self) -> list[int]:
        """Ranks that did not answer: their process is stopped or gone, or in code that holds the interpreter lock."""
        return [rank for rank in self.places if rank not in self.stacks]

    @property
    def blocking(self) -> list[int]:
        """Ranks that block the others; empty if all are at the same position."""
        if self.unresponsive:
            return self.unresponsive
        progress = {rank: place.progress for rank, place in self.places.items() if place is not None}
        least = min(progress.values())
        last = [rank for rank, each in progress.items() if each == least]
        return last if len(last) < len(progress) else []

    def __str__(self) -> str:
        told = f"step {self.step} did not end within {self.seconds:.0f} s (limit {self.limit_seconds:.0f} s)"
        if not self.blocking:
            return f"{told}: all workers are at the same position, {self.places[0]}"
        verb = "does not answer, last seen" if self.unresponsive else "is still"
        who = [
            f"worker {rank} {verb} {self.places[rank] or 'before its start'}" for rank in self.blocking[:_MOST_NAMED]
        ]
        more = len(self.blocking) - len(who)
        return f"{told}: {', '.join(who)}" + (f" and {more} more" if more else "")


class HangDetector:
    """Watches one group of workers at a time. `timeout_seconds` replaces the limit that follows from typical steps."""

    def __init__(self, timeout_seconds: float | None = None, clock: Callable[[], float] = monotonic) -> None:
        self._timeout, self._clock = timeout_seconds, clock
        self._workers = 0
        self._places: dict[int, Position] = {}
        self._last_beat: dict[int, float] = {}
        self._step, self._since = 0, 0.0
        self._hang: Hang | None = None
        self._found, self._taken = 0.0, False

    def begin(self, workers: int, *, after_seconds: float = 0.0) -> None:
        """A new group starts; its rank 0 first waits `after_seconds`."""
        start = self._clock() + after_seconds
        self._workers, self._places = workers, {}
        self._last_beat = dict.fromkeys(range(workers), start)
        self._step, self._since = 0, start
        self._hang, self._taken = None, False

    def end(self) -> None:
        """The group ended by itself. A suspected hang is dropped, unless the driver has already collected it."""
        self._workers = 0
        if not self._taken:
            self._hang = None

    def beat(self, rank: int, place: Position) -> Order:
        """Record a heartbeat of rank `rank`."""
        hang = self._hang
        if hang is not None:
            known = hang.places.get(rank)
            if known is None or known.process != place.process:
                return Order.CONTINUE  # a worker of the next group
            return Order.END if self._taken else Order.SHOW_STACKS
        if rank < self._workers:
            self._places[rank], self._last_beat[rank] = place, self._clock()
            self.look()
        return Order.CONTINUE

    def show(self, rank: int, place: Position, stacks: str) -> None:
        """Record the stack traces of a rank, and its position at that time."""
        hang = self._hang
        if hang is not None and rank in hang.places:
            self._hang = replace(hang, places={**hang.places, rank: place}, stacks={**hang.stacks, rank: stacks})

    def look(self) -> None:
        """Check whether the workers hang."""
        if not self._workers or self._hang is not None:
            return
        now = self._clock()
        newest = max((place.step for place in self._places.values()), default=0)
        if newest > self._step:
            self._step, self._since = newest, now
        limit = self._limit(now)
        # An expected slow stage extends the limit only while all workers answer.
        answering = all(now - beat <= limit for beat in self._last_beat.values())
        if answering and any(stage in _EXPECTED_SLOW for stage in self._stages(now)):
            self._since = now
        if now - self._since > limit:
            places = {rank: self._places.get(rank) for rank in range(self._workers)}
            self._hang, self._found = Hang(self._step, now - self._since, limit, places, {}), now

    def take(self) -> Hang | None:
        """The hang, returned once, when its stack traces are complete. After that, its workers are told to end."""
        self.look()
        if self._hang is None or self._taken or not self._is_settled(self._hang):
            return None
        self._taken = True
        return self._hang

    def _limit(self, now: float) -> float:
        if self._timeout is not None:
            return self._timeout
        typical = max((place.typical_seconds or 0.0 for place in self._places.values()), default=0.0)
        at_the_store = any(stage in _AT_THE_STORE for stage in self._stages(now))
        return max(_STORE_FLOOR_SECONDS if at_the_store else _FLOOR_SECONDS, _TIMES_TYPICAL * typical)

    def _stages(self, now: float) -> Sequence[Stage]:
        """The stages of the ranks that have a recent heartbeat."""
        places = self._places.items()
        return [place.stage for rank, place in places if now - self._last_beat[rank] <= _UNRESPONSIVE_SECONDS]

    def _is_settled(self, hang: Hang) -> bool:
        if self._clock() - self._found > _SHOW_SECONDS:
            return True
        answering = [rank for rank in hang.places if self._found - self._last_beat[rank] <= _UNRESPONSIVE_SECONDS]
        return all(rank in hang.stacks for rank in answering)
