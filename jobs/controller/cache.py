"""The objects from the operator's watches, and the objects of one job among them."""

from collections.abc import Iterable, Mapping, Set
from typing import Any

from jobs.kube.driver_report import STOP_KEY, driver_report_in
from jobs.kube.names import attempt_id, attempt_name, progress_name
from jobs.kube.observed import Observed
from jobs.kube.resource import is_owned, key_of, uid_of
from jobs.kube.status import JobStatus, status_of
from jobs.manifests.pods import JOB_SPEC_FILE
from ray_app.run_directory.status import RunStatus

Key = tuple[str, str]
Index = Mapping[Key, Iterable[tuple[str, Any]]]
"""(uid, object) pairs by key."""


class Cache:
    """Indices by (namespace, name) of an object; pods by (namespace, name of their job)."""

    def __init__(
        self,
        *,
        jobs: Index,
        ray_jobs: Index,
        ray_clusters: Index,
        config_maps: Index,
        pods: Index,
    ) -> None:
        self._jobs, self._ray_jobs, self._ray_clusters = jobs, ray_jobs, ray_clusters
        self._config_maps, self._pods = config_maps, pods
        self._gone: frozenset[str] = frozenset()

    def uids(self) -> set[str]:
        """The uids of all objects."""
        indices = (self._jobs, self._ray_jobs, self._ray_clusters, self._config_maps, self._pods)
        return {uid for index in indices for key in list(index) for uid, _ in index.get(key, ())}

    def forget(self, uids: Set[str]) -> bool:
        """Drop objects that were deleted while a watch was broken. Returns whether any of these uids is new."""
        before = self._gone
        self._gone = frozenset((before | uids) & self.uids())
        return not self._gone <= before

    def job(self, key: Key) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self._first(self._jobs, key)
        return found

    def jobs(self) -> list[Mapping[str, Any]]:
        return [each for key in list(self._jobs) for each in self._at(self._jobs, key)]

    def of(self, resource: Mapping[str, Any], status: JobStatus) -> Observed:
        """The objects of a job's current attempt, and all of its pods."""
        namespace, name = key_of(resource)
        uid = uid_of(resource)
        attempt = (namespace, attempt_name(name, status.attempt))
        ray_job = self._owned(self._ray_jobs, attempt, uid)
        cluster = (ray_job or {}).get("status", {}).get("rayClusterName") or ""
        config_map = self._progress(resource)
        job_spec = self._owned(self._config_maps, attempt, uid)
        return Observed(
            ray_job=ray_job,
            ray_cluster=self._first(self._ray_clusters, (namespace, cluster)),
            pods=tuple(sorted(self._at(self._pods, (namespace, name)), key=lambda pod: pod.name)),
            driver_report=driver_report_in(config_map, attempt=attempt_id(uid, status.attempt)),
            stop_request=((config_map or {}).get("data") or {}).get(STOP_KEY, ""),
            job_spec=((job_spec or {}).get("data") or {}).get(JOB_SPEC_FILE, ""),
        )

    def run_of(self, resource: Mapping[str, Any]) -> RunStatus | None:
        """The last run status that the driver of the newest attempt reported; None if the attempt is not active."""
        status = status_of(resource)
        attempt = attempt_id(resource["metadata"]["uid"], status.attempt)
        report = driver_report_in(self._progress(resource), attempt=attempt) if status.active else None
        return report.run if report else None

    def _progress(self, resource: Mapping[str, Any]) -> Mapping[str, Any] | None:
        namespace, name = key_of(resource)
        return self._owned(self._config_maps, (namespace, progress_name(name)), uid_of(resource))

    def _owned(self, index: Index, key: Key, uid: str) -> Mapping[str, Any] | None:
        """The object if the job with this uid owns it. Anybody can create one with its name."""
        found = self._first(index, key)
        return found if found is not None and is_owned(found, uid) else None

    def _first(self, index: Index, key: Key) -> Any:
        return next(iter(self._at(index, key)), None)

    def _at(self, index: Index, key: Key) -> list[Any]:
        return [value for uid, value in index.get(key, ()) if uid not in self._gone]


def slim_ray_job(body: Mapping[str, Any]) -> dict[str, Any]:
    """The required fields of a RayJob, without pod templates: a thousand of them would need too much memory."""
    metadata = {key: body["metadata"].get(key) for key in ("name", "namespace", "uid", "labels", "ownerReferences")}
    groups = (body["spec"].get("rayClusterSpec") or {}).get("workerGroupSpecs") or []
    cluster = {"workerGroupSpecs": [{"replicas": each.get("replicas")} for each in groups]}
    return {
        "metadata": metadata,
        "spec": {"suspend": body["spec"].get("suspend"), "rayClusterSpec": cluster},
        "status": dict(body.get("status", {})),
    }


def slim_ray_cluster(body: Mapping[str, Any]) -> dict[str, Any]:
    """The required fields of a RayCluster."""
    status, groups = body.get("status", {}), body["spec"].get("workerGroupSpecs") or []
    counts = [
        {**{key: each.get(key) for key in ("groupName", "replicas", "maxReplicas")}, "gates": _gates(each)}
        for each in groups
    ]
    return {
        "metadata": {key: body["metadata"].get(key) for key in ("name", "namespace", "uid")},
        "spec": {"workerGroupSpecs": counts},
        "status": {key: status.get(key) for key in ("state", "conditions")},
    }


def _gates(group: Mapping[str, Any]) -> list[str]:
    """Names of the scheduling gates of a group's pods."""
    return [gate["name"] for gate in group.get("template", {}).get("spec", {}).get("schedulingGates") or []]


def slim_config_map(body: Mapping[str, Any]) -> dict[str, Any]:
    """Content and owners of a ConfigMap."""
    owners = body["metadata"].get("ownerReferences")
    return {"metadata": {"ownerReferences": owners}, "data": dict(body.get("data") or {})}


def slim_job(body: Mapping[str, Any]) -> dict[str, Any]:
    """The job without the fields of its metadata that only the API server uses."""
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    return {**body, "metadata": metadata}
