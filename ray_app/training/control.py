"""The interface between a training loop and the process that started it. Does not import Ray."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from ray_app.run_directory.exit_record import Failure
from ray_app.run_directory.status import Reason, RunStatus
from ray_app.training.heartbeat import Stage


class Directive(IntEnum):
    """The loop's next action after a step. If ranks got different directives, the highest one applies."""

    CONTINUE = 0
    SAVE = 1
    """Write a checkpoint and continue."""
    REGROUP = 2
    """Write a checkpoint and exit. The run resumes at once with new workers."""
    STOP = 3
    """Write a checkpoint and exit. The run ends."""


@dataclass(frozen=True)
class Start:
    """Why a loop was started. `failure` is the error that ended the previous workers, None if unknown."""

    reason: Reason
    failure: Failure | None = None


class Control(Protocol):
    """The loop's connection to the process that started it.

    Every rank calls `directive` once per step. No call may block for long.
    """

    def at(self, step: int, stage: Stage) -> None:
        """Called by every rank when it enters a stage of step `step`, counted from 1."""

    def report(self, status: RunStatus) -> None:
        """Called by rank 0 at the start, after each step, and at the end."""

    def directive(self) -> Directive:
        """The directive that this rank received; the ranks agree on the highest one."""
