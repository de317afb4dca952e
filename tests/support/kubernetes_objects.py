"""Jobs, RayJobs and pods as Kubernetes returns them, for tests of decisions."""

from datetime import UTC, datetime
from typing import Any

from jobs.kube.driver_report import DriverReport, ReportedFailure
from jobs.kube.names import attempt_id
from jobs.kube.observed import Pod
from jobs.kube.status import JobStatus
from jobs.spec.presets import merged
from ray_app.run_directory.status import Phase, RunStatus
from tests.support.job_specs import job_spec

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
UID = "11111111-2222-3333-4444-555555555555"


def resource(spec: dict[str, Any] | None = None, *, generation: int = 1) -> dict[str, Any]:
    """A stored job."""
    metadata = {"name": "job", "namespace": "team", "uid": UID, "generation": generation}
    stored = job_spec(merged({"storage": {"uri": "s3://bucket/runs"}}, spec or {}), metadata=metadata)
    return {**stored, "spec": merged({"workers": {"replicas": 2}}, stored["spec"])}


def ray_job(deployment: str = "Running", *, uid: str = "ray-job-uid", **status: Any) -> dict[str, Any]:
    """A RayJob in a state of KubeRay's."""
    return {
        "metadata": {"name": "job-1", "uid": uid, "ownerReferences": [{"uid": UID}]},
        "spec": {"suspend": False},
        "status": {"jobDeploymentStatus": deployment, "rayClusterName": "job-1-abcde", **status},
    }


def ray_cluster(replicas: int = 2, *, state: str = "ready", most: int = 16) -> dict[str, Any]:
    group = {"groupName": "workers", "replicas": replicas, "maxReplicas": most}
    return {
        "metadata": {"name": "job-1-abcde"},
        "spec": {"workerGroupSpecs": [group]},
        "status": {"state": state},
    }


def pods(ready: int = 2, waiting: int = 0, *, attempt: int = 1) -> tuple[Pod, ...]:
    """A head, and workers that are ready or wait for a node."""
    head = Pod("head", str(attempt), is_head=True, ready=True)
    workers = [Pod(f"worker-{n}", str(attempt), is_head=False, ready=n < ready) for n in range(ready + waiting)]
    return (head, *workers)


def said(
    phase: Phase = Phase.TRAINING, *, attempt: int = 1, failure: ReportedFailure | None = None, **run: Any
) -> DriverReport:
    """The report of an attempt's driver."""
    values = {"name": "job", "phase": phase, "step": 5, "total_steps": 10, "workers": 2, **run}
    return DriverReport(attempt=attempt_id(UID, attempt), run=RunStatus(**values), reported_at=NOW, failure=failure)


def failure(*, retryable: bool) -> ReportedFailure:
    error = "StorageError" if retryable else "DataError"
    return ReportedFailure(error=error, error_class="data", retryable=retryable, message="bad", remedy="fix it")


def under_way(**values: Any) -> JobStatus:
    """The status of a job whose first attempt is in progress."""
    known = {"observed_generation": 1, "attempt": 1, "active": True, "ray_job_uid": "ray-job-uid"}
    return JobStatus(**{**known, "started_time": "2026-05-04T03:00:00Z", **values})
