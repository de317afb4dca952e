"""Kueue: jobs wait for quota, are preempted by jobs of higher priority, and resume from their last checkpoint."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.kube.status import ConditionType, JobPhase
from tests.support.control_plane import missing_programs
from tests.support.real_cluster import NAMESPACE, SCRIPTS, RealCluster
from tests.support.real_jobs import assert_as_undisturbed, job, reaches, say

pytestmark = [pytest.mark.pods, pytest.mark.timeout(1800)]
KUEUE = "kueue.x-k8s.io"
QUOTA: list[dict[str, Any]] = [
    {"kind": "ResourceFlavor", "metadata": {"name": "any"}},
    {
        "kind": "ClusterQueue",
        "metadata": {"name": "team"},
        "spec": {
            "namespaceSelector": {},
            "preemption": {"withinClusterQueue": "LowerPriority"},
            "resourceGroups": [
                {
                    "coveredResources": ["cpu", "memory"],
                    "flavors": [
                        {
                            "name": "any",
                            # Room for one job with one worker, but not for two.
                            "resources": [
                                {"name": "cpu", "nominalQuota": "1"},
                                {"name": "memory", "nominalQuota": "100Gi"},
                            ],
                        }
                    ],
                }
            ],
        },
    },
    {"kind": "LocalQueue", "metadata": {"name": "training", "namespace": NAMESPACE}, "spec": {"clusterQueue": "team"}},
    {"kind": "WorkloadPriorityClass", "metadata": {"name": "urgent"}, "value": 100, "description": "goes first"},
]


@pytest.fixture(scope="module")
def queue(cluster: RealCluster) -> Iterator[str]:
    """Kueue with quota for one small job at a time; returns the name of the queue."""
    if missing := missing_programs(("kueue", "kueue-manifests")):
        pytest.skip(f"{', '.join(missing)} not built; tests/cluster/build.sh builds them")
    subprocess.run([SCRIPTS / "kueue.sh"], check=True, capture_output=True, timeout=300)
    for each in QUOTA:
        cluster.kubectl.apply({"apiVersion": f"{KUEUE}/v1beta2", **each})
    yield "training"
    for each in reversed(QUOTA):
        cluster.kubectl("delete", f"{each['kind']}.{KUEUE}", each["metadata"]["name"], "--wait=false")


def queued(cluster: RealCluster, queue: str, name: str, *, priority: str = "", **train: Any) -> dict[str, Any]:
    job_spec = job(cluster, name, workers=1, **train)
    labels = {f"{KUEUE}/queue-name": queue, **({f"{KUEUE}/priority-class": priority} if priority else {})}
    job_spec["metadata"]["labels"] = labels
    return job_spec


def test_a_job_waits_for_quota_and_a_preempted_job_resumes_without_a_difference(
    cluster: RealCluster, queue: str, tmp_path: Path
) -> None:
    kubectl = cluster.kubectl
    long, urgent = (
        queued(cluster, queue, "long", epochs=60),
        queued(cluster, queue, "urgent", priority="urgent", epochs=2),
    )
    kubectl.apply(long)
    reaches(cluster, "long", JobPhase.TRAINING, step=20)

    kubectl.apply(queued(cluster, queue, "patient", epochs=2))
    waiting = reaches(cluster, "patient", JobPhase.QUEUED)
    say(kubectl("get", "ej"))
    kubectl.apply(urgent)
    asked = time.monotonic()
    preempted = reaches(cluster, "long", JobPhase.QUEUED)
    say(f"preempted after {time.monotonic() - asked:.0f} s at step {preempted.step}", kubectl("get", "ej"))
    reaches(cluster, "urgent", JobPhase.SUCCEEDED)
    say(f"the urgent one succeeded after {time.monotonic() - asked:.0f} s", kubectl("get", "ej"))
    after = reaches(cluster, "long", JobPhase.TRAINING, step=preempted.step + 5)
    say(f"5 more steps {time.monotonic() - asked:.0f} s after the preemption", json.dumps(after.to_dict()))
    kubectl("delete", "ej", "long")
    reaches(cluster, "patient", JobPhase.SUCCEEDED)

    condition = waiting.condition(ConditionType.QUEUED)
    assert condition is not None
    assert (condition.status, condition.reason) == ("True", "WaitingForQuota")
    assert after.steps_lost <= 1
    assert after.last_failure is None
    assert_as_undisturbed(cluster, long, tmp_path / "alone")
