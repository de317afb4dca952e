"""The inventory of a cluster for `f2llm doctor --cluster`: answers of its API server. Other modules check them.

Every user of a cluster can read the served types (`/apis`, `/openapi/v3`). Some users cannot read nodes, Deployments or
Secrets, which the inventory records as HIDDEN.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from jobs.errors import ConfigError, KubernetesError, RefusedByKubernetes
from jobs.kube.names import QUEUE_LABEL
from jobs.spec.job import EmbeddingJob

if TYPE_CHECKING:
    from jobs.kube.api import KubeApi

Object = dict[str, Any]
T = TypeVar("T")


class Hidden(Enum):
    """Replaces an answer that the user may not read."""

    HIDDEN = "hidden"


HIDDEN = Hidden.HIDDEN
Look = Object | None | Hidden
"""An object; None if it does not exist, HIDDEN if the user may not read it."""
Looks = tuple[Object, ...] | Hidden


@dataclass(frozen=True, order=True)
class Right:
    """A permission in a namespace."""

    verb: str
    resource: str
    group: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f'/{self.subresource}' if self.subresource else ''}"


JOB_RIGHTS = tuple(
    Right(verb, "embeddingjobs", "f2llm.dev") for verb in ("get", "list", "watch", "create", "patch", "delete")
)
POD_RIGHTS = (Right("list", "pods"), Right("get", "pods", subresource="log"), Right("list", "events", "events.k8s.io"))
_TYPES = {
    "EmbeddingJob": ("apis/f2llm.dev/v1alpha1", "dev.f2llm.v1alpha1.EmbeddingJob"),
    "RayJob": ("apis/ray.io/v1", "io.ray.v1.RayJob"),
    "RayCluster": ("apis/ray.io/v1", "io.ray.v1.RayCluster"),
}
KUBERAY_LABEL = "app.kubernetes.io/component=kuberay-operator"
OPERATOR_LABEL = "app.kubernetes.io/name=f2llm-operator"
_AUTOSCALER = ("cluster-autoscaler-status", "kube-system")
"""The ConfigMap with the status of the cluster autoscaler."""


@dataclass(frozen=True)
class ClusterInventory:
    """A cluster as one user sees it. `types` contains the schema of each served type. Of Secrets, only the names of
    their keys are kept, under `keys`.
    """

    server: str
    version: str
    namespace: str
    groups: frozenset[str] = frozenset()
    types: Mapping[str, Object] = field(default_factory=dict)
    kuberay: Looks = ()
    operators: Looks = ()
    settings: Look = None
    allowed: Mapping[Right, bool] = field(default_factory=dict)
    namespace_object: Look = None
    nodes: Looks = ()
    autoscaler: Look = None
    named: Mapping[tuple[str, str], Look] = field(default_factory=dict)
    """By (kind, name): the objects that the job spec refers to."""
    refusal: str | None = None
    """The message of the API server if it denies the job spec."""


def read_cluster(api: "KubeApi", job: EmbeddingJob | None) -> ClusterInventory:
    """Read the inventory, with the objects that `job` refers to. Raises KubernetesError if the API server does not
    answer, or does not authenticate the user.
    """
    version = (api.read("/version") or {}).get("gitVersion", "of unknown version")
    groups = frozenset(each["name"] for each in (api.read("/apis") or {}).get("groups", ()))
    with ThreadPoolExecutor(max_workers=8) as pool:
        allowed = pool.map(lambda right: _allowed(api, right), (*JOB_RIGHTS, *POD_RIGHTS))
        named = {key: pool.submit(_object, api, *key) for key in (() if job is None else names_of(job))}
        types = {kind: pool.submit(_schema, api, kind) for kind in _TYPES if _group(kind) in groups}
        kuberay, operators = (pool.submit(_deployments, api, selector) for selector in (KUBERAY_LABEL, OPERATOR_LABEL))
        nodes = pool.submit(_visible, lambda: tuple(api.list("Node")["items"]))
        autoscaler = pool.submit(_visible, lambda: api.get("ConfigMap", _AUTOSCALER[0], namespace=_AUTOSCALER[1]))
        space = pool.submit(_visible, lambda: api.get("Namespace", api.namespace))
        refusal = pool.submit(_refusal, api, job) if job is not None and "f2llm.dev" in groups else None
        return ClusterInventory(
            server=api.server,
            version=version,
            namespace=api.namespace,
            groups=groups,
            types={kind: found for kind, each in types.items() if (found := each.result()) is not None},
            kuberay=kuberay.result(),
            operators=operators.result(),
            settings=_settings(api, operators.result()),
            allowed=dict(zip((*JOB_RIGHTS, *POD_RIGHTS), allowed, strict=True)),
            namespace_object=space.result(),
            nodes=nodes.result(),
            autoscaler=autoscaler.result(),
            named={key: each.result() for key, each in named.items()},
            refusal=None if refusal is None else refusal.result(),
        )


def names_of(job: EmbeddingJob) -> list[tuple[str, str]]:
    """(kind, name) of every object that a job spec refers to."""
    cluster = job.spec.cluster
    volumes = [
        ("PersistentVolumeClaim", each.claim)
        if each.claim
        else ("ConfigMap", each.config_map)
        if each.config_map
        else ("Secret", each.secret)
        for each in cluster.volumes
    ]
    expected = [
        *(("Secret", name) for name in (*cluster.secrets, *cluster.image_pull_secrets)),
        ("ServiceAccount", cluster.service_account),
        ("PriorityClass", cluster.priority_class),
        ("LocalQueue", job.metadata.labels.get(QUEUE_LABEL)),
        *volumes,
    ]
    return list(dict.fromkeys((kind, name) for kind, name in expected if name is not None))


def _group(kind: str) -> str:
    return _TYPES[kind][0].split("/")[1]


def _schema(api: "KubeApi", kind: str) -> Object | None:
    path, name = _TYPES[kind]
    published = api.read(f"/openapi/v3/{path}") or {}
    found: Object | None = published.get("components", {}).get("schemas", {}).get(name)
    return found


def _visible(look: Callable[[], T]) -> T | Hidden:
    try:
        return look()
    except RefusedByKubernetes:
        return HIDDEN


def _deployments(api: "KubeApi", selector: str) -> Looks:
    """Deployments in all namespaces."""
    return _visible(lambda: tuple(api.list("Deployment", selector=selector, everywhere=True)["items"]))


def _object(api: "KubeApi", kind: str, name: str) -> Look:
    if kind == "LocalQueue":
        return _visible(lambda: _queue(api, name))
    found = _visible(lambda: api.get(kind, name))
    if kind != "Secret" or found is None or found is HIDDEN:
        return found
    return {"type": found.get("type", ""), "keys": sorted(found.get("data") or ())}


def _queue(api: "KubeApi", name: str) -> Object | None:
    """A LocalQueue in the served API version; None if it does not exist or Kueue is not installed."""
    group = api.read("/apis/kueue.x-k8s.io")
    if group is None:
        return None
    return api.read(f"/apis/{group['preferredVersion']['groupVersion']}/namespaces/{api.namespace}/localqueues/{name}")


def _settings(api: "KubeApi", operators: Looks) -> Look:
    """The ConfigMap with the settings of the operator."""
    if operators is HIDDEN or not operators:
        return HIDDEN if operators is HIDDEN else None
    pod, namespace = operators[0]["spec"]["template"]["spec"], operators[0]["metadata"]["namespace"]
    names = [each["configMap"]["name"] for each in pod.get("volumes", ()) if "configMap" in each]
    return _visible(lambda: api.get("ConfigMap", names[0], namespace=namespace)) if names else None


def _allowed(api: "KubeApi", right: Right) -> bool:
    attributes = {"namespace": api.namespace, "verb": right.verb, "group": right.group, "resource": right.resource}
    review = api.create(
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**attributes, "subresource": right.subresource}},
        }
    )
    return bool(review["status"]["allowed"])


def _refusal(api: "KubeApi", job: EmbeddingJob) -> str | None:
    """Why the API server denies the job spec; None if it accepts it. Another check reports missing permissions."""
    from jobs.kube.client import JobsClient

    try:
        JobsClient(api).submit(job, dry_run=True)
    except RefusedByKubernetes as error:
        return None if "is forbidden" in error.message and "cannot patch" in error.message else error.message
    except (ConfigError, KubernetesError) as error:
        return error.message
    return None
