"""A checkpoint is due after a number of steps, after a time, or at the interval that minimizes lost time."""

import pytest
from pydantic import ValidationError

from ray_app.checkpointing.interval import (
    ASSUMED_SECONDS_BETWEEN_FAILURES,
    SLOWED_BY,
    CheckpointInterval,
    best_interval,
    seconds_between_failures,
)
from ray_app.job_spec import CheckpointSpec
from ray_app.run_directory.status import Reason, RunStatus

STATUS = RunStatus(name="job")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def interval(every: str) -> tuple[CheckpointInterval, Clock]:
    clock = Clock()
    return CheckpointInterval(CheckpointSpec(every=every), clock), clock


def test_a_number_of_steps_is_counted_from_the_start_of_the_run() -> None:
    every, _ = interval("5 steps")

    assert [step for step in range(1, 17) if every.due(step, STATUS)] == [5, 10, 15]


def test_a_time_is_counted_from_the_start_and_from_each_save() -> None:
    every, clock = interval("2 min")

    clock.now += 119
    assert not every.due(7, STATUS)
    clock.now += 1
    assert every.due(8, STATUS)
    every.begun()
    assert not every.due(9, STATUS)
    clock.now += 120
    assert every.due(99, STATUS)


def test_auto_saves_early_once_and_then_by_the_measured_cost() -> None:
    every, clock = interval("auto")
    clock.now += 60
    assert every.due(1, STATUS)
    every.begun()
    measured = STATUS.model_copy(update={"checkpoint_stall_seconds": 0.5, "checkpoint_save_seconds": 30.0})

    expected = best_interval(
        stall_seconds=0.5, save_seconds=30.0, seconds_between_failures=ASSUMED_SECONDS_BETWEEN_FAILURES
    )
    clock.now += expected - 1
    assert not every.due(2, measured)
    clock.now += 1
    assert every.due(3, measured)


@pytest.mark.parametrize(("stall", "save", "between"), [(0.5, 30.0, 86_400.0), (5.0, 2.0, 3_600.0)])
def test_no_other_interval_loses_less_time(stall: float, save: float, between: float) -> None:
    def lost(seconds: float) -> float:
        """Share of time lost: to checkpoints, and to failures, each of which loses half an interval on average."""
        return (stall + SLOWED_BY * save) / seconds + seconds / 2 / between

    best = best_interval(stall_seconds=stall, save_seconds=save, seconds_between_failures=between)

    others = [lost(best * factor / 100) for factor in range(10, 400) if factor != 100]
    assert lost(best) <= min(others)


def test_at_most_a_tenth_of_the_time_is_spent_saving() -> None:
    assert best_interval(stall_seconds=0.1, save_seconds=60.0, seconds_between_failures=60.0) == 600.0


def test_only_restarts_that_lose_steps_are_failures() -> None:
    willing = {Reason.PREEMPTION: 9, Reason.RESIZE: 9, Reason.STOPPED: 9}

    assert seconds_between_failures(0, {}) == ASSUMED_SECONDS_BETWEEN_FAILURES
    assert seconds_between_failures(3600, willing) == ASSUMED_SECONDS_BETWEEN_FAILURES + 3600
    assert seconds_between_failures(3600, {**willing, Reason.FAILURE: 3, Reason.DRIVER_LOST: 1}) == (
        (ASSUMED_SECONDS_BETWEEN_FAILURES + 3600) / 5
    )


@pytest.mark.parametrize("every", ["auto", "1 step", "500 steps", "10 min", "0.5 min", "1.25 min"])
def test_valid_intervals_are_accepted(every: str) -> None:
    spec = CheckpointSpec(every=every)

    assert (every == "auto") == (spec.every_steps is None and spec.every_seconds is None)
    assert spec.every_steps is None or spec.every_seconds is None


@pytest.mark.parametrize(
    "every", ["", "500", "0 steps", "-1 steps", "0 min", "0.0 min", "10 minutes", "1 h", "1.5 steps"]
)
def test_invalid_intervals_are_rejected(every: str) -> None:
    with pytest.raises(ValidationError):
        CheckpointSpec(every=every)
