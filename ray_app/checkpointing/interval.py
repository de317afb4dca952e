"""When the next checkpoint is due: after a number of steps, after a time, or at the interval that minimizes lost time.

`auto` follows Young (A first order approximation to the optimum checkpoint interval, 1974) and Daly (2006). With C
seconds of cost per checkpoint and M seconds between failures, an interval of sqrt(2 C M) seconds minimizes lost time. C
is the cost of the last checkpoint, M is the run's mean time between failures so far.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from time import monotonic

from ray_app.job_spec import CheckpointSpec
from ray_app.run_directory.status import Reason, RunStatus

ASSUMED_SECONDS_BETWEEN_FAILURES = 86_400.0
"""The prior: before its first failure a run is assumed to have one failure per day of training."""
SLOWED_BY = 0.1
"""The share of a background save that counts as lost time, because the save takes CPU and network from training."""
_LEAST_SAVES = 10
"""The interval is at least this many times the duration of a save. So at most a tenth of the time is spent saving."""
_FIRST_SECONDS = 60.0
"""The first checkpoint of a run comes early: it measures the cost, and shows whether the store accepts it."""
_FORCED = (Reason.FAILURE, Reason.DRIVER_LOST)
"""Restarts that lose steps. All other restarts begin directly after a checkpoint."""


def best_interval(*, stall_seconds: float, save_seconds: float, seconds_between_failures: float) -> float:
    """The interval between checkpoints that minimizes lost time, in seconds."""
    cost = stall_seconds + SLOWED_BY * save_seconds
    return max(sqrt(2 * cost * seconds_between_failures), _LEAST_SAVES * save_seconds)


def seconds_between_failures(training_seconds: float, restarts_by_reason: Mapping[str, int]) -> float:
    """Mean time between failures of the run, with one failure per day as the prior."""
    failures = sum(restarts_by_reason.get(reason, 0) for reason in _FORCED)
    return (training_seconds + ASSUMED_SECONDS_BETWEEN_FAILURES) / (failures + 1)


@dataclass
class CheckpointInterval:
    """The checkpoint interval of an attempt, on rank 0. Call `due` after each step, and `begun` when a save begins."""

    spec: CheckpointSpec
    clock: Callable[[], float] = monotonic

    def __post_init__(self) -> None:
        self._begun = self.clock()

    def due(self, step: int, status: RunStatus) -> bool:
        """Whether a checkpoint is due after `step`."""
        if self.spec.every_steps is not None:
            return step % self.spec.every_steps == 0
        return self.clock() - self._begun >= self.seconds(status)

    def seconds(self, status: RunStatus) -> float:
        """The interval between two checkpoints if it is a time."""
        if self.spec.every_seconds is not None:
            return self.spec.every_seconds
        if status.checkpoint_stall_seconds is None or status.checkpoint_save_seconds is None:
            return _FIRST_SECONDS
        return best_interval(
            stall_seconds=status.checkpoint_stall_seconds,
            save_seconds=status.checkpoint_save_seconds,
            seconds_between_failures=seconds_between_failures(status.training_seconds, status.restarts_by_reason),
        )

    def begun(self) -> None:
        self._begun = self.clock()
