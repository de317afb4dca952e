"""A classifier of texts: training, storage and predictions."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from applications.classify import Predicted, ProbeManifest, predict, read_probe, train
from data_io.errors import ConfigError, DataError
from data_io.storage.store import open_store
from ray_app.inference.model_source import ExportedModel, find_exported
from tests.support.exported import export_small_model

KINDS = {"graph": "node edge path graph cycle", "table": "row column table key join"}
LABELED: list[dict[str, str | None]] = [
    {"text": f"{words.split()[i % 5]} and {words.split()[(i * 3 + 1) % 5]} number {i}", "kind": kind}
    for i in range(30)
    for kind, words in KINDS.items()
]


def write(path: Path, rows: list[dict[str, str | None]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    texts = [str(row["text"]) for row in LABELED]
    return find_exported(open_store(str(export_small_model(tmp_path_factory.mktemp("model") / "small", texts))))


@pytest.fixture(scope="module")
def place(model: ExportedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe")
    train_on(model, folder, [*LABELED, {"text": "no label", "kind": None}, {"text": None, "kind": "graph"}])
    return folder / "probe"


def train_on(model: ExportedModel, folder: Path, rows: list[dict[str, str | None]]) -> ProbeManifest:
    texts = write(folder / "texts.jsonl", rows)
    return train(model, texts, open_store(str(folder / "probe")), label="kind", instruction="Say the kind.")


def predict_with(model: ExportedModel, place: Path, folder: Path, rows: list[dict[str, str | None]]) -> Predicted:
    texts = write(folder / "new.jsonl", rows)
    return predict(model, read_probe(open_store(str(place))), texts, open_store(str(folder / "out")))


def test_a_trained_probe_is_stored_with_its_metrics(place: Path, model: ExportedModel) -> None:
    manifest, probe = read_probe(open_store(str(place)))

    assert (manifest.labels, probe.labels) == (("graph", "table"), ("graph", "table"))
    assert (manifest.unlabeled, manifest.instruction, manifest.fingerprint) == (2, "Say the kind.", model.fingerprint)
    assert manifest.measure.accuracy > 0.9 > manifest.measure.most_frequent
    assert sorted(path.name for path in place.iterdir()) == ["probe.json", "weights.safetensors"]


def test_rows_come_back_with_a_label_and_its_probability(model: ExportedModel, place: Path, tmp_path: Path) -> None:
    found = predict_with(
        model, place, tmp_path, [{"text": "edge and path"}, {"text": None}, {"text": "column and key"}]
    )

    table = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pydict()
    assert table["text"] == ["edge and path", "column and key"]
    assert table["predicted_label"] == ["graph", "table"]
    assert all(0.5 < value <= 1 for value in table["predicted_probability"])
    assert (found.rows, found.labels) == (2, {"graph": 1, "table": 1})
    assert [(each.text, each.label) for each in found.first] == [
        ("edge and path", "graph"),
        ("column and key", "table"),
    ]


def test_weights_of_another_probe_are_refused(model: ExportedModel, place: Path, tmp_path: Path) -> None:
    train_on(model, tmp_path, [*LABELED[1:]])
    (tmp_path / "probe" / "probe.json").write_bytes((place / "probe.json").read_bytes())

    with pytest.raises(DataError, match=r"weights\.safetensors is damaged: its SHA-256 differs from probe\.json"):
        read_probe(open_store(str(tmp_path / "probe")))


def test_a_directory_without_a_probe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no complete probe"):
        read_probe(open_store(str(tmp_path)))


def test_a_failed_start_does_not_block_the_next_one(model: ExportedModel, tmp_path: Path) -> None:
    texts, out = write(tmp_path / "texts.jsonl", [{**row, "empty": None} for row in LABELED]), tmp_path / "probe"
    with pytest.raises(DataError, match="no row has a label in column 'empty'"):
        train(model, texts, open_store(str(out)), label="empty")

    train(model, texts, open_store(str(out)), label="kind")

    assert sorted(path.name for path in out.iterdir()) == ["probe.json", "weights.safetensors"]


def test_files_that_differ_in_a_columns_type_are_labeled_together(
    model: ExportedModel, place: Path, tmp_path: Path
) -> None:
    texts = tmp_path / "new"
    texts.mkdir()
    for name, years in (("a", pa.array([1999])), ("b", pa.array([None, 2001.0]))):
        pq.write_table(pa.table({"text": ["edge and path"] * len(years), "year": years}), texts / f"{name}.parquet")

    predict(model, read_probe(open_store(str(place))), str(texts), open_store(str(tmp_path / "out")))

    table = pq.read_table(tmp_path / "out" / "predictions.parquet")
    assert table.column("year").to_pylist() == [1999, None, 2001]


def test_a_number_that_the_type_of_other_files_cannot_hold_is_refused_and_not_rounded(
    model: ExportedModel, place: Path, tmp_path: Path
) -> None:
    texts = tmp_path / "new"
    texts.mkdir()
    pq.write_table(pa.table({"text": ["edge"], "user": [2**53 + 1]}), texts / "a.parquet")
    pq.write_table(pa.table({"text": ["edge"], "user": [0.5]}), texts / "b.parquet")

    with pytest.raises(DataError, match="column 'user' is int64 in one file and cannot be double"):
        predict(model, read_probe(open_store(str(place))), str(texts), open_store(str(tmp_path / "out")))


def test_a_column_with_the_name_of_a_result_is_refused_before_embedding(
    model: ExportedModel, place: Path, tmp_path: Path
) -> None:
    texts = write(tmp_path / "new.jsonl", [{"text": "edge", "predicted_label": "graph"}])

    def none(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        raise AssertionError("something is embedded")

    with pytest.raises(DataError, match=r"new\.jsonl already has a column 'predicted_label'"):
        predict(model, read_probe(open_store(str(place))), texts, open_store(str(tmp_path / "out")), executor=none)


def test_texts_without_a_label_are_refused(model: ExportedModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row has a label in column 'kind'"):
        train_on(model, tmp_path, [{"text": "a", "kind": None}])


def test_a_missing_column_of_labels_is_named_with_its_option(model: ExportedModel, tmp_path: Path) -> None:
    texts = write(tmp_path / "texts.jsonl", [{"text": "x", "kind": "graph"}])

    with pytest.raises(DataError, match="has no column 'label'; it has text, kind") as refused:
        train(model, texts, open_store(str(tmp_path / "probe")), label="label")

    assert refused.value.remedy == "name the column of the labels: --label NAME"
