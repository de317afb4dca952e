"""Queues of the platform chart's teams with the real Kueue: no way around a team's quota, and quota that is lent."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from jobs.kube.status import JobPhase, status_of
from tests.support.control_plane import missing_programs, run_control_plane
from tests.support.custom_resources import install_kuberay_types, install_our_type
from tests.support.helm import PLATFORM_CHART, run_program
from tests.support.kubectl import Kubectl
from tests.support.kueue import run_kueue
from tests.support.operator import run_operator
from tests.support.waiting import wait_for

SYSTEM, A, B = "f2llm-system", "team-a", "team-b"
LABEL = "kueue.x-k8s.io/queue-name"
VALUES = {
    "quota": {"kueue": {"enabled": True, "flavors": [{"name": "shared"}]}},
    "teams": [
        {"name": name, "queue": {"shared": {"cpu": 2, "memory": "100Gi", "nvidia.com/gpu": 2}}} for name in (A, B)
    ],
}
"""Two teams with two CPUs and two GPUs each, in one cohort."""


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """The administrator of an API server with Kueue, the operator and both teams, without KubeRay and nodes."""
    needed = ("etcd", "kube-apiserver", "kube-controller-manager", "helm", "kuberay-manifests", "kueue")
    if missing := missing_programs((*needed, "kueue-manifests")):
        pytest.skip(f"{', '.join(missing)} not built; tests/cluster/build.sh builds them")
    folder = tmp_path_factory.mktemp("queues")
    values, log = folder / "values.yaml", folder / "operator.log"
    values.write_text(yaml.safe_dump(VALUES))
    (plane := folder / "plane").mkdir()
    (kueue := folder / "kueue").mkdir()
    with run_control_plane(plane) as running:
        kubectl = Kubectl(running.kubeconfig)
        install_our_type(kubectl)
        install_kuberay_types(kubectl)
        with run_kueue(running, kueue):
            place = (f"--kubeconfig={running.kubeconfig}", f"--namespace={SYSTEM}", "--create-namespace")
            run_program("helm", "install", "platform", str(PLATFORM_CHART), *place, f"--values={values}")
            with run_operator(running.kubeconfig, log):
                yield kubectl


@pytest.fixture
def team(admin: Kubectl) -> Iterator[tuple[Kubectl, Kubectl]]:
    """Both teams without jobs."""
    both = Kubectl(admin.kubeconfig, A), Kubectl(admin.kubeconfig, B)
    yield both
    for each in both:
        each("delete", "ej,rayjobs", "--all")
        wait_for(lambda each=each: not workloads(each), "Kueue forgets the jobs")  # type: ignore[misc]


def embedding_job(name: str, *, gpus: int) -> dict[str, Any]:
    """A job without a queue's label, with one GPU per worker."""
    spec = {
        "preset": "f2llm-0.6b",
        "data": {"uri": "s3://b/data"},
        "storage": {"uri": "s3://b/runs"},
        "workers": {"replicas": gpus, "cpus": 0.1, "gpus": 1},
        "cluster": {"head": {"cpus": 0.1}, "worker": {"memory": "1Gi"}},
    }
    return {"apiVersion": "f2llm.dev/v1alpha1", "kind": "EmbeddingJob", "metadata": {"name": name}, "spec": spec}


def ray_job(name: str, *, gpus: int) -> dict[str, Any]:
    """What somebody could create who may create more than jobs: a RayJob without the label, that is not suspended."""
    resources = {"limits": {"nvidia.com/gpu": gpus}, "requests": {"nvidia.com/gpu": gpus}}
    container = {"name": "ray-head", "image": "none", "resources": resources}
    head = {"rayStartParams": {}, "template": {"spec": {"containers": [container]}}}
    spec = {"entrypoint": "true", "shutdownAfterJobFinishes": True, "rayClusterSpec": {"headGroupSpec": head}}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name}, "spec": spec}


def workloads(kubectl: Kubectl) -> dict[str, dict[str, Any]]:
    """Kueue's records by the name of their RayJob."""
    items = json.loads(kubectl("get", "workloads.kueue.x-k8s.io", "-o", "json"))["items"]
    return {each["metadata"]["ownerReferences"][0]["name"]: each for each in items}


def admitted(kubectl: Kubectl, name: str) -> bool:
    """Whether the RayJob runs with quota."""
    conditions = workloads(kubectl).get(name, {}).get("status", {}).get("conditions", [])
    has_quota = any(each["type"] == "Admitted" and each["status"] == "True" for each in conditions)
    return has_quota and not kubectl.get("rayjob", name)["spec"].get("suspend")


def borrowed_gpus(kubectl: Kubectl) -> str:
    """GPUs that a team has borrowed."""
    status = kubectl.get("clusterqueue.kueue.x-k8s.io", kubectl.namespace).get("status", {})
    found = [each for flavor in status.get("flavorsReservation", []) for each in flavor["resources"]]
    return next((each.get("borrowed", "0") for each in found if each["name"] == "nvidia.com/gpu"), "0")


@pytest.mark.parametrize("way", ["job", "RayJob"])
def test_what_has_no_label_waits_in_the_queue_of_its_team(team: tuple[Kubectl, Kubectl], way: str) -> None:
    """It needs 5 GPUs, more than both teams have."""
    mine, _ = team
    name = "big-1" if way == "job" else "big"
    mine.apply(embedding_job("big", gpus=5) if way == "job" else ray_job("big", gpus=5))

    waiting = wait_for(lambda: workloads(mine).get(name), "Kueue knows it", seconds=60)

    stored = mine.get("rayjob", name)
    assert waiting["spec"]["queueName"] == "default"
    assert stored["metadata"]["labels"][LABEL] == "default"
    assert stored["spec"]["suspend"] is True
    assert not admitted(mine, name)
    if way == "job":
        wait_for(lambda: status_of(mine.get("ej", "big")).phase is JobPhase.QUEUED, "the job says so", seconds=60)


def test_a_team_borrows_above_its_own_quota_and_gives_it_back(team: tuple[Kubectl, Kubectl]) -> None:
    mine, theirs = team
    mine.apply(embedding_job("borrower", gpus=3))

    wait_for(lambda: admitted(mine, "borrower-1"), "three GPUs are admitted", seconds=60)
    wait_for(lambda: borrowed_gpus(mine) == "1", "one of them is borrowed", seconds=60)
    theirs.apply(embedding_job("owner", gpus=2))

    wait_for(lambda: admitted(theirs, "owner-1"), "the owner gets its quota back", seconds=60)
    wait_for(lambda: status_of(mine.get("ej", "borrower")).phase is JobPhase.QUEUED, "it waits again", seconds=60)


def test_nobody_borrows_more_than_the_cohort_has(team: tuple[Kubectl, Kubectl]) -> None:
    mine, _ = team
    mine.apply(embedding_job("first", gpus=4))
    wait_for(lambda: admitted(mine, "first-1"), "all GPUs of both teams are admitted", seconds=60)
    mine.apply(embedding_job("second", gpus=1))

    wait_for(lambda: status_of(mine.get("ej", "second")).phase is JobPhase.QUEUED, "the next job waits", seconds=60)
    assert not admitted(mine, "second-1")
