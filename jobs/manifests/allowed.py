"""Limits on what a job may request from its namespace and from the cluster, set in the settings of the operator.

Whoever may create an EmbeddingJob creates pods by it: with any image, ServiceAccount, Secret, claim and priority that
these limits allow.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field

from data_io.data_spec import Section
from jobs.spec.cluster import ClusterSpec

Patterns = Annotated[tuple[str, ...] | None, Field(max_length=256)]
_ANY = "null: all."


class Allowed(Section):
    """Patterns of the values that fields of `spec.cluster` may have. `*` stands for any characters. A value that the
    operator or a pod profile sets is always allowed.
    """

    images: Patterns = Field(
        None, description=f"For `image`. End the host and the path with a slash: registry.example.org/ml/*. {_ANY}"
    )
    image_pull_secrets: Patterns = Field(None, description=f"For `image_pull_secrets`. {_ANY}")
    service_accounts: Patterns = Field(None, description=f"For `service_account`. {_ANY}")
    priority_classes: Patterns = Field(
        None, description="For `priority_class`. null: all, except those of Kubernetes itself (system-*)."
    )
    toleration_keys: Patterns = Field(
        None, description=f"For `key` of tolerations. A toleration without a key needs the pattern *. {_ANY}"
    )
    node_labels: Patterns = Field(None, description=f"For keys of `node_selector`. {_ANY}")
    resources: Patterns = Field(None, description=f"For keys of `resources`, in addition to workers.gpus. {_ANY}")
    profiles: Patterns = Field(None, description=f"For `profiles`. {_ANY}")
    secrets: Patterns = Field(None, description=f"For `secrets` and for `secret` of volumes. {_ANY}")
    config_maps: Patterns = Field(None, description=f"For `config_map` of volumes. {_ANY}")
    claims: Patterns = Field(None, description=f"For `claim` of volumes. {_ANY}")

    def denied(self, cluster: ClusterSpec) -> str:
        """The first value that the job spec may not have, with the allowed values; empty if there is none."""
        for limit, field, value in _requests(cluster):
            patterns = getattr(self, limit)
            if patterns is None and limit == "priority_classes" and value.startswith("system-"):
                return f"spec.cluster.{field}: found {value}, a class that Kubernetes keeps for itself"
            if patterns is not None and not any(fnmatchcase(value, pattern) for pattern in patterns):
                expected = f"expected one of {', '.join(patterns)}" if patterns else "expected no value"
                return f"spec.cluster.{field}: found {value or 'a toleration of every key'}, {expected}"
        return ""


def _requests(cluster: ClusterSpec) -> Iterator[tuple[str, str, str]]:
    """(field of Allowed, field of spec.cluster, value) for each value that the job spec sets."""
    for limit, field in (
        ("images", "image"),
        ("service_accounts", "service_account"),
        ("priority_classes", "priority_class"),
    ):
        if (value := getattr(cluster, field)) is not None:
            yield limit, field, value
    for limit in ("image_pull_secrets", "profiles", "secrets"):
        for value in getattr(cluster, limit):
            yield limit, limit, value
    for volume in cluster.volumes:
        for limit, kind in (("secrets", "secret"), ("config_maps", "config_map"), ("claims", "claim")):
            if (value := getattr(volume, kind)) is not None:
                yield limit, f"volumes.{kind}", value
    for part, pods in (("head", cluster.head), ("worker", cluster.worker)):
        for toleration in pods.tolerations:
            yield "toleration_keys", f"{part}.tolerations", toleration.key or ""
        for key in pods.node_selector:
            yield "node_labels", f"{part}.node_selector", key
        for key in pods.resources:
            yield "resources", f"{part}.resources", key
