"""The NetworkPolicy of a job or a served model: who may connect to which port."""

from typing import Any

import pytest

from jobs.errors import ConfigError
from jobs.manifests.objects import network_policy
from jobs.manifests.operator_config import OperatorConfig, Scraper, parse_operator_config

OWN = {"f2llm.dev/job": "mine"}
KUBERAY = {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}}


def peers(config: OperatorConfig, port: int, **options: Any) -> list[dict[str, Any]]:
    """Who is admitted to a port, without the job's own pods."""
    rules = network_policy(OWN, config, **options)["ingress"][1:]
    return [peer for rule in rules if port in [each["port"] for each in rule["ports"]] for peer in rule["from"]]


def test_only_pods_of_labelled_namespaces_read_the_metrics() -> None:
    label = {"matchLabels": {"f2llm.dev/scrapes": "true"}}

    assert peers(OperatorConfig(), 8080) == [{"namespaceSelector": label}]


def test_the_settings_name_other_scrapers() -> None:
    name, pods = {"kubernetes.io/metadata.name": "monitoring"}, {"app.kubernetes.io/name": "prometheus"}
    config = OperatorConfig(scrapers=(Scraper(namespace_labels=name, pod_labels=pods),))

    assert peers(config, 8080) == [{"namespaceSelector": {"matchLabels": name}, "podSelector": {"matchLabels": pods}}]


def test_without_scrapers_nobody_reads_the_metrics() -> None:
    """A rule without peers would admit everybody."""
    policy = network_policy(OWN, OperatorConfig(scrapers=()))

    assert all(rule["from"] for rule in policy["ingress"])
    assert peers(OperatorConfig(scrapers=()), 8080) == []


def test_no_port_of_a_job_is_open_to_every_namespace() -> None:
    rules = network_policy(OWN, OperatorConfig())["ingress"]

    assert {"namespaceSelector": {}} not in [peer for rule in rules for peer in rule["from"]]


def test_clients_of_every_namespace_reach_a_served_model_and_nothing_else() -> None:
    assert peers(OperatorConfig(), 8000, ports=[8000]) == [{"namespaceSelector": {}}]
    assert {"namespaceSelector": {}} not in peers(OperatorConfig(), 8080, ports=[8000])


def test_with_its_namespace_only_the_real_kuberay_reaches_the_dashboard() -> None:
    place = {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-system"}}

    assert peers(OperatorConfig(), 8265) == [{"namespaceSelector": {}, "podSelector": KUBERAY}]
    assert peers(OperatorConfig(kuberay_namespace="kuberay-system"), 8265) == [
        {"namespaceSelector": place, "podSelector": KUBERAY}
    ]


def test_scrapers_of_every_namespace_are_refused() -> None:
    with pytest.raises(ConfigError, match="namespace_labels"):
        parse_operator_config("scrapers: [{namespace_labels: {}}]", "operator.yaml")
