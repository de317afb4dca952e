"""TLS between the processes of Ray in rendered pods."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.manifests.job import render
from jobs.manifests.operator_config import OperatorConfig, Profile, Tls
from jobs.manifests.serving import job_spec_for, render_service
from jobs.spec.cluster import ClusterSpec
from jobs.spec.job import load_job_spec, parse_job_spec
from jobs.spec.yaml12 import RawSpec, write_yaml
from tests.support.job_specs import job_spec

ROOT = Path(__file__).parents[4]
GOLDEN = ROOT / "tests" / "golden" / "render" / "demo-cpu-tls.yaml"
TLS = Tls(ca_secret="ray-ca")
CONFIG = OperatorConfig(image="registry.example.org/ours:1", tls=TLS, profiles={"p": Profile(env={"RAY_USE_TLS": "0"})})


def rendered_sample() -> str:
    job = load_job_spec(str(ROOT / "k8s" / "samples" / "demo-cpu.yaml"))
    return "---\n".join(write_yaml(each) for each in render(job, CONFIG, uid="1"))


def pods_of(cluster: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


def pods(spec: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    job = parse_job_spec(RawSpec("job.yaml", job_spec(spec)))
    yield from pods_of(render(job, CONFIG)[-1]["spec"]["rayClusterSpec"])


def test_pods_render_as_they_did() -> None:
    assert rendered_sample() == GOLDEN.read_text(), "if this is meant: python -m tests.unit.jobs.manifests.test_tls"


def test_only_the_operators_image_sees_the_key_of_the_authority() -> None:
    volume = {"name": "models", "mount_path": "/models", "claim": "models"}
    cluster = {"image": "evil:1", "env": {"PYTHONPATH": "/models"}, "secrets": ["keys"], "volumes": [volume]}
    for pod in pods({"cluster": cluster, "evaluation": {"checkpoints": True}}):
        (first,), (container,) = pod["initContainers"], pod["containers"]
        (ca,) = [each["name"] for each in pod["volumes"] if each.get("secret") == {"secretName": "ray-ca"}]
        assert ca not in {each["name"] for each in container["volumeMounts"]}
        assert ca in {each["name"] for each in first["volumeMounts"]}
        assert first["image"] == "registry.example.org/ours:1"
        assert "models" not in {each["name"] for each in first["volumeMounts"]}
        assert [each["name"] for each in first["env"]] == ["POD_IP"]
        assert "envFrom" not in first


def test_a_head_has_the_name_of_its_service_and_a_worker_does_not() -> None:
    head, worker = (pod["initContainers"][0]["command"] for pod in pods())

    assert head[-2:] == ["$(POD_IP)", "$(FQ_RAY_IP)"]
    assert worker == head[:-1]


def test_the_init_container_fits_the_restricted_standard() -> None:
    for pod in pods():
        (first,), (container,) = pod["initContainers"], pod["containers"]
        assert first["securityContext"] == container["securityContext"]
        assert first["resources"]["limits"].keys() == {"memory"}


def test_neither_a_job_spec_nor_a_profile_turns_it_off() -> None:
    for pod in pods({"cluster": {"env": {"RAY_USE_TLS": "0", "RAY_TLS_CA_CERT": "/models/ca"}, "profiles": ["p"]}}):
        given = [(each["name"], each["value"]) for each in pod["containers"][0]["env"]]
        assert given.count(("RAY_USE_TLS", "1")) == 1
        assert [value for name, value in given if name == "RAY_TLS_CA_CERT"] == ["/etc/f2llm-tls/ca.crt"]
        assert len(given) == len(dict(given))


def test_a_served_model_has_it_too() -> None:
    rendered = render_service("s3://b/m", job_spec_for("m", ()), CONFIG, name="m", replicas=1)

    for pod in pods_of(rendered[-1]["spec"]["rayClusterConfig"]):
        assert pod["initContainers"][0]["name"] == "certificate"


@pytest.mark.parametrize(
    "cluster",
    [
        {"secrets": ["keys", "ray-ca"]},
        {"image_pull_secrets": ["ray-ca"]},
        {"volumes": [{"name": "a", "mount_path": "/a", "secret": "ray-ca"}]},
    ],
    ids=lambda cluster: str(*cluster),
)
def test_no_job_may_name_the_secret_of_the_authority(cluster: dict[str, Any]) -> None:
    assert TLS.denied(ClusterSpec.model_validate(cluster)) == (
        "spec.cluster: found the Secret ray-ca, which is for TLS of Ray"
    )
    assert TLS.denied(ClusterSpec(secrets=("keys",))) == ""


if __name__ == "__main__":
    GOLDEN.write_text(rendered_sample(), encoding="utf-8")
