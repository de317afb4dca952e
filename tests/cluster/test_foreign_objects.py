"""The operator on a cluster that is full of objects of others."""

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jobs.kube.api import KubeApi
from jobs.kube.status import JobPhase, status_of
from tests.support.control_plane import ControlPlane
from tests.support.job_specs import ON_A_CLUSTER, job_spec
from tests.support.kubectl import Kubectl
from tests.support.memory import memory_mib
from tests.support.operator import KubeRay, leads, run_operator
from tests.support.real_jobs import say
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(900)
MEGABYTES = 200
CONFIG_MAP_BYTES = 800_000
PODS = 5_000
LIMIT = 190
"""MiB of resident memory, which is below 200 MB; the chart's limit is 384 MiB."""
NAMESPACE = "others"


@pytest.fixture(scope="module")
def crowded(kuberay_types: ControlPlane, connection: KubeApi) -> Iterator[None]:
    kubectl = Kubectl(kuberay_types.kubeconfig)
    kubectl("create", "namespace", NAMESPACE)
    wait_for(lambda: connection.get("ServiceAccount", "default", namespace=NAMESPACE), "account", seconds=60)
    text = "x" * CONFIG_MAP_BYTES
    _create(connection, ({"kind": "ConfigMap", "data": {"a": text}} for _ in range(MEGABYTES * 10**6 // len(text))))
    container = {"name": "a", "image": "none"}
    _create(connection, ({"kind": "Pod", "spec": {"containers": [container]}} for _ in range(PODS)))
    yield
    # Not the namespace: its controller would delete them one by one for minutes.
    for kind in ("configmaps", "pods"):
        kubectl("delete", "--raw", f"/api/v1/namespaces/{NAMESPACE}/{kind}")


def _create(api: KubeApi, values: Iterable[dict[str, Any]]) -> None:
    def create(number: int, value: dict[str, Any]) -> None:
        api.create({"apiVersion": "v1", **value, "metadata": {"name": f"a-{number}", "namespace": NAMESPACE}})

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(create, *each) for each in enumerate(values)]:
            done.result()


def most_memory(process: subprocess.Popen[bytes], over: Callable[[], bool]) -> list[int]:
    """Resident memory in MiB, each half second, until `over`."""
    found = [memory_mib("VmRSS", process.pid)]
    deadline = time.monotonic() + 300
    while not over():
        assert time.monotonic() < deadline
        time.sleep(0.5)
        found.append(memory_mib("VmRSS", process.pid))
    return found


def test_the_memory_of_the_operator_does_not_depend_on_objects_of_others(
    crowded: None, kuberay_types: ControlPlane, connection: KubeApi
) -> None:
    log = kuberay_types.folder / "crowded.log"
    connection.create(job_spec(ON_A_CLUSTER, metadata={"name": "crowded"}))
    with run_operator(kuberay_types.kubeconfig, log) as process:
        starting = most_memory(process, lambda: leads(log) and started(connection))
        KubeRay(connection, "crowded", 1).starts()
        steady = most_memory(process, lambda: len(of_ours(connection)) > 0)
    connection.delete("EmbeddingJob", "crowded")
    found = [*starting, *steady]
    say(f"operator, MiB each half second: {' '.join(map(str, found))}; at most {max(found)}")

    assert max(found) < LIMIT


def started(api: KubeApi) -> bool:
    return status_of(api.get("EmbeddingJob", "crowded") or {}).phase is JobPhase.STARTING


def of_ours(api: KubeApi) -> list[Any]:
    pods: list[Any] = api.list("Pod", selector="f2llm.dev/job=crowded")["items"]
    return pods


def test_a_list_of_uids_reads_all_pages(crowded: None, connection: KubeApi) -> None:
    uids = connection.uids("Pod", namespace=NAMESPACE)
    listed = connection.list("Pod", namespace=NAMESPACE)["items"]

    assert len(uids) == PODS
    assert uids == {each["metadata"]["uid"] for each in listed}
    assert len(json.dumps(listed)) > PODS
