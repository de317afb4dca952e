"""The heartbeat timeout of a run's driver, from the status and the lease that it writes."""

from datetime import UTC, datetime, timedelta

import pytest

from ray_app.run_directory.status import Phase, RunStatus

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
UNDER_WAY = [phase for phase in Phase if not phase.is_end]


def seconds_ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def status(phase: Phase, *, updated: datetime, **values: int) -> RunStatus:
    return RunStatus.model_validate({"name": "job", "phase": phase, "updated": updated, **values})


@pytest.mark.parametrize("phase", UNDER_WAY)
def test_the_heartbeat_times_out_if_neither_status_nor_lease_was_written_for_a_minute(phase: Phase) -> None:
    found = status(phase, updated=seconds_ago(500))

    assert found.stale_seconds(heartbeat=seconds_ago(420), now=NOW) == 420
    assert found.stale_seconds(heartbeat=None, now=NOW) == 500
    assert status(phase, updated=seconds_ago(59)).stale_seconds(heartbeat=None, now=NOW) is None


@pytest.mark.parametrize("phase", UNDER_WAY)
def test_a_driver_that_writes_its_lease_is_alive_even_if_its_status_is_old(phase: Phase) -> None:
    assert status(phase, updated=seconds_ago(7200)).stale_seconds(heartbeat=seconds_ago(4), now=NOW) is None


def test_a_run_that_has_ended_has_no_heartbeat_timeout() -> None:
    for phase in set(Phase) - set(UNDER_WAY):
        assert status(phase, updated=seconds_ago(1e6)).stale_seconds(heartbeat=seconds_ago(1e6), now=NOW) is None


def test_the_message_about_a_missing_heartbeat_names_the_step_to_resume_from() -> None:
    fresh = status(Phase.TRAINING, updated=NOW)
    saved = status(Phase.TRAINING, updated=NOW, last_checkpoint_step=56)

    assert saved.heartbeat_message(432.0) == "no heartbeat from the driver for 7 min; `f2llm run` resumes from step 56"
    assert fresh.heartbeat_message(3 * 3600.0) == "no heartbeat from the driver for 3 h; `f2llm run` starts from step 0"
