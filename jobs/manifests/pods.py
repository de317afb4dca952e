"""Pod templates of a job: a fixed part, and the few settings of the job spec.

All pods fit the `restricted` pod security standard: no root, no capabilities, a read-only root file system. Shared
memory and scratch space are mounted at the paths that programs write to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from jobs.kube.names import (
    ATTEMPT_LABEL,
    JOB_LABEL,
    NODE_TYPE_LABEL,
    attempt_id,
    attempt_name,
    guard_name,
    job_labels,
    progress_name,
)
from jobs.manifests.operator_config import OperatorConfig, Profile
from jobs.manifests.tls import ENVIRONMENT as TLS_ENVIRONMENT
from jobs.manifests.tls import add_certificate
from jobs.spec.cluster import ClusterSpec, PodSettings, VolumeMount
from jobs.spec.job import EmbeddingJob
from ray_app.job_spec import WorkersSpec
from ray_app.structured_log import FORMAT_VARIABLE

JOB_SPEC_DIR = "/etc/f2llm"
JOB_SPEC_FILE = "job.yaml"
POD_LOG = "F2LLM_POD_LOG"
"""Environment variable in the head with the path of its container's output, which Ray does not give to a driver."""
_DRAIN_SHARE = 0.75
"""Share of the grace period for draining. Processes exit in the rest."""
_HEAD_DRAIN_SECONDS = 5

# They prevent consolidation and replacement for drift during training, but not a spot interruption.
_STAYS = {"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}


@dataclass(frozen=True)
class Pods:
    """The common settings of all pods of a Ray cluster."""

    cluster: ClusterSpec
    config: OperatorConfig
    labels: Mapping[str, str]
    annotations: Mapping[str, str]

    @property
    def profiles(self) -> list[Profile]:
        return self.config.profiles_of(self.cluster)

    @property
    def grace_seconds(self) -> int:
        given = [profile.grace_seconds for profile in self.profiles if profile.grace_seconds is not None]
        return min([self.config.grace_seconds, *given])

    @property
    def drain_seconds(self) -> int:
        return int(self.grace_seconds * _DRAIN_SHARE)


@dataclass(frozen=True)
class Attempt:
    """The attempt of a job that the pods belong to."""

    job: EmbeddingJob
    config: OperatorConfig
    number: int
    uid: str

    @property
    def labels(self) -> dict[str, str]:
        return {**job_labels(self.job.metadata.name), ATTEMPT_LABEL: str(self.number)}

    @property
    def pods(self) -> Pods:
        return Pods(self.job.spec.cluster, self.config, self.labels, _STAYS)


def head_template(attempt: Attempt) -> dict[str, Any]:
    """The pod with Ray's control plane and the driver."""
    job, cluster = attempt.job, attempt.job.spec.cluster
    name = job.metadata.name
    job_spec = {"name": "job-spec", "configMap": {"name": attempt_name(name, attempt.number)}}
    template = pod_template(
        attempt.pods,
        "ray-head",
        [*(profile.head for profile in attempt.pods.profiles), cluster.head],
        resources={"cpu": cpu_quantity(cluster.head.cpus)},
        shared_memory="1Gi",
        env={
            # The ConfigMap for the driver's reports, and the id of its attempt.
            "F2LLM_PROGRESS": progress_name(name),
            "F2LLM_ATTEMPT": attempt_id(attempt.uid, attempt.number),
            FORMAT_VARIABLE: attempt.config.log_format.value,
            # Short, since the head has no work that could move to another node.
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(_HEAD_DRAIN_SECONDS),
            # Before it exits, the driver writes a checkpoint.
            "RAY_JOB_STOP_WAIT_TIME_S": str(attempt.pods.drain_seconds),
        },
        volumes=[job_spec],
        mounts=[{"name": "job-spec", "mountPath": JOB_SPEC_DIR, "readOnly": True}],
    )
    # KubeRay runs this before `ray start` in the same shell, so in the same process, which is not process 1.
    template["spec"]["containers"][0]["command"] = [f"export {POD_LOG}=/proc/$BASHPID/fd/1"]
    template["spec"]["serviceAccountName"] = cluster.service_account or guard_name(name)
    template["spec"]["automountServiceAccountToken"] = True
    return template


def worker_template(attempt: Attempt) -> dict[str, Any]:
    """The template of a worker pod, which has no access to the Kubernetes API."""
    spec = attempt.job.spec
    template = pod_template(
        attempt.pods,
        "ray-worker",
        [*(profile.worker for profile in attempt.pods.profiles), spec.cluster.worker],
        resources=worker_resources(spec.workers),
        shared_memory=spec.cluster.worker.shared_memory,
        env={},
    )
    keep_from_kubernetes(template, spec.cluster)
    if any(profile.same_zone for profile in attempt.pods.profiles):
        template["spec"]["affinity"] = _same_zone(attempt)
    return template


def keep_from_kubernetes(template: dict[str, Any], cluster: ClusterSpec) -> None:
    """Remove access to the Kubernetes API. The ServiceAccount stays: it can have the cloud identity for the store."""
    if cluster.service_account is not None:
        template["spec"]["serviceAccountName"] = cluster.service_account
    template["spec"]["automountServiceAccountToken"] = False


def ray_cpus(cpus: float) -> str:
    """CPUs that Ray schedules on a worker, rounded up, since Ray counts whole CPUs."""
    return str(ceil(cpus))


def worker_resources(workers: WorkersSpec) -> dict[str, str]:
    """CPUs and GPUs of a worker pod."""
    gpus = {"nvidia.com/gpu": str(workers.gpus)} if workers.gpus else {}
    return {"cpu": cpu_quantity(workers.cpus), **gpus}


def pod_template(
    pods: Pods,
    container: str,
    settings: list[PodSettings],
    *,
    resources: Mapping[str, str],
    shared_memory: str,
    env: Mapping[str, str],
    volumes: list[dict[str, Any]] | None = None,
    mounts: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """A pod with one container. `settings` are applied in order, and the last one wins."""
    cluster, config = pods.cluster, pods.config
    environment = {
        "HOME": "/tmp",
        "USER": "f2llm",  # libraries need a user name, which the user id of a pod may not have
        "HF_HOME": "/tmp/huggingface",
        "TORCH_EXTENSIONS_DIR": "/tmp/torch_extensions",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRAFANA_HOST": "DISABLED",  # so that Ray's dashboard does not look for one; a profile can set it
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(pods.drain_seconds),
        **{name: value for profile in pods.profiles for name, value in profile.env.items()},
        **cluster.env,
        **env,
        **(TLS_ENVIRONMENT if config.tls is not None else {}),
    }
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": pods.grace_seconds,
        "enableServiceLinks": False,
        # As process 1, Ray would ignore SIGTERM while Python loads, and a deletion would take the whole grace period.
        "shareProcessNamespace": True,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": config.run_as_user,
            "runAsGroup": config.run_as_user,
            "fsGroup": config.run_as_user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": {name: value for each in settings for name, value in each.node_selector.items()},
        "tolerations": [_toleration(each) for setting in settings for each in setting.tolerations],
        "imagePullSecrets": [{"name": name} for name in cluster.image_pull_secrets],
        "priorityClassName": cluster.priority_class,
        "containers": [
            {
                "name": container,
                "image": cluster.image or config.image,
                "imagePullPolicy": config.image_pull_policy,
                "env": [{"name": name, "value": value} for name, value in environment.items()],
                "envFrom": [{"secretRef": {"name": name}} for name in cluster.secrets],
                "resources": _resources(settings, resources),
                "terminationMessagePolicy": "FallbackToLogsOnError",  # so that the pod's status has the reason
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "scratch", "mountPath": "/tmp"},
                    {"name": "shared-memory", "mountPath": "/dev/shm"},
                    *(mounts or []),
                    *(
                        {"name": each.name, "mountPath": each.mount_path, "readOnly": each.read_only}
                        for each in cluster.volumes
                    ),
                ],
            }
        ],
        "volumes": [
            {"name": "scratch", "emptyDir": {}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": shared_memory}},
            *(volumes or []),
            *map(_volume, cluster.volumes),
        ],
    }
    if config.tls is not None:
        add_certificate(pod, config.tls, image=config.image, head=container == "ray-head")
    return {
        "metadata": _without_empty({"labels": dict(pods.labels), "annotations": dict(pods.annotations)}),
        "spec": _without_empty(pod),
    }


