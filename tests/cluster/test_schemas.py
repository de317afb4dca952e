"""Objects of both charts and of the manifests, validated by kubeconform against published schemas, without a server."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.test_chart import VALUES
from tests.support.control_plane import missing_programs, programs_folder
from tests.support.custom_resources import KUBERAY_TYPES
from tests.support.helm import OPERATOR_CHART, PLATFORM_CHART, program
from tests.support.schemas import LOCATION, write_schemas

ROOT = Path(__file__).parents[2]
OTHERS = programs_folder().parent / "platform-crds"
PROFILES = sorted(path.stem.removeprefix("values-") for path in PLATFORM_CHART.glob("values-*.yaml"))
SAMPLES = sorted(path.stem for path in (ROOT / "k8s" / "samples").glob("*.yaml"))
# No Go module contains schemas of these: see tests/cluster/test_platform_chart.py.
UNKNOWN = "AKSNodeClass,ComputeClass"


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing := missing_programs(("kubeconform", "kubernetes-schemas", "platform-crds", "kuberay-manifests")):
        pytest.skip(f"{', '.join(missing)} not there; tests/cluster/build.sh builds and fetches them")
    folder = tmp_path_factory.mktemp("schemas")
    write_schemas(folder, [ROOT / "k8s" / "base" / "crd.yaml", *OTHERS.glob("*.yaml"), *KUBERAY_TYPES.glob("*.yaml")])
    return folder


def judge(schemas: Path, manifest: str) -> list[dict[str, Any]]:
    """kubeconform's result for each resource: `status` and `msg`."""
    options = ("-strict", "-verbose", "-output", "json", "-skip", UNKNOWN)
    command = [programs_folder() / "kubeconform", *options, "-schema-location", f"{schemas}/{LOCATION}"]
    done = subprocess.run(command, input=manifest, capture_output=True, text=True, timeout=120, check=False)
    resources: list[dict[str, Any]] = json.loads(done.stdout)["resources"]
    return resources


def assert_conforms(schemas: Path, manifest: str) -> None:
    resources = judge(schemas, manifest)

    assert [each for each in resources if each["status"] not in ("statusValid", "statusSkipped")] == []
    assert len(resources) == sum(1 for each in yaml.safe_load_all(manifest) if each)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_of_the_platform_conforms(schemas: Path, profile: str) -> None:
    values = f"--values={PLATFORM_CHART / f'values-{profile}.yaml'}"

    assert_conforms(schemas, program("helm")("template", "platform", str(PLATFORM_CHART), values))


@pytest.mark.parametrize("case", VALUES)
def test_the_operators_chart_conforms(schemas: Path, case: str, tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(VALUES[case]))

    assert_conforms(
        schemas, program("helm")("template", "operator", str(OPERATOR_CHART), f"--values={tmp_path}/values.yaml")
    )


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_conforms(schemas: Path, sample: str) -> None:
    assert_conforms(schemas, (ROOT / "k8s" / "samples" / f"{sample}.yaml").read_text())


@pytest.mark.parametrize(
    "golden", sorted((ROOT / "tests" / "golden" / "render").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_objects_of_the_operator_conform(schemas: Path, golden: Path) -> None:
    assert_conforms(schemas, golden.read_text())


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("Deployment", {"replica": 2}, "replica"),
        ("ConfigMap", {"data": {"a": 1}}, "a"),
        ("RayJob", {"spec": {"entrypont": "x"}}, "entrypont"),
    ],
)
def test_a_misspelled_field_does_not_conform(schemas: Path, kind: str, change: dict[str, Any], says: str) -> None:
    versions = {"Deployment": "apps/v1", "ConfigMap": "v1", "RayJob": "ray.io/v1"}
    value = {"apiVersion": versions[kind], "kind": kind, "metadata": {"name": "one"}, **change}

    (verdict,) = judge(schemas, yaml.safe_dump(value))

    assert verdict["status"] == "statusInvalid"
    assert says in verdict["msg"]
