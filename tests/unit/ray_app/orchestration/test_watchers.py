"""The driver's actions and log lines at each poll of the monitor."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from data_io.errors import ConfigError, StorageError
from data_io.storage.store import open_store
from ray_app.errors import RunConflict, WorkerLost
from ray_app.job_spec import JobSpec
from ray_app.orchestration.active_run import ActiveRun
from ray_app.orchestration.monitor import View
from ray_app.orchestration.watchers import (
    KeepLease,
    LogProgress,
    NothingToWaitFor,
    RaiseFatal,
    ReportFailure,
    ReportStoreOutage,
    ReportWaitForRoom,
    ShowStatus,
    StopOnSignal,
    Watcher,
    poll_all,
)
from ray_app.run_directory.exit_record import Failure
from ray_app.run_directory.status import Reason, RunStatus, WorkerGroup
from ray_app.signals import Interruption
from tests.support.small_training import small_job_spec

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def view(**changes: Any) -> View:
    nothing: dict[str, Any] = {"status": None, "message": None, "failure": None, "fatal": None}
    return View(**{**nothing, "idle_seconds": 0.0, "waits_for_room": False, **changes})


def status(step: int = 0, **values: Any) -> RunStatus:
    return RunStatus(name="small", step=step, updated=NOW, **values)


@pytest.fixture
def lease() -> Any:
    return SimpleNamespace(holder="this", store_unreachable_since=None, refuse_if_lost=lambda: None)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def run(tmp_path: Path, lease: Any, said: list[str]) -> ActiveRun:
    job_spec = small_job_spec(str(tmp_path / "data"), str(tmp_path / "runs"))
    job_spec["spec"]["workers"] = {"replicas": 3, "min": 2}
    spec, store = JobSpec.model_validate(job_spec["spec"]), open_store(str(tmp_path / "runs"))
    return ActiveRun("small", spec, store, store, status(), lambda status: said.append(status.message), lease)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Any:
    """The event and the fields of each log line so far."""
    caplog.set_level(logging.INFO, "ray_app")
    return lambda: [(each.message, getattr(each, "fields", {})) for each in caplog.records]


def test_a_poll_without_changes_prints_and_logs_nothing(run: ActiveRun, said: list[str], logged: Any) -> None:
    quiet: list[Watcher] = [
        ShowStatus(run),
        LogProgress(run),
        ReportWaitForRoom(run),
        StopOnSignal(run, None, Interruption()),
        ReportStoreOutage(run),
        ReportFailure(run),
        KeepLease(run),
        RaiseFatal(run),
    ]

    for watcher in quiet:
        watcher.poll(view())

    assert (said, logged()) == ([], [])


def test_each_worker_group_and_each_checkpoint_is_logged_once(run: ActiveRun, logged: Any) -> None:
    show, progress = ShowStatus(run), LogProgress(run)
    first = WorkerGroup(attempt=1, time=NOW, step=0, workers=3, reason=Reason.FIRST_START)
    second = WorkerGroup(attempt=2, time=NOW, step=4, workers=2, reason=Reason.FAILURE, message="away", steps_lost=1)

    for seen in (
        status(1, groups=(first,)),
        status(5, groups=(first,), last_checkpoint_step=4, checkpoint_save_seconds=0.25),
        status(5, groups=(first, second), last_checkpoint_step=4),
        status(6, groups=(first, second), last_checkpoint_step=4),
    ):
        show.poll(view(status=seen))
        progress.poll(view())

    assert [(event, lines.get("workers"), lines.get("step")) for event, lines in logged()] == [
        ("workers started", 3, None),
        ("checkpoint written", None, 4),
        ("workers started", 2, None),
    ]
    restarted = logged()[-1][1]
    assert (restarted["reason"], restarted["resume_step"], restarted["error"]) == (Reason.FAILURE, 4, "away")


def test_a_failure_of_the_workers_is_printed_and_logged_once_with_rank_node_and_error(
    run: ActiveRun, said: list[str], logged: Any
) -> None:
    report, failure = ReportFailure(run), Failure(WorkerLost("the process died"), 1, "n7")

    for _ in range(3):
        report.poll(view(failure=failure))
    report.poll(view())

    assert said == ["worker 1 on n7 failed, the workers restart: the process died"]
    ((event, found),) = logged()
    assert (event, found["rank"], found["node"], found["error_class"]) == ("worker failed", 1, "n7", "infrastructure")
    assert run.failure is None


def test_missing_and_found_resources_are_printed_each_time(run: ActiveRun, said: list[str], logged: Any) -> None:
    report = ReportWaitForRoom(run)

    for waits in (True, True, False, False):
        report.poll(view(waits_for_room=waits))

    assert said == ["waiting for resources for 2 workers", ""]
    assert [event for event, _ in logged()] == ["waiting for resources", "resources found"]


def test_a_store_that_stops_answering_is_in_the_status_until_it_answers(
    run: ActiveRun, lease: Any, logged: Any
) -> None:
    report = ReportStoreOutage(run)

    lease.store_unreachable_since = NOW
    report.poll(view())
    assert run.status.store_unreachable_since == NOW
    report.poll(view())
    lease.store_unreachable_since = None
    report.poll(view())

    assert run.status.store_unreachable_since is None
    assert [event for event, _ in logged()] == ["the store is unreachable", "the store is reachable again"]


def test_a_signal_is_passed_on_once_and_workers_that_are_idle_are_not_waited_for(
    run: ActiveRun, said: list[str], logged: Any
) -> None:
    requests: list[str] = []
    monitor = SimpleNamespace(request_stop=SimpleNamespace(remote=lambda: requests.append("stop")))
    interruption = Interruption()
    stop = StopOnSignal(run, monitor, interruption)

    stop.poll(view(idle_seconds=60.0))
    interruption.signal = 15
    for _ in range(2):
        stop.poll(view())
    with pytest.raises(NothingToWaitFor):
        stop.poll(view(idle_seconds=6.0))

    assert requests == ["stop"]
    assert said == ["SIGTERM: writing a checkpoint"]
    assert logged() == [("stop requested", {"signal": "SIGTERM", "step": 0})]


def test_a_fatal_failure_ends_the_run_and_so_does_a_lost_lease(run: ActiveRun, lease: Any) -> None:
    fatal = Failure(ConfigError("wrong"), 0, "n1")

    def lost() -> None:
        raise RunConflict("another driver")

    with pytest.raises(ConfigError):
        RaiseFatal(run).poll(view(fatal=fatal))
    lease.refuse_if_lost = lost
    with pytest.raises(RunConflict):
        KeepLease(run).poll(view())

    assert run.failure is fatal


def test_watchers_are_polled_in_order_and_none_after_the_one_that_ends_the_phase(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monitor = SimpleNamespace(view=SimpleNamespace(remote=view))
    polled: list[int] = []

    def watcher(number: int, error: Exception | None = None) -> Any:
        def poll(_: View) -> None:
            polled.append(number)
            if error is not None:
                raise error

        return SimpleNamespace(poll=poll)

    with pytest.raises(StorageError):
        poll_all([watcher(1), watcher(2, StorageError("away")), watcher(3)], monitor)

    assert polled == [1, 2]
