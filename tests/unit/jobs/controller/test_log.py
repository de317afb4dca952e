"""The operator's log: one line per decision with a change, no other lines, and never a secret."""

import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.controller import __main__ as operator
from jobs.controller import log
from jobs.controller.handlers import _Operator
from jobs.controller.health import Heartbeat
from jobs.controller.reconcile import reconcile
from jobs.controller.work_queue import WorkQueue
from jobs.errors import KubernetesError, StaleObject
from jobs.kube.names import attempt_id
from jobs.kube.observed import Observed
from jobs.kube.status import JobPhase, JobStatus
from jobs.manifests.operator_config import OperatorConfig, Profile
from ray_app.run_directory.status import Phase
from ray_app.structured_log import LogFormat, StructuredFormatter
from tests.support.kubernetes_objects import NOW, UID, failure, pods, ray_cluster, ray_job, resource, said, under_way

SECRET = "the-secret-of-this-test"
SPEC = {"cluster": {"env": {"TOKEN": SECRET}, "profiles": ["pool"]}}
CONFIG = OperatorConfig(profiles={"pool": Profile(env={"PASSWORD": SECRET})})
TRAINS = Observed(ray_job(), ray_cluster(), pods(), said())
HEARTBEAT = CONFIG.driver_heartbeat_timeout_seconds


def failed(*, retryable: bool) -> Observed:
    report = said(Phase.FAILED, failure=failure(retryable=retryable))
    return Observed(ray_job("Failed", jobStatus="FAILED", reason="AppFailed"), None, (), report)


# name -> (status before, observed objects, changes of the job spec, seconds after NOW, the line)
DECISIONS: dict[str, tuple[JobStatus, Observed, dict[str, Any], int, dict[str, Any]]] = {
    "a first attempt": (JobStatus(), Observed(), {}, 0, {"message": "attempt started", "phase": "Starting"}),
    "an attempt made again": (under_way(ray_job_uid="", phase=JobPhase.STARTING), Observed(), {}, 0,
        {"message": "objects created"}),
    "training begins": (under_way(phase=JobPhase.STARTING), TRAINS, {}, 0,
        {"message": "phase changed", "phase_before": "Starting", "phase": "Training"}),
    "scaling": (under_way(phase=JobPhase.TRAINING), TRAINS, {"workers": {"replicas": 5}}, 0,
        {"message": "workers scaled", "cluster": "job-1-abcde", "scale_from": 2, "scale_to": 5}),
    "a stop": (under_way(phase=JobPhase.TRAINING), TRAINS, {"suspend": True}, 0,
        {"message": "stop requested", "phase": "Suspending"}),
    "a stop that took too long": (under_way(phase=JobPhase.SUSPENDING, stop_requested_time="2026-05-04T03:00:00Z"),
        TRAINS, {"suspend": True}, 700, {"message": "attempt deleted", "delete": "RayJob/job-1"}),
    "a failure with a retry": (under_way(phase=JobPhase.TRAINING), failed(retryable=True), {}, 0,
        {"message": "attempt failed", "level": "WARNING", "retry_in_seconds": 10, "error_type": "StorageError"}),
    "a failure without": (under_way(phase=JobPhase.TRAINING), failed(retryable=False), {}, 0,
        {"message": "job finished", "level": "WARNING", "phase": "Failed", "error_class": "data", "error": "bad"}),
    "a success": (under_way(phase=JobPhase.TRAINING),
        Observed(ray_job("Complete", jobStatus="SUCCEEDED"), None, (), said(Phase.SUCCEEDED, step=10)), {}, 0,
        {"message": "job finished", "level": "INFO", "phase": "Succeeded"}),
    "a missed heartbeat": (under_way(phase=JobPhase.TRAINING), TRAINS, {}, HEARTBEAT,
        {"message": "driver heartbeat missed", "level": "WARNING", "missed_since": "2026-05-04T03:12:01Z"}),
    "a job spec that is refused": (JobStatus(), Observed(), {"train": {"micro_batch_size": 500}}, 0,
        {"message": "job refused", "level": "WARNING", "error_class": "user", "error_type": "InvalidJobSpec"}),
}  # fmt: skip

ASKED = "2026-05-04T03:02:00Z"
LATER = "2026-05-04T04:00:00Z"
# name -> (status, observed objects, changes of the job spec)
SETTLED: dict[str, tuple[JobStatus, Observed, dict[str, Any]]] = {
    "waits for quota": (under_way(phase=JobPhase.QUEUED), Observed(ray_job("Suspended")), {}),
    "waits for its pods": (under_way(phase=JobPhase.STARTING),
        Observed(ray_job("Initializing"), ray_cluster(state=""), pods(0, 2)), {}),
    "trains": (under_way(phase=JobPhase.TRAINING), TRAINS, {}),
    "was asked to stop": (under_way(phase=JobPhase.SUSPENDING, stop_requested_time=ASKED),
        Observed(ray_job(), ray_cluster(), pods(), said(), attempt_id(UID, 1)), {"suspend": True}),
    "is suspended": (under_way(active=False, phase=JobPhase.SUSPENDED), Observed(), {"suspend": True}),
    "waits for its next attempt": (under_way(active=False, phase=JobPhase.RETRYING, next_attempt_time=LATER),
        Observed(), {}),
    "has succeeded": (under_way(active=False, phase=JobPhase.SUCCEEDED), Observed(), {}),
}  # fmt: skip


