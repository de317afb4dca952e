"""From a job to its Kubernetes objects. Pure, so that `f2llm render` prints the objects that the operator creates."""

from typing import Any

from jobs.kube.names import (
    EVALUATION_GROUP,
    JOB_LABEL,
    KUEUE_PREFIX,
    NODE_TYPE_LABEL,
    attempt_name,
    guard_name,
    job_labels,
    progress_name,
)
from jobs.manifests.objects import namespaced, network_policy, ray_cluster, worker_group
from jobs.manifests.operator_config import OperatorConfig
from jobs.manifests.pods import (
    JOB_SPEC_DIR,
    JOB_SPEC_FILE,
    POD_LOG,
    Attempt,
    head_template,
    ray_cpus,
    worker_template,
)
from jobs.spec.cluster import ClusterSpec
from jobs.spec.job import API_VERSION, EmbeddingJob
from ray_app.job_spec import EVALUATION_RESOURCE
from ray_app.structured_log import LogFormat


def render(job: EmbeddingJob, config: OperatorConfig, *, attempt: int = 1, uid: str = "") -> list[dict[str, Any]]:
    """Every object of a job and of one attempt, in the order of their creation.

    With the job's `uid`, the job owns them, and Kubernetes deletes them with it. Raises ConfigError for an unknown pod
    profile.
    """
    return [*standing_objects(job, config, uid=uid), *attempt_objects(job, config, attempt=attempt, uid=uid)]


def standing_objects(job: EmbeddingJob, config: OperatorConfig, *, uid: str) -> list[dict[str, Any]]:
    """The objects that a job has once, not per attempt. The operator creates them and never changes them."""
    name, account_name = job.metadata.name, job.spec.cluster.service_account
    account = [] if account_name else [_object(job, uid, "v1", "ServiceAccount", guard_name(name))]
    return [
        *account,
        # Without `data`, which the driver writes.
        _object(job, uid, "v1", "ConfigMap", progress_name(name)),
        _object(job, uid, "rbac.authorization.k8s.io/v1", "Role", progress_name(name), rules=[_progress_rule(name)]),
        _object(
            job,
            uid,
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            # Another ServiceAccount in the job spec needs another object, since existing ones are not changed.
            f"{progress_name(name)}-{account_name}" if account_name else progress_name(name),
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": progress_name(name)},
            subjects=[_account(job.spec.cluster, job)],
        ),
        _object(
            job,
            uid,
            "policy/v1",
            "PodDisruptionBudget",
            f"{name}-head",
            spec={
                # Not maxUnavailable: for it Kubernetes needs a `scale` subresource of the pod's owner.
                "minAvailable": 1,
                "selector": {"matchLabels": {JOB_LABEL: name, NODE_TYPE_LABEL: "head"}},
            },
        ),
        _object(
            job,
            uid,
            "networking.k8s.io/v1",
            "NetworkPolicy",
            guard_name(name),
            spec=network_policy({JOB_LABEL: name}, config),
        ),
    ]


def attempt_objects(job: EmbeddingJob, config: OperatorConfig, *, attempt: int, uid: str) -> list[dict[str, Any]]:
    """The objects of an attempt: its job spec, which never changes, and its RayJob, which is created once."""
    this = Attempt(job, config, attempt, uid)
    name = attempt_name(job.metadata.name, attempt)
    quiet = "--quiet " if config.log_format is LogFormat.JSON else ""  # progress lines are not JSON
    job_spec = _object(
        job, uid, "v1", "ConfigMap", name, data={JOB_SPEC_FILE: attempt_job_spec(job).to_yaml()}, immutable=True
    )
    ray_job = _object(
        job,
        uid,
        "ray.io/v1",
        "RayJob",
        name,
        spec={
            # The driver's output also goes to the log of the head pod, for `kubectl logs`. SIGTERM reaches both
            # processes; tee ignores it and ends after the driver's last line.
            "entrypoint": f"bash -c 'exec f2llm run {quiet}{JOB_SPEC_DIR}/{JOB_SPEC_FILE} "
            f"""> >(trap "" TERM; exec tee ${POD_LOG}) 2>&1'""",
            # No additional submitter pod, and after a lost head KubeRay submits the same job again.
            "submissionMode": "HTTPMode",
            # The operator decides about the next attempt, depending on how this one ended.
            "backoffLimit": 0,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 0,
            "rayClusterSpec": _ray_cluster(this),
        },
    )
    for part, kept in (("labels", job.metadata.labels), ("annotations", job.metadata.annotations)):
        ray_job["metadata"].setdefault(part, {}).update(
            {key: value for key, value in kept.items() if key.startswith(KUEUE_PREFIX)}
        )
    for each in (job_spec, ray_job):
        each["metadata"]["labels"] |= this.labels
    return [job_spec, ray_job]


