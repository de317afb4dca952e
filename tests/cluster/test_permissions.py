"""The operator has the rights of its chart and needs each of them."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from jobs.kube.api import KubeApi
from jobs.kube.status import JobPhase, status_of
from ray_app.run_directory.status import Phase
from tests.support.control_plane import ControlPlane
from tests.support.job_specs import ON_A_CLUSTER, job_spec
from tests.support.kubectl import Kubectl
from tests.support.operator import LEASES, RULES, KubeRay, run_operator, token_of_account
from tests.support.waiting import wait_for

SECONDS = 120.0
"""For each thing that is waited for: what is slow is no lack of a right."""
RIGHTS = [
    pytest.param(index, verb, id=f"{verb} {rule['resources'][0]}")
    for index, rule in enumerate(RULES)
    for verb in rule["verbs"]
]


@contextmanager
def limited_operator(plane: ControlPlane, kubectl: Kubectl, rules: list[dict[str, Any]]) -> Iterator[Path]:
    """The operator as a service account with these rules; gives its log."""
    kubeconfig = plane.kubeconfig_of(token_of_account(kubectl, "limited", [*rules, LEASES]), "limited.kubeconfig")
    log = plane.folder / "limited.log"
    log.unlink(missing_ok=True)
    try:
        with run_operator(kubeconfig, log):
            yield log
    finally:
        kubectl("delete", "lease", "f2llm-operator", "--ignore-not-found")


def refused(plane: ControlPlane, since: int) -> list[str]:
    """What the API server forbade the operator after its answer with the number `since`."""
    account = "system:serviceaccount:default:limited"
    mine = [each for each in plane.answers()[since:] if each["user"]["username"] == account]
    forbidden = [each for each in mine if each.get("responseStatus", {}).get("code") == 403]
    return [f"{each['verb']} {each['requestURI']}" for each in forbidden]


def found_taken(plane: ControlPlane, resource: str, name: str) -> bool:
    """Whether somebody tried to create it where it was already; the operator looks at what is there after that."""
    return any(
        each["verb"] == "create" and each["responseStatus"]["code"] == 409
        for each in plane.answers()
        if (each.get("objectRef", {}).get("resource"), each.get("objectRef", {}).get("name")) == (resource, name)
    )


def live(plane: ControlPlane, api: KubeApi, kubectl: Kubectl, name: str) -> None:
    """All that the operator does for a job: start, scale, stop, start again beside what has its name already."""
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
    wait_for(
        lambda: status_of(api.get("EmbeddingJob", name) or {}).phase is JobPhase.SUSPENDED, "suspended", seconds=SECONDS
    )
    # Somebody else's RayJob and ConfigMap in the place of the next attempt's: looked at, and left alone.
    strange = {"metadata": {"name": f"{name}-2", "namespace": "default"}}
    api.create({"apiVersion": "ray.io/v1", "kind": "RayJob", **strange, "spec": {"entrypoint": "none"}})
    api.create({"apiVersion": "v1", "kind": "ConfigMap", **strange})
    api.patch("EmbeddingJob", name, {"spec": {"suspend": False}})
    wait_for(
        lambda: status_of(api.get("EmbeddingJob", name) or {}).attempt == 2,
        "the next attempt is counted",
        seconds=SECONDS,
    )
    wait_for(lambda: found_taken(plane, "configmaps", f"{name}-2"), "the strange ConfigMap is met", seconds=SECONDS)
    api.delete("ConfigMap", f"{name}-2")
    wait_for(lambda: api.get("ConfigMap", f"{name}-2"), "the next attempt's ConfigMap", seconds=SECONDS)
    wait_for(lambda: found_taken(plane, "rayjobs", f"{name}-2"), "the strange RayJob is met", seconds=SECONDS)
    api.delete("RayJob", f"{name}-2")
    wait_for(lambda: api.get("RayJob", f"{name}-2"), "the next attempt's RayJob", seconds=SECONDS)
    about_it = f"--field-selector=involvedObject.name={name}"
    wait_for(lambda: kubectl("get", "events", about_it, "-o", "name"), "events", seconds=SECONDS)


def test_the_charts_rights_are_enough_for_the_life_of_a_job(
    api: KubeApi, kuberay_types: ControlPlane, kubectl: Kubectl
) -> None:
    since = len(kuberay_types.answers())

    with limited_operator(kuberay_types, kubectl, RULES):
        live(kuberay_types, api, kubectl, "limited")

    assert refused(kuberay_types, since) == []


@pytest.mark.parametrize(
    ("index", "verb"), RIGHTS, ids=lambda part: part if isinstance(part, str) else RULES[part]["resources"][0]
)
def test_each_of_the_charts_rights_is_needed(
    api: KubeApi, kuberay_types: ControlPlane, kubectl: Kubectl, index: int, verb: str
) -> None:
    rules = [dict(rule) for rule in RULES]
    rules[index]["verbs"] = [each for each in rules[index]["verbs"] if each != verb]
    since = len(kuberay_types.answers())
    name = f"without-{index}-{verb}"

    def try_to_live() -> None:
        with suppress(Exception):  # it ends somewhere, for the lack of a right or of the job, which is deleted
            live(kuberay_types, api, kubectl, name)

    with limited_operator(kuberay_types, kubectl, [rule for rule in rules if rule["verbs"]]):
        threading.Thread(target=try_to_live, daemon=True).start()
        wait_for(lambda: refused(kuberay_types, since), f"{verb} is missed", seconds=SECONDS)


@pytest.mark.parametrize("rule", range(len(RULES)), ids=lambda index: RULES[index]["resources"][0])
def test_the_charts_rights_have_no_duplicates_and_no_wildcards(rule: int) -> None:
    others = [(group, kind) for each in RULES for group in each["apiGroups"] for kind in each["resources"]]

    assert len(others) == len(set(others))
    assert "*" not in json.dumps(RULES[rule])
