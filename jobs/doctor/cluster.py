"""Checks of a cluster: whether it can run jobs, and how to fix problems. Pure: from an inventory to findings."""

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
"""A field of a RayCluster's spec that KubeRay 1.6 introduced
(https://github.com/ray-project/kuberay/releases/tag/v1.6.0).
"""
_GET_KUBERAY = (
    "helm repo add kuberay https://ray-project.github.io/kuberay-helm/ && helm upgrade --install kuberay-operator "
    f"kuberay/kuberay-operator --version {KUBERAY_TESTED} -n kuberay-system --create-namespace"
)
_GET_KUBERAY_CRDS = (
    "Helm does not upgrade CRDs: kubectl apply --server-side --force-conflicts "
    f"-k 'https://github.com/ray-project/kuberay/ray-operator/config/crd?ref=v{KUBERAY_TESTED}', then {_GET_KUBERAY}"
)
_GET_OPERATOR = (
    "helm upgrade --install f2llm-operator helm/f2llm-operator -n f2llm-system --create-namespace "
    "--set image=... --set jobs.image=... with the images that `make images` prints, in a clone"
)
_GET_OUR_CRD = "kubectl apply --server-side -f k8s/base/crd.yaml of this version's repository"
_OPTIONAL = {
    "Kueue": ("kueue.x-k8s.io", "queues and quotas"),
    "Prometheus": ("monitoring.coreos.com", "the operator that scrapes metrics and fires alerts"),
    "Karpenter": ("karpenter.sh", "nodes on demand"),
}
_POD_SECURITY = "pod-security.kubernetes.io/enforce"


def judge_cluster(inventory: ClusterInventory, our_schema: Mapping[str, Any]) -> list[Check]:
    """Every finding about a cluster. `our_schema` is the schema of `spec` in the CRD of this version."""
    return [
        Check("API server", "ok", f"{inventory.server}, Kubernetes {inventory.version}"),
        *check_kuberay(inventory),
        check_our_crd(inventory, our_schema),
        check_operator(inventory),
        check_namespace(inventory),
        *check_permissions(inventory),
        check_gpus(inventory),
        *check_optional(inventory),
    ]


def check_kuberay(inventory: ClusterInventory) -> Iterator[Check]:
    """The CRDs by a field that old versions lack; the operator by the version and state of its Deployment."""
    if not {"RayJob", "RayCluster"} <= inventory.types.keys():
        yield Check("KubeRay", "missing", "the CRDs RayJob and RayCluster are not installed", _GET_KUBERAY)
        return
    old = f"older than {KUBERAY_OLDEST[0]}.{KUBERAY_OLDEST[1]}"
    if not _has_field(inventory.types["RayCluster"], _KUBERAY_FIELD):
        found = f"{old}: a RayCluster has no spec.{'.'.join(_KUBERAY_FIELD)}"
        yield Check("KubeRay CRDs", "missing", found, _GET_KUBERAY_CRDS)
    else:
        yield Check("KubeRay CRDs", "ok", "RayJob and RayCluster of ray.io/v1, version 1.6 or newer")
    if inventory.kuberay is HIDDEN:
        yield Check("KubeRay operator", "unknown", "you may not list Deployments, so its state is unknown")
    elif not inventory.kuberay:
        yield Check("KubeRay operator", "missing", f"no Deployment has the label {KUBERAY_LABEL}", _GET_KUBERAY)
    else:
        yield _judge_kuberay(inventory.kuberay[0], old)


def check_our_crd(inventory: ClusterInventory, our_schema: Mapping[str, Any]) -> Check:
    """Whether the cluster serves EmbeddingJobs with the schema of this version."""
    served = inventory.types.get("EmbeddingJob")
    if served is None:
        return Check("EmbeddingJobs", "missing", "the CRD is not installed", _GET_OPERATOR)
    different = list(_differences(our_schema, served.get("properties", {}).get("spec", {})))
    if different:
        shown = ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")
        return Check("EmbeddingJobs", "warn", f"the CRD is of another version; it differs in {shown}", _GET_OUR_CRD)
    return Check("EmbeddingJobs", "ok", "f2llm.dev/v1alpha1, the CRD of this version")


def check_operator(inventory: ClusterInventory) -> Check:
    """Whether an operator manages EmbeddingJobs in the namespace."""
    if inventory.operators is HIDDEN:
        return Check("operator", "unknown", "you may not list Deployments, so its state is unknown")
    if not inventory.operators:
        return Check("operator", "missing", f"no Deployment has the label {OPERATOR_LABEL}", _GET_OPERATOR)
    deployment = inventory.operators[0]
    place, ready = _place(deployment), _ready(deployment)
    if not ready:
        return Check("operator", "missing", f"{place}: no pod is ready", _look_at(deployment))
    watched = [each.partition("=")[2] for each in _arguments(deployment) if each.startswith("--namespace=")]
    if watched and inventory.namespace not in watched:
        return Check(
            "operator",
            "missing",
            f"{place} watches {', '.join(watched)}, but not {inventory.namespace}",
            f"add {inventory.namespace} to `namespaces` of its chart, or use -n {watched[0]}",
        )
    return Check("operator", "ok", f"{place}, {ready} ready, image {_image(deployment)}")


