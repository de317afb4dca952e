"""What a training loop and whoever started it tell each other. Knows no Ray."""

from enum import IntEnum
from typing import Protocol

from ray_app.status import RunStatus


class Wish(IntEnum):
    """What is wanted of a loop after its step; of several wishes the highest counts, whichever rank heard it."""

    GO_ON = 0
    REGROUP = 1
    """Write a checkpoint and end: the run goes on at once with other workers."""
    STOP = 2
    """Write a checkpoint and end: the run ends."""


class Control(Protocol):
    """How a loop talks to whoever started it. Every rank calls `wish` once a step; no call may block for long."""

    def report(self, status: RunStatus) -> None:
        """Called by rank 0 after each step."""

    def wish(self) -> Wish:
        """What is wanted of this rank; the ranks agree on the highest."""
