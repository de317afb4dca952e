"""What a training loop and whoever started it tell each other. Knows no Ray."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from ray_app.run_directory.exit_record import Failure
from ray_app.run_directory.status import Reason, RunStatus
from ray_app.training.heartbeat import Stage


class Directive(IntEnum):
    """What is wanted of a loop after its step; of several wishes the highest counts, whichever rank heard it."""

    CONTINUE = 0
    SAVE = 1
    """Write a checkpoint and go on."""
    REGROUP = 2
    """Write a checkpoint and end: the run goes on at once with other workers."""
    STOP = 3
    """Write a checkpoint and end: the run ends."""


@dataclass(frozen=True)
class Start:
    """Why a loop was started; `failure` is what ended the workers before, where that is known."""

    reason: Reason
    failure: Failure | None = None


class Control(Protocol):
    """How a loop talks to whoever started it. Every rank calls `directive` once a step; no call may block for long."""

    def at(self, step: int, stage: Stage) -> None:
        """Called by every rank where it goes on to another part of step `step`, counted from 1."""

    def report(self, status: RunStatus) -> None:
        """Called by rank 0 after each step."""

    def directive(self) -> Directive:
        """What is wanted of this rank; the ranks agree on the highest."""
