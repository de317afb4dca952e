"""Parts that both the chart and the kustomize base contain are equal."""

from pathlib import Path
from typing import Any

import yaml

from jobs.manifests.operator_config import OperatorConfig, load_operator_config
from jobs.spec.cluster import ClusterSpec

ROOT = Path(__file__).parents[4]
CHART = ROOT / "helm" / "f2llm-operator"


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def test_the_chart_and_the_kustomize_base_give_the_operator_the_same_permissions() -> None:
    rules = {
        each["metadata"]["name"]: each["rules"]
        for each in documents(ROOT / "k8s" / "base" / "rbac.yaml")
        if each["kind"] == "ClusterRole"
    }

    assert rules["f2llm-operator"] == documents(CHART / "files" / "rbac.yaml")[0]


def test_the_kustomize_base_has_the_objects_that_messages_and_monitors_name() -> None:
    """Both are as in the chart: tests/cluster/test_chart.py."""
    base = ROOT / "k8s" / "base"
    (kustomization,) = documents(base / "kustomization.yaml")

    made = {(each["kind"], each["metadata"]["name"]): each for file in kustomization["resources"]
            for each in documents(base / file)}  # fmt: skip

    assert {("ClusterRole", "f2llm-user"), ("ClusterRole", "f2llm-viewer")} <= made.keys()
    service, deployment = made["Service", "f2llm-operator-metrics"], made["Deployment", "f2llm-operator"]
    assert service["metadata"]["labels"] == deployment["metadata"]["labels"] == service["spec"]["selector"]


def test_the_settings_of_overlays_are_settings_of_the_operator() -> None:
    paths = list((ROOT / "k8s").rglob("operator-settings.yaml"))
    assert paths
    for path in paths:
        config = load_operator_config(path)

        assert config.profiles_of(ClusterSpec(profiles=tuple(config.profiles))) == list(config.profiles.values())


def test_the_defaults_of_the_chart_are_those_of_the_operator() -> None:
    (whole,) = documents(CHART / "values.yaml")
    values = whole["jobs"]

    assert (values["image"], values["rayVersion"]) == (OperatorConfig().image, OperatorConfig().ray_version)
    assert (values["runAsUser"], values["graceSeconds"]) == (
        OperatorConfig().run_as_user,
        OperatorConfig().grace_seconds,
    )
    assert values["startTimeoutSeconds"] == OperatorConfig().start_timeout_seconds
    assert values["driverHeartbeatTimeoutSeconds"] == OperatorConfig().driver_heartbeat_timeout_seconds
    assert whole["logFormat"] == OperatorConfig().log_format
