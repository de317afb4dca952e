"""Jobs in real pods: small ones to submit, to wait for and to compare with the same document without Kubernetes."""

import json
import logging
from pathlib import Path
from typing import Any

from jobs.job_status import JobPhase, JobStatus, status_of
from tests.support.operator import wait_for
from tests.support.plain_workers import train_in_processes
from tests.support.real_cluster import RealCluster
from tests.support.small_training import small_document

MINUTES = 60.0
_log = logging.getLogger(__name__)


def say(*lines: str) -> None:
    """What a reader of the figures wants to see: pytest --log-cli-level=INFO."""
    _log.info("%s", "\n".join(lines))


def job(cluster: RealCluster, name: str, *, workers: int = 2, **train: Any) -> dict[str, Any]:
    # At a higher rate the last digits of sums, which depend on the order of summing, grow within a hundred steps.
    slow = {"learning_rate": 3e-5, "min_learning_rate": 1e-6}
    value = small_document("s3://bucket/data", "s3://bucket/runs", name=name, **{**slow, **train})
    spec = value["spec"]
    spec["storage"]["s3"] = cluster.s3.model_dump()
    spec["workers"] = {"replicas": workers, "min": 1, "max": 4, "cpus": 0.5, "resize_interval_seconds": 5}
    spec["evaluation"] = {"enabled": False}
    spec["cluster"] = {"secrets": ["s3"], "head": {"cpus": 0.1}, "env": {"HF_HUB_OFFLINE": "1"}}
    return value


def state(cluster: RealCluster, name: str) -> JobStatus:
    return status_of(cluster.kubectl.get("ej", name))


def reaches(cluster: RealCluster, name: str, phase: JobPhase, *, step: int = 0, minutes: float = 8) -> JobStatus:
    def look() -> JobStatus | None:
        found = state(cluster, name)
        assert found.phase is not JobPhase.FAILED, found.message
        return found if found.phase is phase and found.step >= step else None

    return wait_for(look, f"{name} {phase} at step {step}", seconds=minutes * MINUTES)


def suspend(cluster: RealCluster, name: str, *, wish: bool) -> None:
    cluster.kubectl("patch", "ej", name, "--type=merge", "-p", json.dumps({"spec": {"suspend": wish}}))


def delete(cluster: RealCluster, name: str) -> None:
    cluster.kubectl("delete", "ej", name)
    wait_for(lambda: cluster.kubectl("get", "pods", "-o", "name") == "", f"pods of {name} go", seconds=3 * MINUTES)


def undisturbed(cluster: RealCluster, document: dict[str, Any], run: Path, *, steps: int) -> Path:
    """The same document with one worker, without Ray and without Kubernetes."""
    run.mkdir()
    of_a_run = {key: value for key, value in document["spec"].items() if key != "cluster"}
    train_in_processes(str(cluster.bucket / "data"), run, 1, {"spec": of_a_run}, steps=steps)
    return run
