"""Versions that stand in several files are equal: those of a release, and those of the software around it."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHARTS = ("f2llm-operator", "f2llm-platform")
BUILT = {
    "Kubernetes": "kubernetes", "KubeRay": "kuberay", "Helm": "helm", "Kueue": "kueue", "Karpenter": "karpenter",
    "a network plugin that enforces NetworkPolicy": "kube_router",
}  # fmt: skip


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))["project"]


def releases() -> list[str]:
    """The versions of the changelog, newest first."""
    return re.findall(r"^## \[(\d\S*)\]", read("CHANGELOG.md"), re.M)


def built() -> dict[str, str]:
    """The defaults in tests/cluster/versions.sh, by variable."""
    lines = re.findall(r"^(\w+)=(?:\$\{\w+:-)?(\d[\d.]*)\}?$", read("tests/cluster/versions.sh"), re.M)
    return dict(lines)


def matrix() -> dict[str, list[str]]:
    """The table of docs/cluster/before-you-begin.md: the cells of each row, by software."""
    rows = re.findall(r"^\| (.+) \|$", read("docs/cluster/before-you-begin.md"), re.M)
    return {cells[0]: cells[1:] for row in rows if len(cells := row.split(" | ")) == 5}


@pytest.mark.parametrize("chart", CHARTS)
def test_a_chart_has_the_newest_version_of_the_changelog(chart: str) -> None:
    metadata = yaml.safe_load(read(f"helm/{chart}/Chart.yaml"))

    assert (metadata["version"], metadata["appVersion"]) == (releases()[0], releases()[0])


def test_the_package_has_the_newest_version_of_the_changelog() -> None:
    assert project()["version"] == releases()[0]


@pytest.mark.parametrize(
    "path", ["helm/f2llm-operator/values.yaml", "k8s/base/operator.yaml", "k8s/samples/trial/demo-data.yaml"]
)
def test_an_image_has_the_version_of_the_release_as_its_tag(path: str) -> None:
    tags = re.findall(r"image: f2llm-(?:operator|ray):(\S+)", read(path))

    assert set(tags) == {releases()[0]}


@pytest.mark.parametrize("software", BUILT)
def test_the_support_matrix_has_the_version_that_the_tests_build(software: str) -> None:
    assert matrix()[software][1].split(",")[0].split()[-1] == built()[BUILT[software]]


def test_the_support_matrix_has_the_versions_of_the_other_programs() -> None:
    prometheus = "3." + built()["prometheus"].split(".")[1].removeprefix("3")  # its Go module has another numbering

    assert matrix()["Prometheus with its operator"][1] == (
        f"Prometheus {prometheus}, operator {built()['prometheus_operator']}"
    )
    assert matrix()["Karpenter"][1].endswith(f"AWS provider {built()['karpenter_aws']}")
    assert f'VERSION = "v{matrix()["an S3-compatible object store"][1].split()[-1]}"' in read(
        "tests/support/s3_server.py"
    )


def test_the_support_matrix_has_the_oldest_kubernetes_that_the_charts_accept() -> None:
    oldest = matrix()["Kubernetes"][0].split()[0]

    for chart in CHARTS:
        assert yaml.safe_load(read(f"helm/{chart}/Chart.yaml"))["kubeVersion"] == f">={oldest}.0-0"


def test_the_support_matrix_has_the_ray_and_the_python_of_the_package() -> None:
    (ray,) = {each for each in project()["optional-dependencies"]["train"] if each.startswith("ray[")}

    assert ray == f"ray[train,default]>={matrix()['Ray'][1]},<2.{int(matrix()['Ray'][1].split('.')[1]) + 1}"
    assert project()["requires-python"] == f">={matrix()['Python'][0].split()[0]}"
    for image in ("operator", "training"):
        assert f"/python:{matrix()['Python'][1]}-slim-bookworm@sha256:" in read(f"docker/{image}.Dockerfile")


def test_doctor_recommends_the_kuberay_that_the_tests_build() -> None:
    assert f'KUBERAY_TESTED, KUBERAY_OLDEST = "{built()["kuberay"]}"' in read("jobs/doctor/cluster.py")


def test_kubernetes_is_built_with_modules_of_its_version() -> None:
    assert f"k8s.io/kubernetes v{built()['kubernetes']} " in read("tests/cluster/programs/kube/go.mod")
