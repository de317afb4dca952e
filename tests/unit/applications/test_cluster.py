"""Clusters of texts: every text has one position, and the page shows the content of the files."""

import html
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from applications.cluster import Clusters, cluster_texts
from data_io.errors import DataError
from data_io.storage.store import open_store
from ray_app.inference.model_source import ExportedModel, find_exported
from tests.support.exported import export_small_model

TEXTS = [f"{word} {word} text <b>{i}</b>" for i in range(12) for word in ("graph", "matrix")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    return find_exported(open_store(str(export_small_model(tmp_path_factory.mktemp("model") / "small", TEXTS))))


@pytest.fixture(scope="module")
def folder(model: ExportedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clusters")
    cluster(model, folder, [*TEXTS, None])
    return folder / "out"


def cluster(model: ExportedModel, folder: Path, texts: Sequence[str | None], **options: Any) -> Clusters:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"name": str(i), "text": text}) + "\n" for i, text in enumerate(texts)))
    return cluster_texts(model, str(path), open_store(str(folder / "out")), **{"clusters": 2, **options})


def test_every_text_has_a_cluster_and_a_position(folder: Path) -> None:
    found = Clusters.model_validate_json((folder / "clusters.json").read_text())

    table = pq.read_table(folder / "clusters.parquet").to_pydict()

    assert table["text"] == TEXTS
    assert list(table) == ["name", "text", "cluster", "map_x", "map_y"]
    assert Counter(table["cluster"]) == {each.number: each.texts for each in found.clusters}
    assert len({*zip(table["map_x"], table["map_y"], strict=True)}) == len(TEXTS)
    assert all(set(each.middle) <= set(TEXTS) for each in found.clusters)
    assert sorted(path.name for path in folder.iterdir()) == ["clusters.json", "clusters.parquet", "map.html"]


def test_the_page_shows_the_clusters_and_runs_no_code_of_a_text(folder: Path) -> None:
    found = Clusters.model_validate_json((folder / "clusters.json").read_text())

    page = (folder / "map.html").read_text(encoding="utf-8")

    assert "24 texts in 2 clusters" in page
    assert all(", ".join(each.terms) in page for each in found.clusters)
    assert all(html.escape(text) in page for each in found.clusters for text in each.middle)
    assert not any(text in page for text in TEXTS)


def test_files_that_differ_in_a_columns_type_are_grouped_together(model: ExportedModel, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, years in (("a", pa.array(range(12))), ("b", pa.array([None] + [2001.0] * 11))):
        texts = TEXTS[:12] if name == "a" else TEXTS[12:]
        pq.write_table(pa.table({"text": texts, "year": years}), tmp_path / "in" / f"{name}.parquet")

    cluster_texts(model, str(tmp_path / "in"), open_store(str(tmp_path / "out")), clusters=2)

    years = pq.read_table(tmp_path / "out" / "clusters.parquet").column("year").to_pylist()
    assert years == [*range(12), None, *[2001] * 11]


def test_a_column_with_the_name_of_a_result_is_refused_before_embedding(model: ExportedModel, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": TEXTS, "cluster": range(24)}), tmp_path / "a.parquet")

    def none(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        raise AssertionError("something is embedded")

    with pytest.raises(DataError, match=r"a\.parquet already has a column 'cluster'"):
        cluster_texts(model, str(tmp_path / "a.parquet"), open_store(str(tmp_path / "out")), executor=none)


def test_fewer_texts_than_the_smallest_group_are_refused(model: ExportedModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no cluster of at least 10 texts; the input has 4") as found:
        cluster(model, tmp_path, TEXTS[:4], method="hdbscan", clusters=None)

    assert "lower --smallest" in str(found.value.remedy)


def test_too_few_texts_are_refused(model: ExportedModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found 2 texts; expected at least 3"):
        cluster(model, tmp_path, ["one", "two", None])
