"""Objects that a job and a served model share: the Ray cluster, its NetworkPolicy, and the names of objects."""

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.kube.names import WORKER_GROUP
from jobs.manifests.operator_config import OperatorConfig
from jobs.manifests.pods import ray_cpus

METRICS_PORT = 8080
_DASHBOARD_PORT = 8265
EVERY_ADDRESS = "0.0.0.0"  # nosec B104
"""Where a process of a pod listens. The pod's network policy decides who can connect."""


def namespaced(
    namespace: str | None, labels: Mapping[str, str], api_version: str, kind: str, name: str, **content: Any
) -> dict[str, Any]:
    """An object. Without a namespace, the command that applies it chooses one."""
    where = {"namespace": namespace} if namespace else {}
    metadata = {"name": name, **where, "labels": dict(labels)}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}


def network_policy(own: Mapping[str, str], config: OperatorConfig, *, ports: Sequence[int] = ()) -> dict[str, Any]:
    """The spec of a NetworkPolicy for the pods with the labels `own`. They accept connections from each other, from
    KubeRay to the dashboard, from the scrapers of the settings to the metrics, and from all namespaces to `ports`.
    Outgoing connections are not restricted.
    """
    pods = {"matchLabels": dict(own)}
    place = {"kubernetes.io/metadata.name": config.kuberay_namespace} if config.kuberay_namespace else {}
    kuberay = {
        "namespaceSelector": _labelled(place) if place else {},
        "podSelector": _labelled({"app.kubernetes.io/component": "kuberay-operator"}),
    }
    scrapers = [
        {
            "namespaceSelector": _labelled(each.namespace_labels),
            **({"podSelector": _labelled(each.pod_labels)} if each.pod_labels else {}),
        }
        for each in config.scrapers
    ]
    return {
        "podSelector": pods,
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [{"podSelector": pods}]},
            _admitted([kuberay], [_DASHBOARD_PORT]),
            # Without peers, a rule would admit everybody.
            *([_admitted(scrapers, [METRICS_PORT])] if scrapers else []),
            *([_admitted([{"namespaceSelector": {}}], ports)] if ports else []),
        ],
    }


def _admitted(peers: list[dict[str, Any]], ports: Sequence[int]) -> dict[str, Any]:
    return {"from": peers, "ports": [{"protocol": "TCP", "port": port} for port in ports]}


def _labelled(labels: Mapping[str, str]) -> dict[str, Any]:
    return {"matchLabels": dict(labels)}


def ray_cluster(
    config: OperatorConfig,
    head: Mapping[str, Any],
    worker: Mapping[str, Any],
    *,
    cpus: float,
    replicas: int,
    least: int,
    most: int,
    others: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The spec of a RayCluster with these pod templates and one group of workers with `cpus` CPUs each. `others` are
    additional groups.
    """
    return {
        "rayVersion": config.ray_version,
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            # 0 CPUs, so that Ray places no worker on the head.
            "rayStartParams": {"num-cpus": "0", "dashboard-host": EVERY_ADDRESS},
            "template": head,
        },
        "workerGroupSpecs": [
            worker_group(WORKER_GROUP, worker, {"num-cpus": ray_cpus(cpus)}, replicas=replicas, least=least, most=most),
            *others,
        ],
    }


def worker_group(
    name: str, template: Mapping[str, Any], start: Mapping[str, str], *, replicas: int, least: int, most: int
) -> dict[str, Any]:
    """A group of identical pods of a RayCluster. `start` are their options of `ray start`."""
    return {
        "groupName": name,
        "replicas": replicas,
        "minReplicas": least,
        "maxReplicas": most,
        "rayStartParams": dict(start),
        "template": template,
    }
