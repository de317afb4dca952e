"""The documents of k8s/samples."""

from pathlib import Path

import pytest

from jobs.cli.app import call
from jobs.spec.job import load_job_spec
from jobs.spec.presets import PRESET_NAMES

FOLDER = Path(__file__).parents[4] / "k8s" / "samples"
SAMPLES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_sample_is_valid(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = call(["validate", str(path)])

    assert code == 0
    assert "valid; its run directory is s3://my-bucket/runs/" + path.stem.replace(".", "-") in capsys.readouterr().out


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_sample_can_be_planned(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = call(["plan", str(path), "--rows", "6000000"])

    assert code == 0
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_a_preset_has_a_sample_that_trains_as_published(name: str) -> None:
    path = str(FOLDER / f"{name}.yaml")

    written = load_job_spec(path).spec
    published = load_job_spec(path, overrides=["train={}", "model={}"]).spec

    assert written.preset == name
    assert (written.train, written.model) == (published.train, published.model)
