"""tools/images.sh, without a builder of images."""

import os
import re
import subprocess
from pathlib import Path

import pytest

BUILDERS = ("docker", "podman", "buildah")
VERSION = "--label org.opencontainers.image.version=1"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory for PATH with the programs that the script needs, and no builder."""
    for name in ("bash", "dirname", "sed"):
        found = next(path for each in os.environ["PATH"].split(os.pathsep) if (path := Path(each) / name).exists())
        (tmp_path / name).symlink_to(found)
    return tmp_path


def images(programs: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).parents[3] / "tools" / "images.sh"
    return subprocess.run(
        [programs / "bash", script, *arguments], env={"PATH": str(programs), **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_dry_run_prints_the_commands_and_the_values_and_runs_nothing(programs: Path, builder: str) -> None:
    (programs / builder).symlink_to(programs / "missing")
    (programs / "missing").write_text("#!/bin/false\n")
    (programs / "missing").chmod(0o755)

    shown = images(programs, "--push", "--dry-run", IMAGE_PREFIX="registry/ml/", TAG="1")

    assert shown.stdout.splitlines() == [
        f"{builder} build -f docker/operator.Dockerfile {VERSION} -t registry/ml/f2llm-operator:1 .",
        f"{builder} build -f docker/training.Dockerfile {VERSION} -t registry/ml/f2llm-ray:1 .",
        f"{builder} push registry/ml/f2llm-operator:1",
        f"{builder} push registry/ml/f2llm-ray:1",
        "",
        "Values of f2llm-operator: --set image=registry/ml/f2llm-operator:1 --set jobs.image=registry/ml/f2llm-ray:1",
    ]


@pytest.mark.parametrize("image", ["operator", "training"])
def test_an_image_has_a_pinned_base_checked_packages_and_no_root(project_root: Path, image: str) -> None:
    lines = (project_root / "docker" / f"{image}.Dockerfile").read_text(encoding="utf-8").splitlines()

    assert re.fullmatch(
        r"ARG BASE=docker\.io/library/python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}",
        lines[lines.index("FROM ${BASE} AS build") - 1],
    )
    assert [line for line in lines if line.startswith("FROM")] == ["FROM ${BASE} AS build", "FROM ${BASE}"]
    assert "RUN pip install --no-cache-dir --require-hashes --requirement uv.txt" in lines
    assert "--constraints constraints.txt" in "".join(lines)
    assert int(next(line for line in lines if line.startswith("USER")).split()[1]) > 0


def test_the_names_without_a_prefix_are_the_defaults_of_the_chart(programs: Path, project_root: Path) -> None:
    values = (project_root / "helm" / "f2llm-operator" / "values.yaml").read_text()
    (programs / "podman").symlink_to(programs / "bash")

    shown = images(programs, "--dry-run").stdout

    assert "--set image=f2llm-operator:0.1.0 --set jobs.image=f2llm-ray:0.1.0" in shown
    assert "\nimage: f2llm-operator:0.1.0\n" in values
    assert "\n  image: f2llm-ray:0.1.0\n" in values


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--dry-run"], {}, "none of docker, podman and buildah is on PATH"),
        (["--dry-run"], {"BUILDER": "kaniko"}, "BUILDER is kaniko, which is not on PATH"),
        (["--dry-run"], {"IMAGE_PREFIX": "registry"}, "IMAGE_PREFIX=registry/"),
        (["--push"], {}, "--push needs a registry"),
        (["--dryrun"], {}, "unknown argument: --dryrun"),
    ],
)
def test_a_mistake_is_an_error_with_a_remedy(
    programs: Path, arguments: list[str], environment: dict[str, str], says: str
) -> None:
    shown = images(programs, *arguments, **environment)

    assert shown.returncode in (2, 3)
    assert says in shown.stderr
