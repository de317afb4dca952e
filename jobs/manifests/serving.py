"""From a model to the Kubernetes objects that serve it: a RayService with pods like those of a job's workers."""

from collections.abc import Iterable
from typing import Any

from jobs.kube.names import NODE_TYPE_LABEL, SERVICE_LABEL
from jobs.manifests.objects import EVERY_ADDRESS, namespaced, network_policy, ray_cluster
from jobs.manifests.operator_config import OperatorConfig
from jobs.manifests.pods import Pods, cpu_quantity, keep_from_kubernetes, pod_template, ray_cpus, worker_resources
from jobs.spec.cluster import ClusterSpec
from jobs.spec.job import API_VERSION, EmbeddingJob, apply_overrides, parse_job_spec
from jobs.spec.yaml12 import Block, RawSpec, write_yaml
from ray_app.job_spec import WorkersSpec
from ray_app.serving.settings import PORT, ServeSettings


def job_spec_for(name: str | None, overrides: Iterable[str]) -> EmbeddingJob:
    """A job spec for a model that has none. Only `overrides` set anything about its pods."""
    unused = {"uri": "s3://none/none"}
    value = {
        "apiVersion": API_VERSION,
        "kind": "EmbeddingJob",
        "metadata": {"name": name or "f2llm-serve"},
        "spec": {"model": {"architecture": {}}, "data": unused, "storage": unused},
    }
    return parse_job_spec(apply_overrides(RawSpec("--set", value), overrides))


def render_service(
    model: str, job_spec: EmbeddingJob, config: OperatorConfig, *, name: str, replicas: int
) -> list[dict[str, Any]]:
    """The RayService `name`, with its NetworkPolicy and PodDisruptionBudget. It uses `cluster`, `workers` and
    `storage.s3` of the job spec.

    Raises ConfigError for an unknown pod profile.
    """
    cluster, workers = job_spec.spec.cluster, job_spec.spec.workers
    pods = Pods(cluster, config, _labels(name), {})
    settings = ServeSettings(
        model=model,
        name=name,
        replicas=replicas,
        cpus=int(ray_cpus(workers.cpus)),
        gpus=workers.gpus,
        s3=job_spec.spec.storage.s3,
    )
    selector = {"matchLabels": {SERVICE_LABEL: name, NODE_TYPE_LABEL: "worker"}}
    # A drain evicts one pod at a time. With a single replica, a budget would block the drain of its node.
    guard = {"minAvailable": replicas - 1, "selector": selector}
    return [
        *([_object(job_spec, "policy/v1", "PodDisruptionBudget", name, spec=guard)] if replicas > 1 else []),
        _object(
            job_spec,
            "networking.k8s.io/v1",
            "NetworkPolicy",
            name,
            spec=network_policy(_labels(name), config, ports=[PORT]),
        ),
        _object(
            job_spec,
            "ray.io/v1",
            "RayService",
            name,
            spec={
                # The head stays in the Service: its proxy answers during a rolling update of the replicas.
                "serveConfigV2": Block(write_yaml(_serve_config(settings))),
                "rayClusterConfig": ray_cluster(
                    config,
                    _template(pods, "ray-head", cluster, workers),
                    _template(pods, "ray-worker", cluster, workers),
                    cpus=workers.cpus,
                    replicas=replicas,
                    least=replicas,
                    most=replicas,
                ),
            },
        ),
    ]


def _serve_config(settings: ServeSettings) -> dict[str, Any]:
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": EVERY_ADDRESS, "port": PORT},
        "logging_config": {"enable_access_log": False},
        "applications": [
            {
                "name": "f2llm",
                "route_prefix": "/",
                "import_path": "ray_app.serving.ray_serve:build",
                "args": settings.model_dump(mode="json", exclude_none=True),
            }
        ],
    }


def _template(pods: Pods, container: str, cluster: ClusterSpec, workers: WorkersSpec) -> dict[str, Any]:
    head = container == "ray-head"
    settings = [
        *((profile.head if head else profile.worker) for profile in pods.profiles),
        cluster.head if head else cluster.worker,
    ]
    template = pod_template(
        pods,
        container,
        settings,
        resources={"cpu": cpu_quantity(cluster.head.cpus)} if head else worker_resources(workers),
        shared_memory="1Gi" if head else cluster.worker.shared_memory,
        env={},
    )
    keep_from_kubernetes(template, cluster)
    if not head:  # for a head without named ports, KubeRay adds all ports itself
        template["spec"]["containers"][0]["ports"] = [{"name": "serve", "containerPort": PORT}]
    return template


def _labels(name: str) -> dict[str, str]:
    return {SERVICE_LABEL: name}


def _object(job_spec: EmbeddingJob, api_version: str, kind: str, name: str, **content: Any) -> dict[str, Any]:
    return namespaced(job_spec.metadata.namespace, _labels(name), api_version, kind, name, **content)