def attempt_job_spec(job: EmbeddingJob) -> EmbeddingJob:
    """The job spec of the driver, which trains with all workers that Kubernetes provides.

    `replicas` is the number of pods, and `kubectl scale` changes it while the driver runs. The driver's own bounds are
    therefore wide: from `min` of the job spec (default: 1) to one worker per micro-batch of a step; more would be idle.
    """
    workers, slots = job.spec.workers, job.spec.train.micro_batches_per_step
    bounds = {"min": workers.min or 1, "max": max(workers.highest, slots)}
    # Ray counts whole CPUs. A worker with half of a pod's CPUs would leave room for a second worker in the pod.
    wide = workers.model_copy(update={**bounds, "cpus": float(ray_cpus(workers.cpus))})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"workers": wide, "suspend": False})})


def _ray_cluster(attempt: Attempt) -> dict[str, Any]:
    workers = attempt.job.spec.workers
    return ray_cluster(
        attempt.config,
        head_template(attempt),
        worker_template(attempt),
        cpus=workers.cpus,
        replicas=workers.replicas,
        least=0,
        most=attempt_job_spec(attempt.job).spec.workers.highest,
        others=[_evaluation_group(attempt)] if attempt.job.spec.evaluation.checkpoints else [],
    )


def _evaluation_group(attempt: Attempt) -> dict[str, Any]:
    """One pod like a worker's that evaluates checkpoints. Its Ray node has 0 CPUs, so that no worker runs there, and
    the resource that ray_app/orchestration/checkpoint_evaluator.py requests.
    """
    # KubeRay inserts the value into a shell command without quoting.
    start = {"num-cpus": "0", "resources": f'"{{\\"{EVALUATION_RESOURCE}\\": 1}}"'}
    return worker_group(EVALUATION_GROUP, worker_template(attempt), start, replicas=1, least=1, most=1)


def _progress_rule(name: str) -> dict[str, list[str]]:
    return {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": [progress_name(name)],
        "verbs": ["get", "patch"],
    }


def _account(cluster: ClusterSpec, job: EmbeddingJob) -> dict[str, Any]:
    name = cluster.service_account or guard_name(job.metadata.name)
    # Without a namespace the API server refuses the binding. A guess would give rights to an account of another one.
    where = {"namespace": job.metadata.namespace} if job.metadata.namespace else {}
    return {"kind": "ServiceAccount", "name": name, **where}


def _object(job: EmbeddingJob, uid: str, api_version: str, kind: str, name: str, **content: Any) -> dict[str, Any]:
    labels = job_labels(job.metadata.name)
    made = namespaced(job.metadata.namespace, labels, api_version, kind, name, **content)
    if uid:
        made["metadata"]["ownerReferences"] = [owner_reference(job.metadata.name, uid)]
    return made


def owner_reference(name: str, uid: str) -> dict[str, Any]:
    """The owner reference, by which Kubernetes deletes an object with its job."""
    return {
        "apiVersion": API_VERSION,
        "kind": "EmbeddingJob",
        "name": name,
        "uid": uid,
        "controller": True,
        # A foreground deletion of the job waits until its pods are deleted.
        "blockOwnerDeletion": True,
    }
