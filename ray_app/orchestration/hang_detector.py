"""When workers hang, and which of them the others wait for. Pure: what workers say goes in, what they are to do comes
out; the clock is an argument.

No single worker can tell: in a hang all but one wait in a collective, as they do in every step. So each says every few
seconds where it is, and a hang is a step that does not end for much longer than steps take. What is slow for a reason
is none: a start with its first step, a checkpoint, an end, unless a worker does not even answer. A hang ends in two
moves: workers are asked for their stacks, and once all that answer have given them and the driver has taken them, each
ends its own process. One that does not answer is for the driver to kill.
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
"""Where a worker waits for the store: an outage is waited out, and starting again would not end it."""
_SILENT_SECONDS = 10.0
_SHOW_SECONDS = 10.0
"""For how long stacks are waited for."""
_MOST_NAMED = 8

_SLOW_FOR_A_REASON = (Stage.STARTING, Stage.SAVING, Stage.ENDING)
_AT_THE_STORE = (Stage.WAITING_FOR_DATA, Stage.RECORDING)


class Order(Enum):
    """What a worker is to do when it has said where it is."""

    CONTINUE = auto()
    SHOW_STACKS = auto()
    END = auto()
    """At once, whatever its loop is in: from inside a collective nothing can be raised."""


@dataclass(frozen=True)
class Hang:
    """`step` did not end; `places` is where each rank was last seen, None where it was never heard; `stacks` are of the
    ranks that answered.
    """

    step: int
    seconds: float
    limit_seconds: float
    places: Mapping[int, Position | None]
    stacks: Mapping[int, str]

    @property
    def silent(self) -> list[int]:
        """Ranks that did not answer: stopped, gone, or in code that holds the interpreter."""
        return [rank for rank in self.places if rank not in self.stacks]

    @property
    def behind(self) -> list[int]:
        """Ranks that the others wait for; empty where all are at the same place."""
        if self.silent:
            return self.silent
        progress = {rank: place.progress for rank, place in self.places.items() if place is not None}
        least = min(progress.values())
        behind = [rank for rank, each in progress.items() if each == least]
        return behind if len(behind) < len(progress) else []

    def __str__(self) -> str:
        told = f"step {self.step} did not end within {self.seconds:.0f} s (limit {self.limit_seconds:.0f} s)"
        if not self.behind:
            return f"{told}: all workers are at the same place, {self.places[0]}"
        verb = "does not answer, last seen" if self.silent else "is still"
        who = [f"worker {rank} {verb} {self.places[rank] or 'before its start'}" for rank in self.behind[:_MOST_NAMED]]
        more = len(self.behind) - len(who)
        return f"{told}: {', '.join(who)}" + (f" and {more} more" if more else "")


class HangDetector:
    """Watches one group of workers at a time. `timeout_seconds` takes the place of a limit made from typical steps."""

    def __init__(self, timeout_seconds: float | None = None, clock: Callable[[], float] = monotonic) -> None:
        self._timeout, self._clock = timeout_seconds, clock
        self._workers = 0
        self._places: dict[int, Position] = {}
        self._heard: dict[int, float] = {}
        self._step, self._since = 0, 0.0
        self._hang: Hang | None = None
        self._found, self._taken = 0.0, False

    def begin(self, workers: int, *, after_seconds: float = 0.0) -> None:
        """A new group starts, and rank 0 waits for so long first."""
        start = self._clock() + after_seconds
        self._workers, self._places = workers, {}
        self._heard = dict.fromkeys(range(workers), start)
        self._step, self._since = 0, start
        self._hang, self._taken = None, False

    def end(self) -> None:
        """The group ends by itself, and what looked like a hang is none; one that was taken goes its way."""
        self._workers = 0
        if not self._taken:
            self._hang = None

    def hear(self, rank: int, place: Position) -> Order:
        """Rank `rank` is there."""
        hang = self._hang
        if hang is not None:
            known = hang.places.get(rank)
            if known is None or known.process != place.process:
                return Order.CONTINUE  # one of the next group
            return Order.END if self._taken else Order.SHOW_STACKS
        if rank < self._workers:
            self._places[rank], self._heard[rank] = place, self._clock()
            self.look()
        return Order.CONTINUE

    def show(self, rank: int, place: Position, stacks: str) -> None:
        """Take the stacks of a rank, and where it was when they were taken."""
        hang = self._hang
        if hang is not None and rank in hang.places:
            self._hang = replace(hang, places={**hang.places, rank: place}, stacks={**hang.stacks, rank: stacks})

    def look(self) -> None:
        """Find out whether the workers hang."""
        if not self._workers or self._hang is not None:
            return
        now = self._clock()
        newest = max((place.step for place in self._places.values()), default=0)
        if newest > self._step:
            self._step, self._since = newest, now
        limit = self._limit(now)
        # A worker that has not answered for so long is no reason to wait, nor does another's reason excuse it.
        answering = all(now - heard <= limit for heard in self._heard.values())
        if answering and any(stage in _SLOW_FOR_A_REASON for stage in self._stages(now)):
            self._since = now
        if now - self._since > limit:
            places = {rank: self._places.get(rank) for rank in range(self._workers)}
            self._hang, self._found = Hang(self._step, now - self._since, limit, places, {}), now

    def take(self) -> Hang | None:
        """The hang, once, when everything that will be known of it is known; from then on its workers are to end."""
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
        """Of the ranks that were heard just now."""
        return [place.stage for rank, place in self._places.items() if now - self._heard[rank] <= _SILENT_SECONDS]

    def _is_settled(self, hang: Hang) -> bool:
        if self._clock() - self._found > _SHOW_SECONDS:
            return True
        answering = [rank for rank in hang.places if self._found - self._heard[rank] <= _SILENT_SECONDS]
        return all(rank in hang.stacks for rank in answering)
