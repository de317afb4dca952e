"""What a job may request, by the settings of the operator."""

from typing import Any

import pytest

from jobs.manifests.allowed import Allowed
from jobs.spec.cluster import ClusterSpec

REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "images": ({"image": "evil.example.org/miner:1"}, "image: found evil.example.org/miner:1"),
    "image_pull_secrets": ({"image_pull_secrets": ["registry"]}, "image_pull_secrets: found registry"),
    "service_accounts": ({"service_account": "deployer"}, "service_account: found deployer"),
    "priority_classes": ({"priority_class": "urgent"}, "priority_class: found urgent"),
    "toleration_keys": (
        {"worker": {"tolerations": [{"key": "dedicated", "operator": "Exists"}]}},
        "worker.tolerations: found dedicated",
    ),
    "node_labels": ({"head": {"node_selector": {"pool": "control"}}}, "head.node_selector: found pool"),
    "resources": ({"worker": {"resources": {"example.org/tpu": "1"}}}, "worker.resources: found example.org/tpu"),
    "profiles": ({"profiles": ["efa"]}, "profiles: found efa"),
    "secrets": ({"secrets": ["admin-token"]}, "secrets: found admin-token"),
    "config_maps": (
        {"volumes": [{"name": "a", "mount_path": "/a", "config_map": "settings"}]},
        "volumes.config_map: found settings",
    ),
    "claims": ({"volumes": [{"name": "a", "mount_path": "/a", "claim": "payroll"}]}, "volumes.claim: found payroll"),
}


def test_each_limit_has_a_request() -> None:
    assert REQUESTS.keys() == Allowed.model_fields.keys()


@pytest.mark.parametrize("limit", REQUESTS)
def test_a_request_is_denied_unless_a_pattern_allows_it(limit: str) -> None:
    requested, found = REQUESTS[limit]
    cluster = ClusterSpec.model_validate(requested)
    value = found.rpartition(" ")[2]

    assert Allowed().denied(cluster) == ""
    assert Allowed.model_validate({limit: [value]}).denied(cluster) == ""
    assert Allowed.model_validate({limit: ["other", f"{value[:3]}*"]}).denied(cluster) == ""
    assert Allowed.model_validate({limit: ["other", "team-*"]}).denied(cluster) == (
        f"spec.cluster.{found}, expected one of other, team-*"
    )
    assert Allowed.model_validate({limit: []}).denied(cluster) == f"spec.cluster.{found}, expected no value"
    assert Allowed.model_validate({limit: []}).denied(ClusterSpec()) == ""


def test_a_secret_cannot_be_mounted_instead() -> None:
    volume = {"name": "a", "mount_path": "/a", "secret": "admin-token"}
    denied = Allowed(secrets=("store",)).denied(ClusterSpec.model_validate({"volumes": [volume]}))

    assert denied == "spec.cluster.volumes.secret: found admin-token, expected one of store"


@pytest.mark.parametrize("name", ["system-node-critical", "system-cluster-critical"])
def test_priorities_of_kubernetes_need_a_pattern(name: str) -> None:
    cluster = ClusterSpec(priority_class=name)

    assert f"found {name}, a class that Kubernetes keeps for itself" in Allowed().denied(cluster)
    assert Allowed(priority_classes=("system-*",)).denied(cluster) == ""


def test_a_toleration_of_every_key_needs_a_pattern_for_every_key() -> None:
    cluster = ClusterSpec.model_validate({"head": {"tolerations": [{"operator": "Exists"}]}})

    denied = Allowed(toleration_keys=("nvidia.com/gpu",)).denied(cluster)

    assert denied == "spec.cluster.head.tolerations: found a toleration of every key, expected one of nvidia.com/gpu"
    assert Allowed(toleration_keys=("*",)).denied(cluster) == ""
