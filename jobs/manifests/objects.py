"""Objects that a job and a served model have in common: a Ray cluster, who may reach its pods, how they are named."""

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.kube.names import WORKER_GROUP
from jobs.manifests.operator_config import OperatorConfig
from jobs.manifests.pods import ray_cpus

METRICS_PORT = 8080
_DASHBOARD_PORT = 8265


def namespaced(
    namespace: str | None, labels: Mapping[str, str], api_version: str, kind: str, name: str, **content: Any
) -> dict[str, Any]:
    """An object; without a namespace it goes wherever it is applied."""
    place = {"namespace": namespace} if namespace else {}
    metadata = {"name": name, **place, "labels": dict(labels)}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}


def network_policy(own: Mapping[str, str], *, ports: Sequence[int]) -> dict[str, Any]:
    """The spec of a policy for the pods with the labels `own`: they reach each other, KubeRay the dashboard, and
    all namespaces reach `ports`. Out they may: to stores, hubs and each other.
    """
    pods = {"matchLabels": dict(own)}
    kuberay = {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}}
    return {
        "podSelector": pods,
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [{"podSelector": pods}]},
            {
                "from": [{"namespaceSelector": {}, "podSelector": kuberay}],
                "ports": [{"protocol": "TCP", "port": _DASHBOARD_PORT}],
            },
            {"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": port} for port in ports]},
        ],
    }


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
    """The spec of a RayCluster of these pod templates, with one group of workers of so many `cpus` each. `others` are
    groups beside it.
    """
    return {
        "rayVersion": config.ray_version,
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            # No core for work: what is on the head would be lost with nobody to repeat it.
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
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
    """Pods of a RayCluster that are alike; `start` are options of `ray start` in them."""
    return {
        "groupName": name,
        "replicas": replicas,
        "minReplicas": least,
        "maxReplicas": most,
        "rayStartParams": dict(start),
        "template": template,
    }
