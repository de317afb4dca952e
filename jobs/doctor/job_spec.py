"""Checks of one job spec on a cluster. Pure: from an inventory to findings."""

from collections.abc import Iterator, Mapping
from typing import Any

from jobs.doctor.capacity import pods_that_fit
from jobs.doctor.check import Check
from jobs.doctor.cluster import adds_nodes
from jobs.doctor.cluster_inventory import HIDDEN, ClusterInventory, names_of
from jobs.errors import ConfigError
from jobs.manifests.operator_config import OperatorConfig, parse_operator_config
from jobs.manifests.pods import Attempt, head_template, worker_template
from jobs.spec.job import EmbeddingJob
from jobs.spec.volumes import MOUNT_REMEDY, is_remote, not_mounted, volume_of

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_LITERALS = " ".join(f"--from-literal={key}=..." for key in _KEYS)
_IDENTITIES = ("eks.amazonaws.com/role-arn", "iam.gke.io/gcp-service-account", "azure.workload.identity/client-id")
"""Annotations by which a cloud gives a ServiceAccount an identity (IRSA, Workload Identity)."""


def check_job_spec_on(job: EmbeddingJob, inventory: ClusterInventory) -> list[Check]:
    """Every finding about a job spec on this cluster."""
    settings = _settings(inventory)
    try:
        pods = [
            make(Attempt(job, settings or OperatorConfig(), 1, ""))["spec"] for make in (head_template, worker_template)
        ]
    except ConfigError as error:
        if settings is None:  # the operator might know the profile
            return [*_without_pods(job, inventory), Check("profiles", "unknown", error.message, error.remedy)]
        return [*_without_pods(job, inventory), Check("profiles", "missing", error.message, error.remedy)]
    profiles = ", ".join(job.spec.cluster.profiles)
    return [
        *_without_pods(job, inventory),
        *([Check("profiles", "ok", profiles)] if profiles else []),
        check_image(job, settings),
        check_capacity("head", 1, 1, pods[0], inventory),
        check_capacity(
            "workers", job.spec.workers.min or job.spec.workers.replicas, job.spec.workers.replicas, pods[1], inventory
        ),
    ]


def _without_pods(job: EmbeddingJob, inventory: ClusterInventory) -> Iterator[Check]:
    yield check_job_spec(job, inventory)
    yield from check_names(job, inventory)
    yield check_credentials(job, inventory)


def check_job_spec(job: EmbeddingJob, inventory: ClusterInventory) -> Check:
    """Whether the API server accepts the job spec."""
    name = job.metadata.name
    if "EmbeddingJob" not in inventory.types or inventory.namespace_object is None:
        return Check("job spec", "unknown", f"{name}: not checked, since the CRD or the namespace is missing")
    if inventory.refusal is not None:
        return Check("job spec", "missing", f"{name}: {inventory.refusal}", "fix the job spec as the message says")
    return Check("job spec", "ok", f"{name}: the API server accepts it")


def check_names(job: EmbeddingJob, inventory: ClusterInventory) -> Iterator[Check]:
    """Every object that the job spec refers to."""
    for kind, name in names_of(job):
        found = inventory.named.get((kind, name))
        if found is HIDDEN:
            yield Check(kind, "unknown", f"{name}: you may not read it")
        elif found is None:
            yield Check(
                kind, "missing", f"{name} does not exist in {inventory.namespace}", _how_to_get(kind, name, inventory)
            )
        elif kind == "Secret":
            yield Check(kind, "ok", f"{name}, with {', '.join(found['keys']) or 'no keys'}")
        else:
            yield Check(kind, "ok", name)


