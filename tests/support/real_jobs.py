"""Jobs in real pods: small ones to submit, to wait for, and to compare with the same job spec without Kubernetes."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from jobs.kube.status import JobPhase, JobStatus, status_of
from tests.support.plain_workers import train_in_processes
from tests.support.real_cluster import RealCluster
from tests.support.runs import finished_steps, losses, saved_step
from tests.support.small_training import read_lines, small_job_spec
from tests.support.waiting import wait_for

MINUTES = 60.0
_log = logging.getLogger(__name__)


def say(*lines: str) -> None:
    """Log the measured values, visible with pytest --log-cli-level=INFO."""
    _log.info("%s", "\n".join(lines))


def job(cluster: RealCluster, name: str, *, workers: int = 2, **train: Any) -> dict[str, Any]:
    # At a higher learning rate, rounding differences from the order of summation grow within a hundred steps.
    slow = {"learning_rate": 3e-5, "min_learning_rate": 1e-6}
    value = small_job_spec("s3://bucket/data", "s3://bucket/runs", name=name, **{**slow, **train})
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


def suspend(cluster: RealCluster, name: str, *, suspended: bool) -> None:
    cluster.kubectl("patch", "ej", name, "--type=merge", "-p", json.dumps({"spec": {"suspend": suspended}}))


def delete(cluster: RealCluster, name: str) -> None:
    cluster.kubectl("delete", "ej", name)
    wait_for(lambda: cluster.kubectl("get", "pods", "-o", "name") == "", f"pods of {name} go", seconds=3 * MINUTES)


def assert_as_undisturbed(cluster: RealCluster, job_spec: dict[str, Any], alone: Path) -> None:
    """A job that was deleted during training has the losses and examples of one undisturbed worker without Ray and
    Kubernetes, whose run is written to `alone`.
    """
    run = cluster.bucket / "runs" / job_spec["metadata"]["name"]
    alone.mkdir()
    spec = {key: value for key, value in job_spec["spec"].items() if key != "cluster"}
    train_in_processes(str(cluster.bucket / "data"), alone, 1, {"spec": spec}, steps=finished_steps(run))
    assert losses(run) == pytest.approx(losses(alone), abs=1e-4)
    # When a job is deleted, both files may lack entries since the last checkpoint.
    used = [line for line in read_lines(run / "examples.jsonl") if line["step"] <= finished_steps(run)]
    assert used == read_lines(alone / "examples.jsonl")[: len(used)]
    assert used[-1]["step"] >= saved_step(run)
