"""The job specs of k8s/samples, and the Job that prepares the data of one of them."""

import shlex
from pathlib import Path

import pytest
import yaml

from jobs.cli.app import call
from jobs.manifests.operator_config import OperatorConfig
from jobs.spec.demo import demo_job
from jobs.spec.job import load_job_spec
from jobs.spec.presets import PRESET_NAMES

FOLDER = Path(__file__).parents[4] / "k8s" / "samples"
SAMPLES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_sample_is_valid(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = call(["validate", str(path)])

    assert code == 0
    bucket = "f2llm-trial" if path.stem == "demo-cpu" else "my-bucket"
    assert f"valid; run directory: s3://{bucket}/runs/{path.stem.replace('.', '-')}" in capsys.readouterr().out


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_sample_can_be_planned(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = call(["plan", str(path), "--rows", "6000000"])

    assert code == 0
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_the_pods_of_a_sample_have_keys_and_on_gpu_nodes_a_toleration_and_memory(path: Path) -> None:
    spec = load_job_spec(str(path)).spec

    assert spec.cluster.secrets
    if spec.workers.gpus:
        assert "gpu-taint" in spec.cluster.profiles
        assert spec.cluster.worker.memory == "64Gi"


def test_the_trials_data_is_where_its_sample_reads_it_with_the_same_secret_and_image() -> None:
    job = yaml.safe_load((FOLDER / "trial" / "demo-data.yaml").read_text())
    sample = load_job_spec(str(FOLDER / "demo-cpu.yaml")).spec
    (container,) = job["spec"]["template"]["spec"]["containers"]

    assert job["metadata"]["namespace"] == "f2llm-trial"
    assert shlex.join(container["command"]) == f"f2llm data prepare demo {sample.data.uri}"
    assert [each["secretRef"]["name"] for each in container["envFrom"]] == list(sample.cluster.secrets)
    assert container["image"] == OperatorConfig().image


def test_the_sample_for_cpus_trains_as_the_demo_does() -> None:
    sample = load_job_spec(str(FOLDER / "demo-cpu.yaml")).spec
    demo = demo_job(Path("demo"), overrides=["train.epochs=1"]).spec

    assert (sample.model, sample.train, sample.workers) == (demo.model, demo.train, demo.workers)
    assert sample.data == demo.data.model_copy(update={"uri": sample.data.uri})


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_a_preset_has_a_sample_that_trains_as_published(name: str) -> None:
    path = str(FOLDER / f"{name}.yaml")

    written = load_job_spec(path).spec
    published = load_job_spec(path, overrides=["train={}", "model={}"]).spec

    assert written.preset == name
    assert (written.train, written.model) == (published.train, published.model)
