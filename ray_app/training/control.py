"""The interface between a training loop and the process that started it. Does not know Ray."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from ray_app.run_directory.exit_record import Failure
from ray_app.run_directory.status import Reason, RunStatus
from ray_app.training.heartbeat import Stage


class Directive(IntEnum):
    """What a loop is to do after its step. Of several directives the highest counts, whichever rank got it."""

    CONTINUE = 0
    SAVE = 1
    """Write a checkpoint and continue."""
    REGROUP = 2
    """Write a checkpoint and end: the run resumes at once with other workers."""
    STOP = 3
    """Write a checkpoint and end: the run ends."""


@dataclass(frozen=True)
class Start:
    """Why a loop was started; `failure` ended the workers before it, None if unknown."""

    reason: Reason
    failure: Failure | None = None


class Control(Protocol):
    """The loop's connection to its starter. Every rank calls `directive` once per step; no call may block for long."""

    def at(self, step: int, stage: Stage) -> None:
        """Called by every rank when it enters a stage of step `step`, counted from 1."""

    def report(self, status: RunStatus) -> None:
        """Called by rank 0 at the start, after each step, and at the end."""

    def directive(self) -> Directive:
        """The directive that this rank got; the ranks agree on the highest."""