def check_credentials(job: EmbeddingJob, inventory: ClusterInventory) -> Check:
    """How pods reach the storage, and the origin of its credentials."""
    cluster, uri = job.spec.cluster, job.spec.storage.uri
    if not is_remote(uri):
        volume = volume_of(job, uri)
        if volume is None:
            return Check("storage", "missing", f"{uri}: {not_mounted('storage.uri')}", MOUNT_REMEDY)
        return Check("storage", "ok", f"{uri}, in the volume {volume.name} of the job spec")
    secrets = {name: inventory.named.get(("Secret", name)) for name in cluster.secrets}
    keys = {key: name for name, found in secrets.items() if isinstance(found, dict) for key in found["keys"]}
    if all(key in keys for key in _KEYS):
        return Check("storage", "ok", f"{uri}, keys from Secret {keys[_KEYS[0]]}")
    if any(found is HIDDEN for found in secrets.values()):
        return Check(
            "storage", "unknown", f"{uri}; you may not read {', '.join(secrets)}, which should contain its keys"
        )
    account = inventory.named.get(("ServiceAccount", cluster.service_account or ""))
    identity = [
        value
        for name, value in (account["metadata"].get("annotations", {}) if isinstance(account, dict) else {}).items()
        if name in _IDENTITIES
    ]
    if identity:
        return Check("storage", "ok", f"{uri}, as {identity[0]} of ServiceAccount {cluster.service_account}")
    make = f"kubectl -n {inventory.namespace} create secret generic NAME {_LITERALS}"
    if secrets:
        lacking = [key for key in _KEYS if key not in keys]
        return Check("storage", "missing", f"{uri}: no {' and '.join(lacking)} in {', '.join(secrets)}", make)
    return Check(
        "storage",
        "warn",
        f"{uri}: the job spec has no Secret with keys and no ServiceAccount with a cloud identity, so pods can reach "
        f"it only if their nodes have an identity",
        f"{make}, and add its name to spec.cluster.secrets",
    )


def check_image(job: EmbeddingJob, settings: OperatorConfig | None) -> Check:
    """The image of the pods. Whether nodes can pull it is not checked."""
    image = job.spec.cluster.image or (None if settings is None else settings.image)
    if image is None:
        return Check("image", "unknown", "that of the operator; you may not read its settings")
    origin = "set in the job spec" if job.spec.cluster.image else "set in the operator"
    registry, slash, _ = image.partition("/")
    if not slash or (not any(sign in registry for sign in ".:") and registry != "localhost"):
        return Check(
            "image",
            "warn",
            f"{image} ({origin}) has no registry, so every node must already have it",
            "push it to a registry, and set its full name as jobs.image of the chart or as spec.cluster.image",
        )
    return Check("image", "ok", f"{image} ({origin})")


def check_capacity(what: str, least: int, wanted: int, pod: Mapping[str, Any], inventory: ClusterInventory) -> Check:
    """How many of the pods fit on the existing nodes if nothing else runs there."""
    requests = pod["containers"][0]["resources"]["requests"]
    each = ", ".join(f"{quantity} {resource}" for resource, quantity in requests.items())
    if inventory.nodes is HIDDEN:
        return Check(what, "unknown", f"{wanted} with {each} each; you may not list nodes")
    fit = min(wanted, pods_that_fit(pod, inventory.nodes))
    found = f"{fit} of {wanted} fit on the existing nodes if these are empty; each needs {each}"
    if fit == wanted:
        return Check(what, "ok", found)
    if adds_nodes(inventory):
        return Check(
            what, "warn", f"{found}; the cluster adds nodes on demand", "check that a node pool has nodes of that size"
        )
    where = " ".join(f"{name}={value}" for name, value in pod.get("nodeSelector", {}).items())
    how = f"add nodes of that size{f' with the labels {where}' if where else ''}, or request less"
    return Check(what, "missing" if fit < least else "warn", found, how)


def _settings(inventory: ClusterInventory) -> OperatorConfig | None:
    """The operator's settings; None if they cannot be read."""
    if not isinstance(inventory.settings, dict):
        return None
    name = inventory.settings["metadata"]["name"]
    try:
        return next(
            (parse_operator_config(text, name) for text in (inventory.settings.get("data") or {}).values()), None
        )
    except ConfigError:  # of another version
        return None


def _how_to_get(kind: str, name: str, inventory: ClusterInventory) -> str:
    space = f"-n {inventory.namespace}"
    if kind == "Secret":
        return f"kubectl {space} create secret generic {name} {_LITERALS}, if it contains the keys of the object store"
    commands = {
        "ServiceAccount": f"kubectl {space} create serviceaccount {name}",
        "ConfigMap": f"kubectl {space} create configmap {name} --from-file=...",
        "PriorityClass": f"kubectl create priorityclass {name} --value=1000",
        "LocalQueue": f"see `kubectl {space} get localqueues`, or remove the label to use the queue `default`",
    }
    return commands.get(kind, f"create it, or see `kubectl {space} get {kind.lower()}s`")