class FakeApi:
    """Has no objects and accepts every write; with `error`, every write raises it."""

    def __init__(self, error: KubernetesError | None = None) -> None:
        self.error = error
        self.stored: JobStatus | None = None

    def get(self, *_: Any, **__: Any) -> None:
        return None

    def replace_status(self, value: Mapping[str, Any]) -> None:
        self._write()
        self.stored = JobStatus.model_validate(value["status"])

    def _write(self, *_: Any, **__: Any) -> None:
        if self.error is not None:
            raise self.error

    apply = create = delete = patch = _write


@contextmanager
def lines_of_operator() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The operator's log of the block, from its JSON lines."""
    stream, logger = io.StringIO(), logging.getLogger("jobs")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(StructuredFormatter(LogFormat.JSON))
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates


def reconciled(
    api: FakeApi, status: JobStatus, observed: Observed, spec: dict[str, Any], seconds: int
) -> list[dict[str, Any]]:
    """The lines of one reconciliation."""
    stored = {**resource({**SPEC, **spec}), "status": status.to_dict()}
    moment = NOW + timedelta(seconds=seconds)
    with lines_of_operator() as lines:
        reconcile(api, CONFIG, stored, lambda *_: observed, now=moment)  # type: ignore[arg-type]
    return lines()


@pytest.mark.parametrize("name", DECISIONS)
def test_a_decision_is_one_line_with_job_attempt_and_reason(name: str) -> None:
    status, observed, spec, seconds, expected = DECISIONS[name]
    api = FakeApi()

    (line,) = reconciled(api, status, observed, spec, seconds)

    assert line | expected == line
    assert line["job"] == "team/job"
    assert api.stored is None or line["attempt"] == api.stored.attempt


@pytest.mark.parametrize("name", SETTLED)
def test_a_reconciliation_that_changes_nothing_logs_nothing(name: str) -> None:
    status, observed, spec = SETTLED[name]
    api = FakeApi()
    reconciled(api, status, observed, spec, 0)  # conditions are filled in

    assert reconciled(api, api.stored or status, observed, spec, 60) == []


def test_steps_and_losses_are_not_logged() -> None:
    api = FakeApi()
    reconciled(api, under_way(phase=JobPhase.TRAINING), TRAINS, {}, 0)

    later = Observed(ray_job(), ray_cluster(), pods(), said(step=6, loss=0.5))

    assert api.stored is not None
    assert reconciled(api, api.stored, later, {}, 60) == []
    assert api.stored.step == 6


@pytest.mark.parametrize("name", DECISIONS)
def test_no_line_contains_a_secret(name: str) -> None:
    status, observed, spec, seconds, _ = DECISIONS[name]

    assert SECRET not in json.dumps(reconciled(FakeApi(), status, observed, spec, seconds))


def test_the_start_up_line_has_version_and_settings_and_of_profiles_the_names() -> None:
    settings = operator._settings(CONFIG, ["team-a"])

    assert {"version", "image", "driver_heartbeat_timeout_seconds"} <= settings.keys()
    assert (settings["namespaces"], settings["profiles"]) == (["team-a"], ["pool"])
    assert SECRET not in json.dumps(settings)


@pytest.mark.parametrize(
    ("error", "logged"), [(KubernetesError("away"), ["reconciliation failed"]), (StaleObject("newer"), [])]
)
def test_an_error_is_one_line_with_its_class_and_a_conflict_none(error: KubernetesError, logged: list[str]) -> None:
    async def fail_once() -> None:
        worker = _Operator(FakeApi(error), CONFIG, (), Heartbeat())  # type: ignore[arg-type]
        worker._queue = WorkQueue()
        worker._cache = SimpleNamespace(job=lambda _: resource(SPEC), of=lambda *_: Observed())  # type: ignore[assignment]
        worker._queue.add(("team", "job"))
        task = asyncio.create_task(worker._work())
        while not worker._queue._failures:
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    with lines_of_operator() as lines:
        asyncio.run(fail_once())

    assert [line["message"] for line in lines()] == logged
    for line in lines():
        assert (line["job"], line["attempt"], line["level"]) == ("team/job", 0, "ERROR")
        assert (line["error_type"], line["error_class"], line["error"]) == ("KubernetesError", "infrastructure", "away")
        assert line["retry_in_seconds"] > 0


def test_a_line_of_kopf_has_the_format_of_the_others_and_names_its_object() -> None:
    record = logging.LogRecord("kopf.objects", logging.WARNING, __file__, 1, "Patching failed", (), None)
    record.k8s_ref = {"kind": "EmbeddingJob", "namespace": "team", "name": "job"}

    log._name_object(record)
    line = StructuredFormatter(LogFormat.TEXT).format(record)

    assert line.endswith("WARNING kopf.objects: Patching failed object=EmbeddingJob/team/job")