def _resources(settings: list[PodSettings], own: Mapping[str, str]) -> dict[str, Any]:
    """CPUs are only requests, since a limit would slow a pod down on an idle node. Other resources are also limits."""
    wanted = {**own, **{name: value for each in settings for name, value in each.resources.items()}}
    for each in settings:
        if each.memory is not None:
            wanted["memory"] = each.memory
    limits = {name: value for name, value in wanted.items() if name != "cpu"}
    return _without_empty({"requests": wanted, "limits": limits})


def _same_zone(attempt: Attempt) -> dict[str, Any]:
    """All workers must run in the zone of the first worker. The head can run in any zone."""
    workers = {JOB_LABEL: attempt.job.metadata.name, NODE_TYPE_LABEL: "worker"}
    term = {"labelSelector": {"matchLabels": workers}, "topologyKey": "topology.kubernetes.io/zone"}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _toleration(each: Any) -> dict[str, Any]:
    return {name: value for name, value in each.model_dump().items() if value is not None}


def _volume(each: VolumeMount) -> dict[str, Any]:
    if each.claim is not None:
        return {"name": each.name, "persistentVolumeClaim": {"claimName": each.claim, "readOnly": each.read_only}}
    if each.config_map is not None:
        return {"name": each.name, "configMap": {"name": each.config_map}}
    return {"name": each.name, "secret": {"secretName": each.secret}}


def _without_empty(value: dict[str, Any]) -> dict[str, Any]:
    """Without empty values, also inside containers."""
    kept = {name: each for name, each in value.items() if each not in (None, [], {})}
    if "containers" in kept:
        kept["containers"] = [_without_empty(each) for each in kept["containers"]]
    return kept


def cpu_quantity(cpus: float) -> str:
    """CPUs as a Kubernetes quantity."""
    return f"{round(cpus * 1000)}m" if cpus % 1 else f"{cpus:.0f}"
