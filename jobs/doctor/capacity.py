"""How many pods fit on the nodes of a cluster if nothing else runs there. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

GPU = "nvidia.com/gpu"
_UNITS = {"m": 1e-3, "": 1.0}
_UNITS |= {letter: 1000.0**power for power, letter in enumerate("kMGTPE", start=1)}
_UNITS |= {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", start=1)}
_QUANTITY = re.compile(r"^([0-9.]+(?:[eE][+-]?[0-9]+)?)([a-zA-Z]*)$")


def amount(quantity: str) -> float:
    """A quantity of Kubernetes (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/) as a
    number of CPUs, bytes or devices. Raises ValueError if the text is not a quantity.
    """
    found = _QUANTITY.match(quantity)
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"{quantity!r} is not a quantity, such as 500m, 4Gi or 2")
    return float(found[1]) * _UNITS[found[2]]


def allocatable(node: Mapping[str, Any], resource: str) -> float:
    """The amount of a resource that a node offers to all pods together."""
    return amount(str(node.get("status", {}).get("allocatable", {}).get(resource, "0")))


def is_usable(node: Mapping[str, Any]) -> bool:
    """Whether the node is ready and schedulable."""
    conditions = node.get("status", {}).get("conditions", ())
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and not node.get("spec", {}).get("unschedulable", False)


def pods_that_fit(pod: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> int:
    """How many pods of this spec fit on the nodes. Labels, taints and requests count as in the scheduler; other pods,
    affinities and quotas do not.
    """
    wanted: dict[str, float] = {}
    for container in pod["containers"]:
        for resource, quantity in container.get("resources", {}).get("requests", {}).items():
            wanted[resource] = wanted.get(resource, 0.0) + amount(quantity)
    return sum(
        int(min((allocatable(node, resource) / least for resource, least in wanted.items() if least), default=110))
        for node in nodes
        if is_usable(node) and _admits(node, pod)
    )


def _admits(node: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    labels = node["metadata"].get("labels", {})
    if any(labels.get(name) != value for name, value in pod.get("nodeSelector", {}).items()):
        return False
    taints = [each for each in node.get("spec", {}).get("taints", ()) if each["effect"] != "PreferNoSchedule"]
    return all(any(_tolerates(each, taint) for each in pod.get("tolerations", ())) for taint in taints)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, taint["key"])
    return bool(toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""))
