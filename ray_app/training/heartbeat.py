"""The position of a worker in its training, and the stack traces of its threads.

The loop writes the position and another thread reads it. Does not import Ray.
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
    """The stages of a step in order. STARTING and ENDING do not belong to a step."""

    STARTING = 0
    """Until the end of a worker's first step, which warms up, compiles, and reads the first data."""
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
    """`step` is the current step, counted from 1. `in_collective`: the loop waits for other workers.

    `process` is an id that distinguishes this worker from the previous worker of the same rank. `typical_seconds` is
    the median duration of the last steps, None until the second step has ended.
    """

    process: str
    step: int
    stage: Stage
    in_collective: bool = False
    typical_seconds: float | None = None

    @property
    def progress(self) -> tuple[int, Stage, bool]:
        """Sorts positions. In a hang, the workers with the lowest value block the others."""
        return self.step, self.stage, self.in_collective

    def __str__(self) -> str:
        return f"{self.stage} in step {self.step}" if self.step else str(self.stage)


class Heartbeat:
    """Created and written by the thread that runs the loop; any thread may read it."""

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
        """The stack traces of all threads of this process, the loop's first."""
        return describe_stacks(first=self._thread)


def is_in_collective(thread: int) -> bool:
    """Whether a thread is in a collective, as far as Python can see. On a GPU it may wait for the device instead."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_globals.get("__name__") == _COLLECTIVES:
            return True
        frame = frame.f_back
    return False


def describe_stacks(first: int) -> str:
    """The Python stack of every thread except the caller's, innermost call last; thread `first` comes first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    frames.pop(threading.get_ident())
    parts = []
    for ident in sorted(frames, key=lambda ident: ident != first):
        stack = "".join(traceback.format_stack(frames[ident]))
        parts.append(f"Thread {names.get(ident, ident)}:\n{stack}")
    return "\n".join(parts)
