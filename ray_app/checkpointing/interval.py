"""When the next checkpoint is due: after so many steps, after so much time, or when it loses least.

`auto` follows Young (A first order approximation to the optimum checkpoint interval, 1974) and Daly (2006): with C
seconds that a checkpoint costs and M seconds between failures, training loses least where it writes one every
sqrt(2 C M) seconds. C is what was measured of the last one, M what was seen of the run so far.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from time import monotonic

from ray_app.job_spec import CheckpointSpec
from ray_app.run_directory.status import Reason, RunStatus

ASSUMED_SECONDS_BETWEEN_FAILURES = 86_400.0
"""What is known of failures before there was one: a day of training with one in it counts as seen beforehand."""
SLOWED_BY = 0.1
"""The part of a save beside training that counts as lost, since it takes cores and network from training."""
_LEAST_SAVES = 10
"""A save is under way for at most a tenth of the time, however often nodes fail."""
_FIRST_SECONDS = 60.0
"""The first checkpoint of a run comes early: it measures, and shows whether the store takes it."""
_FORCED = (Reason.FAILURE, Reason.DRIVER_LOST)
"""Restarts that lose steps; the others begin behind a checkpoint."""


def best_interval(*, stall_seconds: float, save_seconds: float, seconds_between_failures: float) -> float:
    """Seconds between checkpoints that lose least, in seconds."""
    cost = stall_seconds + SLOWED_BY * save_seconds
    return max(sqrt(2 * cost * seconds_between_failures), _LEAST_SAVES * save_seconds)


def seconds_between_failures(training_seconds: float, restarts_by_reason: Mapping[str, int]) -> float:
    """What the run has seen, with one failure a day as what was known before."""
    failures = sum(restarts_by_reason.get(reason, 0) for reason in _FORCED)
    return (training_seconds + ASSUMED_SECONDS_BETWEEN_FAILURES) / (failures + 1)


@dataclass
class CheckpointInterval:
    """Rank 0's, one an attempt. Ask `due` once a step, and say when a save begins."""

    spec: CheckpointSpec
    clock: Callable[[], float] = monotonic

    def __post_init__(self) -> None:
        self._begun = self.clock()

    def due(self, step: int, status: RunStatus) -> bool:
        """Whether there is to be a checkpoint after `step`."""
        if self.spec.every_steps is not None:
            return step % self.spec.every_steps == 0
        return self.clock() - self._begun >= self.seconds(status)

    def seconds(self, status: RunStatus) -> float:
        """What is between two checkpoints, where that is a time."""
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
