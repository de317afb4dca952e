"""The objects of a job on Kubernetes, as far as a decision needs them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from jobs.kube.driver_report import DriverReport
from jobs.kube.names import ATTEMPT_LABEL, EVALUATION_GROUP, GROUP_LABEL, NODE_TYPE_LABEL

_WAITS_FOR_GOOD = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"}
)


@dataclass(frozen=True)
class Pod:
    """A pod of a job; one that `measures` checkpoints is no worker. `trouble` says why it does not come up, empty where
    nothing is wrong.
    """

    name: str
    attempt: str
    is_head: bool
    ready: bool
    terminating: bool = False
    trouble: str = ""
    out_of_memory: bool = False
    measures: bool = False


@dataclass(frozen=True)
class Observed:
    """Of the attempt that the status counts: its RayJob, RayCluster and driver report; and the pods of all attempts.

    `stop_request` is the id of the attempt that was last asked to stop, `document` the text that the attempt began
    with, empty where none has.
    """

    ray_job: Mapping[str, Any] | None = None
    ray_cluster: Mapping[str, Any] | None = None
    pods: tuple[Pod, ...] = ()
    driver_report: DriverReport | None = None
    stop_request: str = ""
    job_spec: str = ""

    def workers(self, attempt: int) -> list[Pod]:
        """Worker pods of an attempt that are meant to stay."""
        return [
            pod
            for pod in self.pods
            if pod.attempt == str(attempt) and not pod.is_head and not pod.measures and not pod.terminating
        ]

    @property
    def deployment_status(self) -> str:
        """KubeRay's word for where the RayJob is; empty before it has one."""
        return (self.ray_job or {}).get("status", {}).get("jobDeploymentStatus") or ""

    @property
    def has_ended(self) -> bool:
        return self.deployment_status in ("Complete", "Failed", "ValidationFailed")

    @property
    def waits_for_quota(self) -> bool:
        """Kueue holds a RayJob back by suspending it, and takes its pods away by the same."""
        suspended = bool((self.ray_job or {}).get("spec", {}).get("suspend"))
        return suspended or self.deployment_status in ("Suspending", "Suspended")

    @property
    def begun(self) -> datetime | None:
        """When KubeRay last began to make the pods, each time that Kueue lets it; None where it has not."""
        begun = (self.ray_job or {}).get("status", {}).get("startTime")
        return datetime.fromisoformat(begun) if begun and self.deployment_status else None

    def since_begun(self) -> "Observed":
        """Without the report of a driver whose pods Kueue deleted since. The time of a report is in minutes."""
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
        """Why pods do not come up: the first of them that says so, or KubeRay where they cannot even be made."""
        message = next((each["message"] for each in self._cluster_conditions if each["type"] == "ReplicaFailure"), "")
        refusal = ": ".join(message.splitlines())
        return next((pod.trouble for pod in self.pods if pod.trouble and not pod.terminating), refusal)

    @property
    def _cluster_conditions(self) -> list[Mapping[str, Any]]:
        """Conditions of the RayCluster that are true."""
        found = (self.ray_cluster or {}).get("status", {}).get("conditions") or []
        return [each for each in found if each["status"] == "True"]


def pod_of(body: Mapping[str, Any]) -> Pod:
    """The few things of a pod that matter, so that an index of a thousand jobs stays small."""
    metadata, status = body["metadata"], body.get("status", {})
    labels = metadata.get("labels", {})
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return Pod(
        name=metadata["name"],
        attempt=labels.get(ATTEMPT_LABEL, ""),
        is_head=labels.get(NODE_TYPE_LABEL) == "head",
        measures=labels.get(GROUP_LABEL) == EVALUATION_GROUP,
        ready=conditions.get("Ready", {}).get("status") == "True",
        terminating="deletionTimestamp" in metadata,
        trouble=_trouble(metadata["name"], conditions, containers),
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
    """How a container ended that is to be started again."""
    if _out_of_memory(containers):
        return f"{name}: OOMKilled: it needs more memory than spec.cluster gives it"
    for ended in map(_ended, containers):
        if code := ended.get("exitCode"):
            *_, last = ended.get("message", "").strip().splitlines() or [""]
            return f"{name}: its container ended with exit code {code}: {last}".rstrip(": ")
    return ""


def _out_of_memory(containers: list[Mapping[str, Any]]) -> bool:
    return any(_ended(each).get("reason") == "OOMKilled" for each in containers)


def _ended(container: Mapping[str, Any]) -> Mapping[str, Any]:
    """How a container ended last."""
    for state in (container.get("state", {}), container.get("lastState", {})):
        if "terminated" in state:
            ended: Mapping[str, Any] = state["terminated"]
            return ended
    return {}
