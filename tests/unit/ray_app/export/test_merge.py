"""Averages of exported models: the mean of the weights of matching models, in a directory that loads."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from data_io.errors import ConfigError
from data_io.storage.store import open_store
from ray_app.checkpointing import weights
from ray_app.errors import ModelError
from ray_app.export import model_folder as export
from ray_app.export.merge import Merged, greedy_soup, merge, open_models
from ray_app.inference.encoder import load_encoder
from tests.support.exported import export_small_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

TEXTS = ["how to join paths", "a text about files and directories", "reading a line", "x"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    return [str(export_small_model(folder / f"model-{seed}", TEXTS, seed=seed)) for seed in range(3)]


def average(models: list[str], out: Path, counts: list[float] | None = None) -> Merged:
    with open_models({model: open_store(model) for model in models}) as source:
        return merge(source, counts, open_store(str(out)), say=lambda text: None, on_bytes=lambda done, total: None)


def stored(folder: str | Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in Path(folder).glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("counts", [None, [1.0, 2.0, 5.0]])
def test_every_weight_is_the_weighted_mean_of_those_of_the_models(
    models: list[str], counts: list[float] | None, tmp_path: Path
) -> None:
    merged = average(models, tmp_path / "out", counts)

    given = np.array(counts or [1.0, 1.0, 1.0])
    parts, found = [stored(model) for model in models], stored(tmp_path / "out")
    assert found.keys() == parts[0].keys()
    for name, tensor in found.items():
        expected = np.average([part[name].double().numpy() for part in parts], axis=0, weights=given)
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-6, atol=1e-7)
    assert list(merged.shares.values()) == pytest.approx(list(given / given.sum()))


def test_the_directory_loads_and_its_card_names_the_averaged_models(models: list[str], tmp_path: Path) -> None:
    average(models[:2], tmp_path / "out", [3.0, 1.0])

    found = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(found, load_encoder(tmp_path / "out").encode(TEXTS), atol=1e-5)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "model-0 | 75.0%" in card
    assert "model-1 | 25.0%" in card
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_average_of_equal_models_is_the_model(models: list[str], tmp_path: Path) -> None:
    twin = str(export_small_model(tmp_path / "twin", TEXTS, seed=0))

    average([models[0], twin], tmp_path / "out")

    expected = stored(models[0])
    assert all(torch.equal(tensor, expected[name]) for name, tensor in stored(tmp_path / "out").items())


def test_bf16_is_rounded_once_after_the_sum(models: list[str], tmp_path: Path) -> None:
    folders = [str(_stored_as_bf16(model, tmp_path / Path(model).name)) for model in models]

    average(folders, tmp_path / "out")

    parts = [stored(folder) for folder in folders]
    for name, tensor in stored(tmp_path / "out").items():
        assert tensor.dtype == torch.bfloat16
        exact = sum(part[name].double() for part in parts) / 3
        torch.testing.assert_close(tensor.double(), exact, rtol=2**-8, atol=1e-6)


def test_memory_holds_one_file_and_one_part_and_the_result_is_the_same(
    models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    average(models, tmp_path / "one")
    read: list[int] = []
    whole = weights.FolderWeights.read

    def spy(self: weights.FolderWeights, names: list[str]) -> dict[str, torch.Tensor]:
        found = whole(self, names)
        read.append(sum(tensor.nbytes for tensor in found.values()))
        return found

    monkeypatch.setattr(weights.FolderWeights, "read", spy)
    monkeypatch.setattr(weights, "_AT_ONCE", 20_000)
    monkeypatch.setattr(export, "_FILE_BYTES", 60_000)
    average(models, tmp_path / "many")

    expected, found = stored(tmp_path / "one"), stored(tmp_path / "many")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert max(read) <= max(20_000, *(tensor.nbytes for tensor in expected.values()))
    SentenceTransformer(str(tmp_path / "many"), device="cpu").encode(TEXTS)


def test_models_of_another_width_are_refused_with_both_widths(models: list[str], tmp_path: Path) -> None:
    wider = str(export_small_model(tmp_path / "wider", TEXTS, width=64))

    with pytest.raises(ModelError, match=r"different models: they differ in hidden_size of config.json .48 and 64"):
        average([models[0], wider], tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_models_with_another_tokenizer_are_refused(models: list[str], tmp_path: Path) -> None:
    other = str(export_small_model(tmp_path / "other", ["wholly different words", *"zyxwvu"]))

    with pytest.raises(ModelError, match=r"they differ in model of tokenizer.json"):
        average([models[0], other], tmp_path / "out")


def test_a_value_that_is_not_finite_is_refused_with_its_model_and_name(models: list[str], tmp_path: Path) -> None:
    broken = export_small_model(tmp_path / "broken", TEXTS, seed=5)
    tensors = load_file(broken / "model.safetensors")
    tensors["norm.weight"][3] = torch.inf
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match=r"broken: norm.weight has values that are not finite"):
        average([models[0], str(broken)], tmp_path / "out")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken"]


def test_a_directory_with_files_is_not_changed(models: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")

    with pytest.raises(ConfigError, match="already holds files"):
        average(models, tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_directory_without_a_model_is_refused(models: list[str], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no model"):
        average([models[0], str(tmp_path)], tmp_path / "out")


def test_the_greedy_recipe_keeps_models_that_do_not_lower_the_score() -> None:
    asked: list[list[str]] = []

    def score_of(shares: Mapping[str, float]) -> float:
        asked.append(list(shares))
        return {"b": 0.5, "bc": 0.4, "ba": 0.6, "bad": 0.6}["".join(shares)]

    kept = greedy_soup({"a": 0.2, "b": 0.5, "c": 0.3, "d": 0.1}, score_of)

    assert asked == [["b", "c"], ["b", "a"], ["b", "a", "d"]]
    assert kept == pytest.approx({"b": 1 / 3, "a": 1 / 3, "d": 1 / 3})


def _stored_as_bf16(model: str, out: Path) -> Path:
    folder = Path(model)
    out.mkdir()
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            (out / path.relative_to(folder)).parent.mkdir(exist_ok=True)
            (out / path.relative_to(folder)).write_bytes(path.read_bytes())
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    tensors = {name: tensor.bfloat16() for name, tensor in stored(folder).items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out
