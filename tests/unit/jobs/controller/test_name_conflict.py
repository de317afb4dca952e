"""A job does not take over an object that belongs to somebody else."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.controller.reconcile import reconcile
from jobs.errors import StaleObject
from jobs.kube.observed import Observed
from jobs.kube.status import JobPhase, JobStatus
from jobs.manifests.operator_config import OperatorConfig
from tests.support.kubernetes_objects import NOW, UID, resource


class Cluster:
    """Objects by kind and name. Keeps the writes."""

    def __init__(self, there: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
        self.there = dict(there)
        self.written: list[tuple[str, str]] = []
        self.status = JobStatus()

    def get(self, kind: str, name: str, *, namespace: str) -> Mapping[str, Any] | None:
        return self.there.get((kind, name))

    def create(self, value: Mapping[str, Any]) -> None:
        key = (value["kind"], value["metadata"]["name"])
        if key in self.there:
            raise StaleObject(f"{key} exists")
        self.written.append(key)

    def replace_status(self, value: Mapping[str, Any]) -> None:
        self.status = JobStatus.model_validate(value["status"])


def reconciled(cluster: Cluster) -> JobStatus:
    stored = {**resource(), "status": JobStatus().to_dict()}
    reconcile(cluster, OperatorConfig(), stored, lambda *_: Observed(), now=NOW + timedelta(seconds=1))  # type: ignore[arg-type]
    return cluster.status


FREE = Cluster({})
reconciled(FREE)
NEEDED = [each for each in FREE.written if each[0] != "Event"]


@pytest.mark.parametrize("taken", NEEDED, ids=str)
@pytest.mark.parametrize(
    "owners",
    [[], [{"kind": "Deployment", "name": "job", "uid": "1"}], [{"kind": "EmbeddingJob", "name": "other", "uid": "1"}]],
    ids=["no owner", "another kind", "another job"],
)
def test_a_job_that_needs_the_name_of_a_foreign_object_is_refused_and_writes_nothing(
    taken: tuple[str, str], owners: list[Mapping[str, Any]]
) -> None:
    cluster = Cluster({taken: {"metadata": {"name": taken[1], "ownerReferences": owners}}})

    status = reconciled(cluster)

    assert status.phase is JobPhase.FAILED
    assert f"the job needs the {taken[0]} {taken[1]}, but an object of that name exists" in status.message
    assert [kind for kind, _ in cluster.written if kind != "Event"] == []


def test_objects_of_a_job_are_its_own() -> None:
    owner = {"kind": "EmbeddingJob", "name": "job", "uid": UID}
    owned = {each: {"metadata": {"ownerReferences": [owner]}} for each in NEEDED}
    cluster = Cluster(owned)

    assert reconciled(cluster).phase is JobPhase.STARTING
    assert [each for each in cluster.written if each[0] != "Event"] == []


@pytest.mark.parametrize("taken", NEEDED, ids=str)
def test_an_object_of_an_earlier_job_of_this_name_is_not_used_and_not_a_conflict(taken: tuple[str, str]) -> None:
    owner = {"kind": "EmbeddingJob", "name": "job", "uid": "earlier"}
    cluster = Cluster({taken: {"metadata": {"ownerReferences": [owner]}}})

    with pytest.raises(StaleObject):
        reconciled(cluster)  # it is tried again until the garbage collector has deleted the object
    assert cluster.status.phase is JobPhase.STARTING


def test_account_and_policy_have_a_prefix_that_no_chart_uses(project_root: Path) -> None:
    templates = "".join(path.read_text(encoding="utf-8") for path in (project_root / "helm").rglob("templates/*"))

    assert ("ServiceAccount", "f2llm-job-job") in NEEDED
    assert ("NetworkPolicy", "f2llm-job-job") in NEEDED
    assert "name: f2llm-" in templates
    assert "f2llm-job-" not in templates
