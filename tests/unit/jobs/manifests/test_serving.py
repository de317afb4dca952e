"""The Kubernetes objects of a served model."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.errors import ConfigError
from jobs.manifests.operator_config import OperatorConfig
from jobs.manifests.serving import job_spec_for, render_service
from jobs.spec.job import load_job_spec
from jobs.spec.yaml12 import write_yaml
from ray_app.serving.settings import ServeSettings
from tests.support.calling import Run, caller

ROOT = Path(__file__).parents[4]
GOLDEN = ROOT / "tests" / "golden" / "render" / "serve.yaml"
SAMPLE = ROOT / "k8s" / "samples" / "f2llm-0.6b.yaml"
MODEL = "s3://my-bucket/runs/f2llm-0-6b"
OPTIONS = ("--serve", MODEL, "--name", "search", "--replicas", "2", "--set", "cluster.secrets=[s3-keys, api-key]")


@pytest.fixture
def f2llm(capsys: pytest.CaptureFixture[str]) -> Run:
    return caller(capsys)


def objects(*overrides: str, replicas: int = 2) -> dict[str, dict[str, Any]]:
    job_spec = job_spec_for("search", overrides)
    rendered = render_service(MODEL, job_spec, OperatorConfig(), name="search", replicas=replicas)
    return {each["kind"]: each for each in rendered}


def pods(rendered: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    cluster = rendered["RayService"]["spec"]["rayClusterConfig"]
    templates = [cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]]
    return [template["spec"] for template in templates]


def test_a_service_renders_as_it_did(f2llm: Run) -> None:
    code, out, err = f2llm("render", str(SAMPLE), *OPTIONS)

    assert (code, err) == (0, "")
    assert out == GOLDEN.read_text(), f"if this is meant: f2llm render {SAMPLE} {' '.join(OPTIONS)} and look at it"


def test_the_job_specs_image_secrets_gpus_and_nodes_are_those_of_the_pods_that_serve() -> None:
    head, worker = pods(
        objects(
            "cluster.image=registry/f2llm:1", "cluster.secrets=[s3-keys]", "cluster.image_pull_secrets=[registry]",
            "workers.gpus=1", "cluster.worker.memory=16Gi", "cluster.worker.node_selector={pool: gpu}",
        )
    )  # fmt: skip

    for pod in (head, worker):
        (container,) = pod["containers"]
        assert container["image"] == "registry/f2llm:1"
        assert container["envFrom"] == [{"secretRef": {"name": "s3-keys"}}]
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert worker["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1", "memory": "16Gi"}
    assert worker["nodeSelector"] == {"pool": "gpu"}


def test_pods_fit_the_restricted_standard_and_have_no_access_to_kubernetes() -> None:
    for pod in pods(objects()):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_the_application_gets_its_settings() -> None:
    rendered = objects("workers.gpus=1", "workers.cpus=3.5", "storage.s3.endpoint_url=https://s3.example.com")
    (application,) = yaml.safe_load(rendered["RayService"]["spec"]["serveConfigV2"])["applications"]

    settings = ServeSettings.model_validate(application["args"])

    assert (settings.model, settings.name, settings.replicas) == (MODEL, "search", 2)
    assert (settings.cpus, settings.gpus, settings.tokens_at_once) == (4, 1, 16_384)
    assert settings.s3.endpoint_url == "https://s3.example.com"
    assert application["import_path"] == "ray_app.serving.ray_serve:build"


@pytest.mark.parametrize("cpus", ["0.5", "1", "7.5"])
def test_every_pod_has_room_for_one_replica_and_the_head_for_none(cpus: str) -> None:
    spec = objects(f"workers.cpus={cpus}", replicas=3)["RayService"]["spec"]

    cluster = spec["rayClusterConfig"]
    (group,) = cluster["workerGroupSpecs"]
    (application,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    assert group["rayStartParams"]["num-cpus"] == str(application["args"]["cpus"])
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (3, 3, 3)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["authOptions"] == {"mode": "token"}


def test_kuberay_gives_the_head_its_ports_and_its_place_in_the_service() -> None:
    """If the head names a port, KubeRay adds no others and does not find its dashboard. If the head is not in the
    Service, the Service has no endpoint during a rolling update of the replicas (seen in
    tests/cluster/test_serving.py).
    """
    rendered = objects()

    head, worker = pods(rendered)
    assert "ports" not in head["containers"][0]
    assert worker["containers"][0]["ports"] == [{"name": "serve", "containerPort": 8000}]
    assert "excludeHeadPodFromServeSvc" not in rendered["RayService"]["spec"]


def test_the_port_of_requests_is_open_and_that_of_the_control_plane_to_kuberay_only() -> None:
    policy = objects()["NetworkPolicy"]["spec"]

    open_to_all = [rule for rule in policy["ingress"] if rule["from"] == [{"namespaceSelector": {}}]]
    assert [port["port"] for rule in open_to_all for port in rule["ports"]] == [8000]
    assert policy["podSelector"] == {"matchLabels": {"f2llm.dev/service": "search"}}


def test_a_drain_keeps_all_but_one_replica_and_may_evict_a_single_one() -> None:
    assert objects(replicas=3)["PodDisruptionBudget"]["spec"]["minAvailable"] == 2
    assert "PodDisruptionBudget" not in objects(replicas=1)


def test_an_unknown_profile_is_refused_with_the_known_names() -> None:
    with pytest.raises(ConfigError, match="expected one of efa"):
        objects("cluster.profiles=[nowhere]")


def test_without_job_spec_and_model_the_command_says_what_it_needs(f2llm: Run) -> None:
    code, _, err = f2llm("render")

    assert code == 2
    assert "pass JOB.yaml, or a model: --serve MODEL" in err


def test_the_serve_configuration_is_a_readable_block() -> None:
    job_spec = load_job_spec(str(SAMPLE))
    text = write_yaml(render_service(MODEL, job_spec, OperatorConfig(), name="search", replicas=1)[-1])

    assert "  serveConfigV2: |\n    proxy_location: EveryNode\n" in text
