"""The position of a worker in its training, and the stacks of its threads. The loop writes it, another thread reads it.

Knows no Ray.
"""

import secrets
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from statistics import median
from time import monotonic

_RECENT_STEPS = 20
_COLLECTIVES = "torch.distributed.distributed_c10d"


class Stage(IntEnum):
    """The stages of a step in their order, between a start and an end that belong to no step."""

    STARTING = 0
    """Until the first step of a start has ended: it warms up, compiles, and reads the first data."""
    WAITING_FOR_DATA = 1
    COMPUTING = 2
    EXCHANGING = 3
    UPDATING = 4
    RECORDING = 5
    SAVING = 6
    ENDING = 7

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Position:
    """`step` counts from 1 and is under way; `in_collective` says that the loop waits for other workers.

    `process` tells a worker from the one that had its rank before; `typical_seconds` is the median of its last steps,
    None before the second has ended.
    """

    process: str
    step: int
    stage: Stage
    in_collective: bool = False
    typical_seconds: float | None = None

    @property
    def progress(self) -> tuple[int, Stage, bool]:
        """How far this is: of workers that hang, the others wait for those that are behind."""
        return self.step, self.stage, self.in_collective

    def __str__(self) -> str:
        return f"{self.stage} in step {self.step}" if self.step else str(self.stage)


class Heartbeat:
    """Made and written by the thread that runs the loop, read by any."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._process = secrets.token_hex(4)
        self._thread = threading.get_ident()
        self._at = (0, Stage.STARTING)
        self._first_step: int | None = None
        self._began = clock()
        self._seconds: deque[float] = deque(maxlen=_RECENT_STEPS)

    def at(self, step: int, stage: Stage) -> None:
        before, _ = self._at
        if self._first_step is None:
            self._first_step = step
        if step != before:
            now = self._clock()
            if before > self._first_step:
                self._seconds.append(now - self._began)
            self._began = now
        self._at = step, stage if step != self._first_step else Stage.STARTING

    def position(self) -> Position:
        step, stage = self._at
        typical = median(tuple(self._seconds)) if self._seconds else None
        return Position(self._process, step, stage, is_in_collective(self._thread), typical)

    def stacks(self) -> str:
        """What every thread of this process is doing, the loop's first."""
        return describe_stacks(first=self._thread)


def is_in_collective(thread: int) -> bool:
    """Whether a thread waits for other workers, as far as Python sees: on a GPU it may wait for the device instead."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_globals.get("__name__") == _COLLECTIVES:
            return True
        frame = frame.f_back
    return False


def describe_stacks(first: int) -> str:
    """The Python stack of every thread but the one that asks, innermost call last; thread `first` comes first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    frames.pop(threading.get_ident())
    parts = []
    for ident in sorted(frames, key=lambda ident: ident != first):
        stack = "".join(traceback.format_stack(frames[ident]))
        parts.append(f"Thread {names.get(ident, ident)}:\n{stack}")
    return "\n".join(parts)
