"""The history of workers in the report, after restarts and resizes."""

from datetime import UTC, datetime, timedelta
from typing import Any

from ray_app.reporting.run_record import RunRecord
from ray_app.reporting.worker_history import facts_of_workers, groups_of, workers_over_time
from ray_app.run_directory.status import RunStatus

BEGIN = datetime(2026, 1, 2, tzinfo=UTC)


def event(minute: float, name: str, **facts: Any) -> dict[str, Any]:
    return {"time": at(minute).isoformat(), "event": name, **facts}


def at(minute: float) -> datetime:
    return BEGIN + timedelta(minutes=minute)


EVENTS = (
    event(0, "Started", step=0, workers=2, reason="FirstStart"),
    event(3, "Checkpointed", step=10, stall_seconds=0.5, save_seconds=2.0),
    event(5, "Resumed", step=10, workers=1, reason="Failure", message="a worker died", steps_lost=4,
          failed_at=at(4).isoformat()),
    event(7, "Checkpointed", step=20, stall_seconds=1.5, save_seconds=4.0),
    event(8, "DataRead"),
    event(9, "Resumed", step=20, workers=3, reason="Resize"),
    {"time": "no time at all", "event": "Resumed", "workers": "many"},
)  # fmt: skip


def test_a_group_ends_at_its_failure_or_at_its_end_event() -> None:
    groups = groups_of(EVENTS)

    assert [(g.workers, g.reason, g.steps_lost, g.ended) for g in groups] == [
        (2, "FirstStart", 0, at(4)),
        (1, "Failure", 4, at(8)),
        (3, "Resize", 0, None),
    ]
    assert groups[1].message == "a worker died"


def test_no_workers_run_between_two_groups() -> None:
    assert workers_over_time(groups_of(EVENTS), at(11)) == [(0, 2), (4, 0), (5, 1), (8, 0), (9, 3), (11, 3)]
    assert workers_over_time([], at(1)) == []


def test_a_group_whose_driver_was_lost_ends_at_its_last_event() -> None:
    lost = [EVENTS[0], EVENTS[1], event(60, "Resumed", step=10, workers=2, reason="DriverLost")]

    assert groups_of(lost)[0].ended == at(3)


def test_the_cost_of_restarts_is_shown() -> None:
    status = RunStatus(
        name="job", restarts=2, restarts_by_reason={"Failure": 1, "Resize": 1}, steps_lost=4, goodput=0.75,
        training_seconds=660,
    )  # fmt: skip

    facts = dict(facts_of_workers(RunRecord("run", status=status, events=EVENTS)))

    assert facts == {
        "Goodput": "75.0 % of 11 min spent on steps that were kept",
        "Restarts": "2 (1 Failure, 1 Resize), 4 steps lost",
        "Checkpoints": "2, each written in 3.0 s on average during training; training was blocked for 2.0 s in all",
    }
