"""The Kubernetes objects of a job, reduced to the fields that decisions need."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from data_io.wording import shortened
from jobs.kube.driver_report import DriverReport
from jobs.kube.names import (
    ATTEMPT_LABEL,
    ELASTIC_GATE,
    EVALUATION_GROUP,
    GROUP_LABEL,
    NODE_TYPE_LABEL,
    QUEUE_LABEL,
)

_WAITS_FOR_GOOD = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"}
)


@dataclass(frozen=True)
class Pod:
    """A pod of a job. One that `evaluates` checkpoints is not a worker. `trouble` is the reason why the pod does not
    become ready; empty without a problem.
    """

    name: str
    attempt: str
    is_head: bool
    ready: bool
    terminating: bool = False
    trouble: str = ""
    out_of_memory: bool = False
    evaluates: bool = False


@dataclass(frozen=True)
class Observed:
    """RayJob, RayCluster and driver report of the attempt in the status, and the pods of all attempts.

    `stop_request` is the id of the attempt that was last asked to stop. `job_spec` is the text with which the attempt
    started; empty if no attempt has started. `name_conflict` names an object that the job needs and that belongs to
    somebody else; empty without one.
    """

    ray_job: Mapping[str, Any] | None = None
    ray_cluster: Mapping[str, Any] | None = None
    pods: tuple[Pod, ...] = ()
    driver_report: DriverReport | None = None
    stop_request: str = ""
    job_spec: str = ""
    name_conflict: str = ""

    def workers(self, attempt: int) -> list[Pod]:
        """Worker pods of an attempt that are not being deleted."""
        return [
            pod
            for pod in self.pods
            if pod.attempt == str(attempt) and not pod.is_head and not pod.evaluates and not pod.terminating
        ]

    @property
    def deployment_status(self) -> str:
        """KubeRay's status of the RayJob; empty before KubeRay has set it."""
        return (self.ray_job or {}).get("status", {}).get("jobDeploymentStatus") or ""

    @property
    def has_ended(self) -> bool:
        return self.deployment_status in ("Complete", "Failed", "ValidationFailed")

    @property
    def waits_for_quota(self) -> bool:
        """Whether Kueue has suspended the RayJob, either before admission or to preempt it."""
        suspended = bool((self.ray_job or {}).get("spec", {}).get("suspend"))
        return suspended or self.deployment_status in ("Suspending", "Suspended")

    @property
    def admitted_workers(self) -> int | None:
        """The number of worker pods for which Kueue reserved quota, beyond which the cluster must not grow. None
        without a queue, and if Kueue holds back new pods of an elastic job until they have quota.
        """
        ray_job = self.ray_job or {}
        if QUEUE_LABEL not in (ray_job.get("metadata", {}).get("labels") or {}):
            return None
        groups = (self.ray_cluster or {}).get("spec", {}).get("workerGroupSpecs") or [{}]
        if ELASTIC_GATE in (groups[0].get("gates") or []):
            return None
        admitted = (ray_job.get("spec", {}).get("rayClusterSpec") or {}).get("workerGroupSpecs") or [{}]
        return int(admitted[0].get("replicas") or 0)

    @property
    def begun(self) -> datetime | None:
        """When KubeRay last started to create pods, which it does after each admission by Kueue; None before."""
        begun = (self.ray_job or {}).get("status", {}).get("startTime")
        return datetime.fromisoformat(begun) if begun and self.deployment_status else None

    def since_begun(self) -> "Observed":
        """Without the driver report if Kueue has since deleted that driver's pods. Report times are in minutes."""
        if self.driver_report is None or self.ray_job is None or self.waits_for_quota:
            return self
        old = not self.deployment_status or (
            self.begun and self.driver_report.reported_at < self.begun.replace(second=0)
        )
        return replace(self, driver_report=None) if old else self

    @property
    def cluster_is_ready(self) -> bool:
        return bool((self.ray_cluster or {}).get("status", {}).get("state") == "ready")

    @property
    def trouble(self) -> str:
        """Why pods do not become ready: the first pod's reason, or KubeRay's if it cannot create pods."""
        message = next((each["message"] for each in self._cluster_conditions if each["type"] == "ReplicaFailure"), "")
        refusal = shortened(": ".join(message.splitlines()))
        return next((pod.trouble for pod in self.pods if pod.trouble and not pod.terminating), refusal)

    @property
    def _cluster_conditions(self) -> list[Mapping[str, Any]]:
        """Conditions of the RayCluster that are true."""
        found = (self.ray_cluster or {}).get("status", {}).get("conditions") or []
        return [each for each in found if each["status"] == "True"]


def pod_of(body: Mapping[str, Any]) -> Pod:
    """The fields of a pod that decisions need, so that an index of a thousand jobs stays small."""
    metadata, status = body["metadata"], body.get("status", {})
    labels = metadata.get("labels", {})
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return Pod(
        name=metadata["name"],
        attempt=labels.get(ATTEMPT_LABEL, ""),
        is_head=labels.get(NODE_TYPE_LABEL) == "head",
        evaluates=labels.get(GROUP_LABEL) == EVALUATION_GROUP,
        ready=conditions.get("Ready", {}).get("status") == "True",
        terminating="deletionTimestamp" in metadata,
        trouble=shortened(_trouble(metadata["name"], conditions, containers)),
        out_of_memory=_out_of_memory(containers),
    )


def _trouble(name: str, conditions: Mapping[str, Any], containers: list[Mapping[str, Any]]) -> str:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"{name}: {scheduled.get('reason', 'Unschedulable')}: {scheduled.get('message', '')}".rstrip(": ")
    for each in containers:
        waiting = each.get("state", {}).get("waiting", {})
        if waiting.get("reason") in _WAITS_FOR_GOOD:
            return f"{name}: {waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    return "" if conditions.get("Ready", {}).get("status") == "True" else _crash(name, containers)


def _crash(name: str, containers: list[Mapping[str, Any]]) -> str:
    """How a container ended that Kubernetes will restart."""
    if _out_of_memory(containers):
        return f"{name}: OOMKilled: it needs more memory than spec.cluster allows"
    for ended in map(_ended, containers):
        if code := ended.get("exitCode"):
            *_, last = ended.get("message", "").strip().splitlines() or [""]
            return f"{name}: its container exited with code {code}: {last}".rstrip(": ")
    return ""


def _out_of_memory(containers: list[Mapping[str, Any]]) -> bool:
    return any(_ended(each).get("reason") == "OOMKilled" for each in containers)


def _ended(container: Mapping[str, Any]) -> Mapping[str, Any]:
    """How a container last ended."""
    for state in (container.get("state", {}), container.get("lastState", {})):
        if "terminated" in state:
            ended: Mapping[str, Any] = state["terminated"]
            return ended
    return {}
