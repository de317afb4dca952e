"""The permissions of the chart are sufficient for the operator, and it needs each of them."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from jobs.kube.api import KubeApi
from jobs.kube.status import JobPhase, JobStatus, status_of
from ray_app.run_directory.status import Phase
from tests.support.control_plane import ControlPlane
from tests.support.job_specs import ON_A_CLUSTER, job_spec
from tests.support.kubectl import Kubectl
from tests.support.operator import LEASES, RULES, KubeRay, run_operator, token_of_account
from tests.support.waiting import wait_for

SECONDS = 120.0
"""Timeout of each wait. It is long, since a slow step is not a missing permission."""
RIGHTS = [
    pytest.param(index, verb, id=f"{verb} {rule['resources'][0]}")
    for index, rule in enumerate(RULES)
    for verb in rule["verbs"]
]


@contextmanager
def limited_operator(plane: ControlPlane, kubectl: Kubectl, rules: list[dict[str, Any]]) -> Iterator[Path]:
    """The operator with a ServiceAccount that has these rules; returns its log."""
    kubeconfig = plane.kubeconfig_of(token_of_account(kubectl, "limited", [*rules, LEASES]), "limited.kubeconfig")
    log = plane.folder / "limited.log"
    log.unlink(missing_ok=True)
    try:
        with run_operator(kubeconfig, log):
            yield log
    finally:
        kubectl("delete", "lease", "f2llm-operator", "--ignore-not-found")


def refused(plane: ControlPlane, since: int) -> list[str]:
    """The requests of the operator that the API server denied after its answer number `since`."""
    account = "system:serviceaccount:default:limited"
    mine = [each for each in plane.answers()[since:] if each["user"]["username"] == account]
    forbidden = [each for each in mine if each.get("responseStatus", {}).get("code") == 403]
    return [f"{each['verb']} {each['requestURI']}" for each in forbidden]


def live(api: KubeApi, kubectl: Kubectl, name: str) -> None:
    """Everything that the operator does for a job: start, scale, stop, and start again after objects with its names
    are gone.
    """

    def state() -> JobStatus:
        return status_of(api.get("EmbeddingJob", name) or {})

    api.create(job_spec(ON_A_CLUSTER, metadata={"name": name}))
    kuberay = KubeRay(api, name, 1)
    kuberay.starts()
    kuberay.says(Phase.TRAINING, step=5, total_steps=20)
    api.patch("EmbeddingJob", name, {"spec": {"workers": {"replicas": 1}}})
    wait_for(lambda: kuberay.replicas() == 1, "scaled", seconds=SECONDS)
    api.patch("EmbeddingJob", name, {"spec": {"suspend": True}})
    wait_for(lambda: kuberay.stop_request() != "", "asked to stop", seconds=SECONDS)
    kuberay.says(Phase.STOPPED, step=9, total_steps=20)
    kuberay.status(jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed")
    wait_for(lambda: api.get("RayJob", f"{name}-1") is None, "the RayJob is deleted", seconds=SECONDS)
    kuberay.pods_go()
    wait_for(lambda: state().phase is JobPhase.SUSPENDED, "suspended", seconds=SECONDS)
    # A foreign RayJob and ConfigMap with the names of the next attempt: the job is refused until they are gone.
    strange = {"metadata": {"name": f"{name}-2", "namespace": "default"}}
    api.create({"apiVersion": "ray.io/v1", "kind": "RayJob", **strange, "spec": {"entrypoint": "none"}})
    api.create({"apiVersion": "v1", "kind": "ConfigMap", **strange})
    api.patch("EmbeddingJob", name, {"spec": {"suspend": False}})
    wait_for(lambda: f"the ConfigMap {name}-2" in state().message, "the foreign ConfigMap is named", seconds=SECONDS)
    api.delete("ConfigMap", f"{name}-2")
    api.delete("RayJob", f"{name}-2")
    api.patch("EmbeddingJob", name, {"metadata": {"annotations": {"touched": "yes"}}})
    wait_for(lambda: state().attempt == 2, "the next attempt is counted", seconds=SECONDS)
    wait_for(lambda: api.get("ConfigMap", f"{name}-2"), "the next attempt's ConfigMap", seconds=SECONDS)
    wait_for(lambda: api.get("RayJob", f"{name}-2"), "the next attempt's RayJob", seconds=SECONDS)
    about_it = f"--field-selector=involvedObject.name={name}"
    wait_for(lambda: kubectl("get", "events", about_it, "-o", "name"), "events", seconds=SECONDS)


def test_the_permissions_of_the_chart_are_sufficient_for_a_whole_job(
    api: KubeApi, kuberay_types: ControlPlane, kubectl: Kubectl
) -> None:
    since = len(kuberay_types.answers())

    with limited_operator(kuberay_types, kubectl, RULES):
        live(api, kubectl, "limited")

    assert refused(kuberay_types, since) == []


@pytest.mark.parametrize(
    ("index", "verb"), RIGHTS, ids=lambda part: part if isinstance(part, str) else RULES[part]["resources"][0]
)
def test_each_permission_of_the_chart_is_needed(
    api: KubeApi, kuberay_types: ControlPlane, kubectl: Kubectl, index: int, verb: str
) -> None:
    rules = [dict(rule) for rule in RULES]
    rules[index]["verbs"] = [each for each in rules[index]["verbs"] if each != verb]
    since = len(kuberay_types.answers())
    name = f"without-{index}-{verb}"

    def try_to_live() -> None:
        with suppress(Exception):  # it ends at some step, because a permission is missing or because the job is deleted
            live(api, kubectl, name)

    with limited_operator(kuberay_types, kubectl, [rule for rule in rules if rule["verbs"]]):
        threading.Thread(target=try_to_live, daemon=True).start()
        wait_for(lambda: refused(kuberay_types, since), f"{verb} is missed", seconds=SECONDS)


@pytest.mark.parametrize("rule", range(len(RULES)), ids=lambda index: RULES[index]["resources"][0])
def test_the_permissions_of_the_chart_have_no_duplicates_and_no_wildcards(rule: int) -> None:
    others = [(group, kind) for each in RULES for group in each["apiGroups"] for kind in each["resources"]]

    assert len(others) == len(set(others))
    assert "*" not in json.dumps(RULES[rule])
