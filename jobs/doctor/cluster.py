"""What a cluster has for training, what it lacks, and how to get it: facts in, findings out."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jobs.doctor.capacity import GPU, allocatable, is_usable
from jobs.doctor.check import Check
from jobs.doctor.cluster_inventory import (
    HIDDEN,
    JOB_RIGHTS,
    KUBERAY_LABEL,
    OPERATOR_LABEL,
    POD_RIGHTS,
    ClusterInventory,
)

KUBERAY_TESTED, KUBERAY_OLDEST = "1.6.2", (1, 6)
_KUBERAY_FIELD = ("authOptions", "secretName")
"""A field of a RayCluster's spec that came with KubeRay 1.6
(https://github.com/ray-project/kuberay/releases/tag/v1.6.0).
"""
_GET_KUBERAY = (
    "helm upgrade --install kuberay-operator kuberay/kuberay-operator "
    f"--version {KUBERAY_TESTED} -n kuberay-system --create-namespace"
)
_GET_KUBERAY_TYPES = (
    "helm upgrades no types: kubectl apply --server-side --force-conflicts "
    f"-k 'https://github.com/ray-project/kuberay/ray-operator/config/crd?ref=v{KUBERAY_TESTED}', then {_GET_KUBERAY}"
)
_GET_OPERATOR = "helm upgrade --install f2llm-operator helm/f2llm-operator -n f2llm-system --create-namespace"
_GET_OUR_TYPE = "kubectl apply --server-side -f k8s/base/crd.yaml of this version's repository"
_OPTIONAL = {
    "Kueue": ("kueue.x-k8s.io", "queues and quotas"),
    "Prometheus": ("monitoring.coreos.com", "the operator that scrapes metrics and fires alerts"),
    "Karpenter": ("karpenter.sh", "nodes at need"),
}
_POD_SECURITY = "pod-security.kubernetes.io/enforce"


def judge_cluster(inventory: ClusterInventory, our_schema: Mapping[str, Any]) -> list[Check]:
    """Every finding about a cluster. `our_schema` is the spec of the custom resource as this version has it."""
    return [
        Check("API server", "ok", f"{inventory.server}, Kubernetes {inventory.version}"),
        *check_kuberay(inventory),
        check_our_type(inventory, our_schema),
        check_operator(inventory),
        check_namespace(inventory),
        *check_permissions(inventory),
        check_gpus(inventory),
        *check_optional(inventory),
    ]


def check_kuberay(inventory: ClusterInventory) -> Iterator[Check]:
    """Its types by a field that only new ones have, its operator by the version and state of its Deployment."""
    if not {"RayJob", "RayCluster"} <= inventory.types.keys():
        yield Check("KubeRay", "missing", "the cluster has no RayJobs and RayClusters", _GET_KUBERAY)
        return
    old = f"older than {KUBERAY_OLDEST[0]}.{KUBERAY_OLDEST[1]}"
    if not _has_field(inventory.types["RayCluster"], _KUBERAY_FIELD):
        found = f"{old}: a RayCluster has no spec.{'.'.join(_KUBERAY_FIELD)}"
        yield Check("KubeRay types", "missing", found, _GET_KUBERAY_TYPES)
    else:
        yield Check("KubeRay types", "ok", "RayJob and RayCluster of ray.io/v1, of 1.6 or newer")
    if inventory.kuberay is HIDDEN:
        yield Check("KubeRay operator", "unknown", "you may not list Deployments, so it may or may not run")
    elif not inventory.kuberay:
        yield Check("KubeRay operator", "missing", f"no Deployment has the label {KUBERAY_LABEL}", _GET_KUBERAY)
    else:
        yield _judge_kuberay(inventory.kuberay[0], old)


def check_our_type(inventory: ClusterInventory, our_schema: Mapping[str, Any]) -> Check:
    """Whether EmbeddingJobs are served as this version writes them."""
    served = inventory.types.get("EmbeddingJob")
    if served is None:
        return Check("EmbeddingJobs", "missing", "the cluster does not know them", _GET_OPERATOR)
    different = list(_differences(our_schema, served.get("properties", {}).get("spec", {})))
    if different:
        shown = ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")
        return Check("EmbeddingJobs", "warn", f"of another version; it differs in {shown}", _GET_OUR_TYPE)
    return Check("EmbeddingJobs", "ok", "f2llm.dev/v1alpha1, the same as in this version")


def check_operator(inventory: ClusterInventory) -> Check:
    """Whether somebody looks after EmbeddingJobs here."""
    if inventory.operators is HIDDEN:
        return Check("operator", "unknown", "you may not list Deployments, so it may or may not run")
    if not inventory.operators:
        return Check("operator", "missing", f"no Deployment has the label {OPERATOR_LABEL}", _GET_OPERATOR)
    deployment = inventory.operators[0]
    place, ready = _place(deployment), _ready(deployment)
    if not ready:
        return Check("operator", "missing", f"{place}: none of its pods is ready", _look_at(deployment))
    watched = [each.partition("=")[2] for each in _arguments(deployment) if each.startswith("--namespace=")]
    if watched and inventory.namespace not in watched:
        return Check(
            "operator",
            "missing",
            f"{place} looks after {', '.join(watched)} and not after {inventory.namespace}",
            f"add {inventory.namespace} to `namespaces` of its chart, or use -n {watched[0]}",
        )
    return Check("operator", "ok", f"{place}, {ready} ready, image {_image(deployment)}")


def check_namespace(inventory: ClusterInventory) -> Check:
    """Whether it is there, and which pods it admits."""
    if inventory.namespace_object is HIDDEN:
        return Check("namespace", "unknown", f"{inventory.namespace}; you may not read what it says of pod security")
    if inventory.namespace_object is None:
        return Check(
            "namespace",
            "missing",
            f"there is no {inventory.namespace}",
            f"kubectl create namespace {inventory.namespace}",
        )
    level = inventory.namespace_object["metadata"].get("labels", {}).get(_POD_SECURITY)
    if level == "restricted":
        return Check("namespace", "ok", f"{inventory.namespace} admits restricted pods only, as those of jobs are")
    return Check(
        "namespace",
        "warn",
        f"{inventory.namespace} has pod security {level or 'not set'}; pods of jobs fit the strictest",
        f"kubectl label namespace {inventory.namespace} {_POD_SECURITY}=restricted",
    )


def check_permissions(inventory: ClusterInventory) -> Iterator[Check]:
    """What the user may do with jobs, and with what explains them."""
    lacking = [right for right in JOB_RIGHTS if not inventory.allowed.get(right, False)]
    if lacking:
        yield Check(
            "your jobs",
            "missing",
            f"in {inventory.namespace} you may not {', '.join(map(str, lacking))}",
            f"kubectl create rolebinding NAME -n {inventory.namespace} --clusterrole=f2llm-user --user=YOU, "
            "which an administrator does",
        )
    else:
        yield Check("your jobs", "ok", f"in {inventory.namespace} you may make, change and delete them")
    lacking = [right for right in POD_RIGHTS if not inventory.allowed.get(right, False)]
    if lacking:
        yield Check(
            "pods and logs",
            "warn",
            f"in {inventory.namespace} you may not {', '.join(map(str, lacking))}; `f2llm describe` and `logs` need it",
            f"kubectl create rolebinding NAME -n {inventory.namespace} --clusterrole=view --user=YOU",
        )
    else:
        yield Check("pods and logs", "ok", "you may read them")


def check_gpus(inventory: ClusterInventory) -> Check:
    """Nodes that offer NVIDIA's GPUs to pods."""
    if inventory.nodes is HIDDEN:
        return Check("GPU nodes", "unknown", "you may not list nodes")
    usable = [node for node in inventory.nodes if is_usable(node)]
    counts = [int(allocatable(node, GPU)) for node in usable if allocatable(node, GPU)]
    if counts:
        return Check("GPU nodes", "ok", f"{len(counts)} of {len(usable)} nodes, {sum(counts)} GPUs in all")
    how = "a pool of GPU nodes, and NVIDIA's device plugin or GPU operator on it; without them only CPUs train"
    found = f"none of {len(usable)} nodes that are ready offers {GPU}"
    return Check("GPU nodes", "warn", found + ("; new ones come at need" if makes_nodes(inventory) else ""), how)


def check_optional(inventory: ClusterInventory) -> Iterator[Check]:
    """What is of use where it is there."""
    for name, (group, use) in _OPTIONAL.items():
        there = group in inventory.groups
        yield Check(name, "ok" if there else "absent", f"{'there' if there else 'not there, and not needed'}: {use}")


def makes_nodes(inventory: ClusterInventory) -> bool:
    """Whether it is known that the cluster makes nodes for pods that fit nowhere."""
    return "karpenter.sh" in inventory.groups or isinstance(inventory.autoscaler, dict)


def _judge_kuberay(deployment: Mapping[str, Any], old: str) -> Check:
    place, image = _place(deployment), _image(deployment)
    version = re.search(r":v?(\d+)\.(\d+)", image)
    if version and (int(version[1]), int(version[2])) < KUBERAY_OLDEST:
        return Check("KubeRay operator", "missing", f"{place} is {old}: image {image}", _GET_KUBERAY_TYPES)
    ready = _ready(deployment)
    if not ready:
        return Check("KubeRay operator", "missing", f"{place}: none of its pods is ready", _look_at(deployment))
    return Check("KubeRay operator", "ok", f"{place}, {ready} ready, image {image}")


def _has_field(schema: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    found: Any = schema.get("properties", {}).get("spec", {})
    for name in path:
        found = found.get("properties", {}).get(name)
        if found is None:
            return False
    return True


def _differences(ours: Any, theirs: Any, path: str = "spec") -> Iterator[str]:
    """Fields of two schemas that are not the same, the smallest ones."""
    if ours == theirs:
        return
    inner = "properties" if isinstance(ours, dict) and "properties" in ours else None
    if inner is None or not isinstance(theirs, dict) or inner not in theirs:
        yield path
        return
    below = [
        found
        for name in {**ours[inner], **theirs[inner]}
        for found in _differences(ours[inner].get(name), theirs[inner].get(name), f"{path}.{name}")
    ]
    yield from below or [f"the rules of {path}"]


def _place(deployment: Mapping[str, Any]) -> str:
    return f"{deployment['metadata']['namespace']}/{deployment['metadata']['name']}"


def _ready(deployment: Mapping[str, Any]) -> int:
    return int(deployment.get("status", {}).get("readyReplicas", 0))


def _container(deployment: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = deployment["spec"]["template"]["spec"]["containers"][0]
    return found


def _image(deployment: Mapping[str, Any]) -> str:
    return str(_container(deployment)["image"])


def _arguments(deployment: Mapping[str, Any]) -> list[str]:
    return [*_container(deployment).get("command", ()), *_container(deployment).get("args", ())]


def _look_at(deployment: Mapping[str, Any]) -> str:
    name, namespace = deployment["metadata"]["name"], deployment["metadata"]["namespace"]
    return f"kubectl -n {namespace} describe deployment {name}; kubectl -n {namespace} logs deployment/{name}"
