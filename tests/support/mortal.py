"""An operator that dies at one of its writes, and a reconciliation of a job without watches."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jobs.controller.cache import Cache, Key, slim_config_map, slim_ray_cluster, slim_ray_job
from jobs.controller.reconcile import reconcile
from jobs.kube.api import KubeApi, Object
from jobs.kube.names import JOB_LABEL
from jobs.kube.observed import Observed, pod_of
from jobs.kube.resource import key_of, uid_of
from jobs.kube.status import JobStatus
from jobs.manifests.operator_config import OperatorConfig


class Died(BaseException):
    """No error handler catches this, as with SIGKILL."""


@dataclass(frozen=True)
class MortalApi(KubeApi):
    """A connection whose process dies before write number `dies_at`, counted from 1."""

    dies_at: int = 0
    writes: list[str] = field(default_factory=list)

    def _json(self, method: str, path: str, *rest: Any) -> Object:
        if method != "GET":
            self.writes.append(f"{method} {path}")
            if len(self.writes) == self.dies_at:
                raise Died
        return super()._json(method, path, *rest)


def look_once(api: KubeApi, name: str, config: OperatorConfig, *, now: datetime) -> None:
    """One reconciliation, as after a change of the job: observe all objects, decide, and act."""
    resource = api.get("EmbeddingJob", name)
    assert resource is not None
    reconcile(api, config, resource, _seen_by(api), now=now)


def _seen_by(api: KubeApi) -> Callable[[Mapping[str, Any], JobStatus], Observed]:
    pods: dict[Key, list[Any]] = defaultdict(list)
    for body in api.list("Pod", selector=JOB_LABEL)["items"]:
        pods[body["metadata"]["namespace"], body["metadata"]["labels"][JOB_LABEL]].append((uid_of(body), pod_of(body)))

    def all_of(kind: str, slim: Callable[[Mapping[str, Any]], Any]) -> dict[Key, list[Any]]:
        return {key_of(body): [(uid_of(body), slim(body))] for body in api.list(kind, selector=JOB_LABEL)["items"]}

    return Cache(
        jobs={},
        ray_jobs=all_of("RayJob", slim_ray_job),
        ray_clusters=all_of("RayCluster", slim_ray_cluster),
        config_maps=all_of("ConfigMap", slim_config_map),
        pods=pods,
    ).of