def check_namespace(inventory: ClusterInventory) -> Check:
    """Whether the namespace exists, and which pod security standard it enforces."""
    if inventory.namespace_object is HIDDEN:
        return Check("namespace", "unknown", f"{inventory.namespace}; you may not read its pod security level")
    if inventory.namespace_object is None:
        return Check(
            "namespace",
            "missing",
            f"{inventory.namespace} does not exist",
            f"kubectl create namespace {inventory.namespace}",
        )
    level = inventory.namespace_object["metadata"].get("labels", {}).get(_POD_SECURITY)
    if level == "restricted":
        return Check(
            "namespace", "ok", f"{inventory.namespace} admits only restricted pods; pods of jobs are restricted"
        )
    return Check(
        "namespace",
        "warn",
        f"{inventory.namespace} has pod security level {level or 'not set'}; pods of jobs fit the strictest level",
        f"kubectl label namespace {inventory.namespace} {_POD_SECURITY}=restricted",
    )


def check_permissions(inventory: ClusterInventory) -> Iterator[Check]:
    """Whether the user may manage jobs, and read their pods, logs and Events."""
    lacking = [right for right in JOB_RIGHTS if not inventory.allowed.get(right, False)]
    if lacking:
        yield Check(
            "your jobs",
            "missing",
            f"in {inventory.namespace} you may not {', '.join(map(str, lacking))}",
            "ask an administrator: kubectl create rolebinding NAME "
            f"-n {inventory.namespace} --clusterrole=f2llm-user --user=YOU",
        )
    else:
        yield Check("your jobs", "ok", f"in {inventory.namespace} you may create, change and delete them")
    lacking = [right for right in POD_RIGHTS if not inventory.allowed.get(right, False)]
    if lacking:
        yield Check(
            "pods and logs",
            "warn",
            f"in {inventory.namespace} you may not {', '.join(map(str, lacking))}; `f2llm describe` and `f2llm logs` "
            f"need this",
            f"kubectl create rolebinding NAME -n {inventory.namespace} --clusterrole=view --user=YOU",
        )
    else:
        yield Check("pods and logs", "ok", "you may read them")


def check_gpus(inventory: ClusterInventory) -> Check:
    """Nodes that offer NVIDIA GPUs to pods."""
    if inventory.nodes is HIDDEN:
        return Check("GPU nodes", "unknown", "you may not list nodes")
    usable = [node for node in inventory.nodes if is_usable(node)]
    counts = [int(allocatable(node, GPU)) for node in usable if allocatable(node, GPU)]
    if counts:
        return Check("GPU nodes", "ok", f"{len(counts)} of {len(usable)} nodes, {sum(counts)} GPUs in total")
    how = "add GPU nodes with NVIDIA's device plugin or GPU operator; without GPUs, jobs train on CPUs"
    found = f"none of {len(usable)} ready nodes offers {GPU}"
    return Check(
        "GPU nodes", "warn", found + ("; the cluster adds nodes on demand" if adds_nodes(inventory) else ""), how
    )


def check_optional(inventory: ClusterInventory) -> Iterator[Check]:
    """Optional components, which the operator uses if they are installed."""
    for name, (group, use) in _OPTIONAL.items():
        there = group in inventory.groups
        yield Check(
            name, "ok" if there else "absent", f"{'installed' if there else 'not installed, and not needed'}: {use}"
        )


def adds_nodes(inventory: ClusterInventory) -> bool:
    """Whether the cluster is known to add nodes for pods that do not fit."""
    return "karpenter.sh" in inventory.groups or isinstance(inventory.autoscaler, dict)


def _judge_kuberay(deployment: Mapping[str, Any], old: str) -> Check:
    place, image = _place(deployment), _image(deployment)
    version = re.search(r":v?(\d+)\.(\d+)", image)
    if version and (int(version[1]), int(version[2])) < KUBERAY_OLDEST:
        return Check("KubeRay operator", "missing", f"{place} is {old}: image {image}", _GET_KUBERAY_CRDS)
    ready = _ready(deployment)
    if not ready:
        return Check("KubeRay operator", "missing", f"{place}: no pod is ready", _look_at(deployment))
    return Check("KubeRay operator", "ok", f"{place}, {ready} ready, image {image}")


def _has_field(schema: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    found: Any = schema.get("properties", {}).get("spec", {})
    for name in path:
        found = found.get("properties", {}).get(name)
        if found is None:
            return False
    return True


def _differences(ours: Any, theirs: Any, path: str = "spec") -> Iterator[str]:
    """The innermost fields in which two schemas differ."""
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
