"""The places of a served model, and its name."""

import shutil
from pathlib import Path

import pytest

from ray_app.errors import ModelError
from ray_app.serving.model import find_served, open_served
from ray_app.serving.settings import ServeLimits, ServeSettings
from tests.support.exported import INSTRUCTION, export_small_model

TEXTS = ["how to join paths", "a long text about files and directories " * 20]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a model."""
    out = tmp_path_factory.mktemp("runs") / "my-run"
    export_small_model(out / "model", TEXTS)
    return out


@pytest.fixture
def hub(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a repository that is in the cache of the Hub. There is no network."""
    repository = tmp_path / "models--team--embedder"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abcd")
    shutil.copytree(run / "model", repository / "snapshots" / "0123abcd")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return "team/embedder"


def test_a_run_a_model_directory_and_a_hub_id_are_the_same_model(run: Path, hub: str) -> None:
    of_run, of_folder, of_hub = (find_served(ServeSettings(model=m)) for m in (str(run), str(run / "model"), hub))

    assert of_run.fingerprint == of_folder.fingerprint == of_hub.fingerprint
    assert (of_run.name, of_folder.name, of_hub.name) == ("my-run", "my-run", "team/embedder")
    assert find_served(ServeSettings(model=hub, name="search")).name == "search"


def test_an_opened_model_knows_its_limits(run: Path) -> None:
    settings = ServeSettings(model=str(run), limits=ServeLimits(max_inputs=7))

    encoder, served = open_served(find_served(settings), settings, created=1)

    assert (served.name, served.dimensions, served.max_tokens, served.max_inputs) == ("my-run", 48, 48, 7)
    assert served.prompts["query"] == f"Instruct: {INSTRUCTION}\nQuery: "
    assert encoder.encode(["x"]).shape == (1, 48)


@pytest.mark.usefixtures("hub")
def test_a_model_that_is_neither_here_nor_on_the_hub_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="team/other is not a directory here, and HF_HUB_OFFLINE is set"):
        find_served(ServeSettings(model="team/other"))
    with pytest.raises(ModelError, match="has no model"):
        find_served(ServeSettings(model=str(tmp_path)))


def test_a_batch_is_larger_on_a_gpu_by_default() -> None:
    assert ServeSettings(model="m").tokens_at_once == 2048
    assert ServeSettings(model="m", gpus=1).tokens_at_once == 16_384
    assert ServeSettings(model="m", gpus=1, batch_tokens=64).tokens_at_once == 64
