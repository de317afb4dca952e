"""The kubelet restarts an operator whose event loop hangs, and the job goes on with the next one."""

import json

import pytest

from jobs.kube.status import JobPhase
from tests.support.kubectl import Kubectl
from tests.support.real_cluster import KUBECONFIG, SYSTEM, RealCluster
from tests.support.real_jobs import delete, job, reaches, say
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.pods, pytest.mark.timeout(900)]
HANG = """
import pathlib, runpy, time
from jobs.controller import handlers

async def hang(self, **_):
    mark = pathlib.Path("/tmp/hung")  # on a volume of the pod, so that the next container does not hang
    if mark.exists():
        return await on_job(self, **_)
    mark.touch()
    time.sleep(10**6)

on_job, handlers._Operator._on_job = handlers._Operator._on_job, hang
runpy.run_module("jobs.controller", run_name="__main__")
"""


def test_an_operator_that_hangs_is_restarted_by_its_liveness_probe(cluster: RealCluster) -> None:
    system = Kubectl(KUBECONFIG, SYSTEM)
    container = {"name": "operator", "command": ["python", "-c", HANG]}
    patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
    system("patch", "deployment", "f2llm-operator", "-p", json.dumps(patch))
    system("rollout", "status", "deployment/f2llm-operator", "--timeout=120s")

    def restarts() -> int:
        labels = "app.kubernetes.io/name=f2llm-operator"
        pods = json.loads(system("get", "pods", "-l", labels, "-o", "json"))["items"]
        return sum(each["restartCount"] for pod in pods for each in pod["status"].get("containerStatuses", []))

    cluster.kubectl.apply(job(cluster, "hung"))
    wait_for(lambda: restarts() > 0, "the operator is restarted", seconds=300)
    reaches(cluster, "hung", JobPhase.STARTING)
    events = system("get", "events", "--field-selector=reason=Unhealthy", "-o", "jsonpath={.items[*].message}")
    say(events)
    system("rollout", "undo", "deployment/f2llm-operator")
    delete(cluster, "hung")

    assert "Liveness probe failed: HTTP probe failed with statuscode: 503" in events
