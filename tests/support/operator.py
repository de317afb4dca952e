"""The operator as a separate process, and a simulated KubeRay for clusters without nodes."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from jobs.kube.api import KubeApi
from jobs.kube.driver_report import REPORT_KEY, DriverReport, ReportedFailure
from jobs.kube.names import attempt_id, progress_name
from ray_app.run_directory.status import Phase, RunStatus
from tests.support.kubectl import Kubectl
from tests.support.waiting import wait_for

_RULES = Path(__file__).parents[2] / "helm" / "f2llm-operator" / "files" / "rbac.yaml"
RULES: list[dict[str, Any]] = yaml.safe_load(_RULES.read_text(encoding="utf-8"))
"""The permissions of the operator in the chart."""
LEASES = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}


def token_of_account(kubectl: Kubectl, name: str, rules: Sequence[Mapping[str, Any]]) -> str:
    """The token of a ServiceAccount with these rules in all namespaces."""
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}}
    kubectl.apply({**role, "rules": list(rules)})
    kubectl.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
    subject = {"kind": "ServiceAccount", "name": name, "namespace": kubectl.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    kubectl.apply({**role, "kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [subject]})
    return kubectl("create", "token", name).strip()


@contextmanager
def run_operator(kubeconfig: Path, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m jobs.controller` until the end of the block. A test can kill it before."""
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "POD_NAMESPACE": "default"}
    command = [sys.executable, "-m", "jobs.controller", "--metrics-port", "0", *arguments]
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


def leads(log: Path) -> bool:
    """Whether the operator with this log has ever held the Lease."""
    return log.exists() and "lease acquired" in log.read_text()


class KubeRay:
    """The writes of KubeRay, a kubelet and a driver for one attempt, made by the test."""

    def __init__(self, api: KubeApi, job: str, attempt: int, *, image: str = "none") -> None:
        self._api, self._job, self._attempt = api, job, attempt
        self._name = f"{job}-{attempt}"
        self._cluster = f"{job}-{attempt}-abcde"
        self._image = image

    def ray_job(self) -> dict[str, Any]:
        """The RayJob, once the operator has created it."""
        return wait_for(lambda: self._api.get("RayJob", self._name), f"RayJob {self._name}")

    def starts(self, *, ready: bool = True) -> None:
        """The cluster with its pods."""
        ray_job = self.ray_job()
        spec = ray_job["spec"]["rayClusterSpec"]
        owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": self._name, "uid": ray_job["metadata"]["uid"]}
        labels = ray_job["metadata"]["labels"]
        metadata = {"name": self._cluster, "namespace": "default", "labels": labels, "ownerReferences": [owner]}
        cluster = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": metadata, "spec": spec}
        self._api.create(cluster)
        self.status(jobDeploymentStatus="Initializing", rayClusterName=self._cluster, jobId=self._name)
        self.pod("head")
        self.fill_up()
        if ready:
            self._api.patch("RayCluster", self._cluster, {"status": {"state": "ready"}}, subresource="status")
            self.status(jobDeploymentStatus="Running", jobStatus="RUNNING")

    def cluster(self) -> dict[str, Any]:
        return self._api.get("RayCluster", self._cluster) or {}

    def replicas(self) -> int:
        return int(self.cluster()["spec"]["workerGroupSpecs"][0]["replicas"])

    def workers(self) -> list[str]:
        selector = f"f2llm.dev/job={self._job},ray.io/node-type=worker"
        return [pod["metadata"]["name"] for pod in self._api.list("Pod", selector=selector)["items"]]

    def fill_up(self) -> None:
        """Make the pods match the RayCluster: delete its victims, create new ones."""
        group = self.cluster()["spec"]["workerGroupSpecs"][0]
        for victim in (group.get("scaleStrategy") or {}).get("workersToDelete", []):
            self.remove(victim)
        for number in range(group["replicas"]):
            if len(self.workers()) < group["replicas"]:
                self.pod(f"worker-{number}")

    def pod(self, name: str) -> None:
        kind = "head" if name == "head" else "worker"
        labels = {**self.ray_job()["metadata"]["labels"], "ray.io/node-type": kind}
        owner = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "name": self._cluster}
        owner["uid"] = self.cluster()["metadata"]["uid"]
        metadata: dict[str, Any] = {"name": f"{self._cluster}-{name}", "namespace": "default", "labels": labels}
        metadata["ownerReferences"] = [owner]
        container = {"name": "ray", "image": self._image}
        spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
        if self._api.get("Pod", metadata["name"]) is None:
            self._api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        ready = [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]
        body = {"status": {"phase": "Running", "conditions": ready}}
        self._api.patch("Pod", metadata["name"], body, subresource="status")

    def remove(self, pod: str) -> None:
        self._api.delete("Pod", pod)

    def ends(self, *, succeeded: bool) -> None:
        """The job has ended, and KubeRay deletes the cluster."""
        word = "Complete" if succeeded else "Failed"
        self.status(jobDeploymentStatus=word, jobStatus="SUCCEEDED" if succeeded else "FAILED", reason="AppFailed")
        self.pods_go()

    def pods_go(self) -> None:
        for pod in self._api.list("Pod", selector=f"f2llm.dev/job={self._job}")["items"]:
            self.remove(pod["metadata"]["name"])

    def status(self, **status: Any) -> None:
        self._api.patch("RayJob", self._name, {"status": status}, subresource="status")

    def says(self, phase: Phase, *, failure: ReportedFailure | None = None, **run: Any) -> None:
        """Write a report of the driver."""
        uid = self._api.get("EmbeddingJob", self._job)["metadata"]["uid"]  # type: ignore[index]
        status = RunStatus(name=self._job, phase=phase, **run)
        words = DriverReport(attempt=attempt_id(uid, self._attempt), run=status, failure=failure)
        body = {"data": {REPORT_KEY: words.model_dump_json()}}
        self._api.patch("ConfigMap", progress_name(self._job), body)

    def stop_request(self) -> str:
        config_map = self._api.get("ConfigMap", progress_name(self._job)) or {}
        return str((config_map.get("data") or {}).get("stop", ""))
