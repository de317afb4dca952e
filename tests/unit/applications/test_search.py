"""An index finds the same texts as a slow full comparison, and is valid only if it is complete."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from applications.index import Built, build_index
from applications.search import SearchIndex, fuse, open_index
from data_io.errors import ConfigError, DataError
from data_io.execution import in_process
from data_io.storage.store import open_store
from ray_app.evaluation.bm25 import bm25_rankings
from ray_app.inference.embed_files import EmbeddingProgress
from ray_app.inference.encoder import Encoder, load_encoder
from ray_app.inference.model_source import ExportedModel, find_exported
from tests.support.exported import export_small_model

TEXTS = [
    f"text number {i}: {'graph matrix table '[: i * 7 % 19]}{'of many words ' * (i * 5 % 7)}ends" for i in range(40)
]
RANKINGS = st.lists(st.lists(st.integers(0, 30), unique=True, max_size=20), max_size=4)
QUERIES = ["a matrix of words", "number 7", "nothing of this"]


class Killed(Exception):
    """Interrupts a job."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_small_model(tmp_path_factory.mktemp("model") / "small", TEXTS)


@pytest.fixture(scope="module")
def model(folder: Path) -> ExportedModel:
    return find_exported(open_store(str(folder)))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return load_encoder(folder)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("texts") / "texts.parquet"
    pq.write_table(pa.table({"id": [f"t{i}" for i in range(40)], "text": TEXTS, "length": range(40)}), path)
    return str(path)


@pytest.fixture(scope="module")
def place(model: ExportedModel, texts: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = str(tmp_path_factory.mktemp("index"))
    build(model, texts, out)
    return out


@pytest.fixture
def index(place: str) -> Iterator[SearchIndex]:
    with open_index(open_store(place)) as opened:
        yield opened


def build(model: ExportedModel, texts: str, out: str, **options: Any) -> Built:
    return build_index(model, texts, open_store(out), **options)


def killed(function: Callable[[Any], Any], todo: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """An executor that ends after the last task, before its result is returned."""
    for task in todo:
        function(task)
    raise Killed


def no_encoder(texts: Any) -> npt.NDArray[np.float32]:
    raise AssertionError("no vector is needed")


def test_dense_search_ranks_by_the_cosine_with_every_text(index: SearchIndex, encoder: Encoder) -> None:
    cosines = encoder.encode(QUERIES) @ encoder.encode(TEXTS).T

    found = list(index.search(QUERIES, encoder.encode, method="dense", k=5))

    for hits, row in zip(found, cosines, strict=True):
        assert [hit.score for hit in hits] == pytest.approx(sorted(row.tolist(), reverse=True)[:5], abs=1e-5)
        assert [row[int(hit.id[1:])] for hit in hits] == pytest.approx([hit.score for hit in hits], abs=1e-5)
        assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]


def test_a_hit_has_the_row_of_its_text(index: SearchIndex, encoder: Encoder) -> None:
    (hits,) = index.search([TEXTS[23]], encoder.encode, method="dense", k=1)

    assert (hits[0].id, hits[0].text, hits[0].columns) == ("t23", TEXTS[23], {"length": 23})
    assert hits[0].score == pytest.approx(1, abs=1e-5)


def test_search_by_words_is_bm25_and_needs_no_model(index: SearchIndex) -> None:
    expected = [row.tolist() for row in bm25_rankings(TEXTS, QUERIES, depth=4)]

    found = list(index.search(QUERIES, no_encoder, method="bm25", k=4))

    assert [[int(hit.id[1:]) for hit in hits] for hits in found] == expected
    assert expected[2] == []


def test_hybrid_search_fuses_both_rankings(index: SearchIndex, encoder: Encoder) -> None:
    dense, words = (list(index.search(QUERIES, encoder.encode, method=m, k=100)) for m in ("dense", "bm25"))  # type: ignore[arg-type]

    found = list(index.search(QUERIES, encoder.encode, method="hybrid", k=6))

    for by_meaning, by_words, hits in zip(dense, words, found, strict=True):
        expected = fuse([[int(hit.id[1:]) for hit in ranking] for ranking in (by_meaning, by_words)])[:6]
        assert [(int(hit.id[1:]), hit.score) for hit in hits] == expected
        assert all(hit.score == pytest.approx(sum(1 / (60 + rank) for rank in hit.ranks.values())) for hit in hits)


def test_texts_like_an_item_are_the_nearest_without_itself(index: SearchIndex, encoder: Encoder) -> None:
    vectors = encoder.encode(TEXTS)
    mean = (vectors[3] + vectors[11]) / np.linalg.norm(vectors[3] + vectors[11])
    order = [i for i in np.argsort(-(vectors @ mean)).tolist() if i not in (3, 11)]

    hits = index.like(["t3", "t11"], k=4)

    assert [hit.id for hit in hits] == [f"t{i}" for i in order[:4]]
    assert [hit.score for hit in hits] == pytest.approx([float(vectors[i] @ mean) for i in order[:4]], abs=1e-5)
    with pytest.raises(DataError, match="no text has the id 'x'"):
        index.like(["x"], k=4)


def test_an_approximate_index_finds_nearly_the_same(
    model: ExportedModel, texts: str, index: SearchIndex, encoder: Encoder, tmp_path: Path
) -> None:
    exact = [{hit.id for hit in hits} for hits in index.search(TEXTS, encoder.encode, method="dense", k=5)]
    build(model, texts, str(tmp_path), vectors="hnsw")

    with open_index(open_store(str(tmp_path))) as other:
        found = [{hit.id for hit in hits} for hits in other.search(TEXTS, encoder.encode, method="dense", k=5)]

    assert sum(len(a & b) for a, b in zip(exact, found, strict=True)) >= 0.95 * 5 * len(TEXTS)


def test_a_row_without_a_text_is_left_out_and_rows_without_ids_are_numbered(
    model: ExportedModel, encoder: Encoder, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"text": ["one", None, "three"]}), tmp_path / "some.parquet")

    built = build(model, str(tmp_path / "some.parquet"), str(tmp_path / "out"), dimensions=16)

    assert (built.index.texts, built.index.nulls, built.index.dimensions) == (2, 1, 16)
    with open_index(open_store(str(tmp_path / "out"))) as opened:
        assert [hit.id for hit in opened.like(["1"], k=5)] == ["3"]


def test_an_interrupted_build_resumes_and_leaves_no_index_before(
    model: ExportedModel, texts: str, place: str, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        build(model, texts, str(tmp_path), executor=killed)
    with pytest.raises(ConfigError, match="no complete index"), open_index(open_store(str(tmp_path))):
        pass

    def nothing_left(function: Callable[[Any], Any], todo: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        assert list(todo) == []
        yield from ()

    built = build(model, texts, str(tmp_path), executor=nothing_left)

    assert built.is_new
    files = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {path.name: path.read_bytes() for path in Path(place).rglob("*") if path.is_file()}


def test_the_same_build_again_does_nothing_and_other_texts_are_refused(
    model: ExportedModel, texts: str, place: str, tmp_path: Path
) -> None:
    assert not build(model, texts, place).is_new
    with pytest.raises(DataError, match="holds an index of another model, input or setting"):
        build(model, texts, place, vectors="hnsw")

    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds other files \(notes.txt\)"):
        build(model, texts, str(tmp_path))


def test_an_id_that_two_texts_have_is_refused(model: ExportedModel, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"id": "a", "text": t}) + "\n" for t in TEXTS[:2]))

    with pytest.raises(DataError, match="two texts have the id 'a'"):
        build(model, str(tmp_path / "texts.jsonl"), str(tmp_path / "out"))


def test_a_failed_start_does_not_block_the_next_one(model: ExportedModel, tmp_path: Path) -> None:
    lines = [json.dumps({"id": "a", "number": str(i), "text": text}) for i, text in enumerate(TEXTS[:2])]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match="two texts have the id 'a'"):
        build(model, str(tmp_path / "texts.jsonl"), str(tmp_path / "out"))

    (tmp_path / "texts.jsonl").write_text("\n".join(lines[:1]))
    mended = build(model, str(tmp_path / "texts.jsonl"), str(tmp_path / "out"))

    assert mended.index.texts == 1
    assert not (tmp_path / "out" / ".f2llm-work").exists()


def test_files_that_differ_in_a_columns_type_are_indexed_together(model: ExportedModel, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, years in (("a", pa.array([1999])), ("b", pa.array([None, 2001.0]))):
        ids = [f"{name}{i}" for i in range(len(years))]
        pq.write_table(pa.table({"id": ids, "text": ids, "year": years}), tmp_path / "in" / f"{name}.parquet")

    build(model, str(tmp_path / "in"), str(tmp_path / "out"))

    with open_index(open_store(str(tmp_path / "out"))) as opened:
        found = {hit.id: hit.columns for hit in opened.like(["b0"], k=3)}
    assert found == {"a0": {"year": 1999.0}, "b1": {"year": 2001.0}}


def test_many_texts_are_embedded_in_shards_that_are_reported_kept_and_parallel(
    model: ExportedModel, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"text": [TEXTS[i % 40] for i in range(2500)]}), tmp_path / "many.parquet")
    rows: list[int] = []
    tasks: list[int] = []

    def counted(function: Callable[[Any], Any], todo: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        tasks.append(len(list(todo)))
        yield from in_process(function, todo)

    def stopped_by_the_second(progress: EmbeddingProgress) -> None:
        rows.append(progress.rows)
        if len(rows) == 2:
            raise Killed

    options: dict[str, Any] = {"executor": counted, "on_progress": stopped_by_the_second}
    with pytest.raises(Killed):
        build(model, str(tmp_path / "many.parquet"), str(tmp_path / "out"), **options)
    build(model, str(tmp_path / "many.parquet"), str(tmp_path / "out"), **options)

    assert rows == [1024, 2048, 2500]
    assert tasks == [3, 1]


def test_a_truncated_file_is_named(model: ExportedModel, texts: str, tmp_path: Path) -> None:
    build(model, texts, str(tmp_path))
    path = tmp_path / "rows.parquet"
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(DataError, match=r"is damaged: rows\.parquet has"), open_index(open_store(str(tmp_path))):
        pass


def test_an_index_in_an_object_store_is_searched_like_a_local_one(
    model: ExportedModel, texts: str, index: SearchIndex
) -> None:
    build(model, texts, "memory://index-of-texts")

    with open_index(open_store("memory://index-of-texts")) as opened:
        assert opened.like(["t5"], k=3) == index.like(["t5"], k=3)


@given(RANKINGS)
def test_a_score_is_the_sum_of_reciprocal_ranks(rankings: list[list[int]]) -> None:
    found = dict(fuse(rankings))

    assert set(found) == {position for ranking in rankings for position in ranking}
    for position, score in found.items():
        assert abs(score - sum(1 / (61 + r.index(position)) for r in rankings if position in r)) < 1e-12


@given(RANKINGS)
def test_the_best_comes_first_and_of_equal_ones_the_smaller_position(rankings: list[list[int]]) -> None:
    found = fuse(rankings)

    assert found == sorted(found, key=lambda each: (-each[1], each[0]))


def test_texts_in_both_rankings_come_before_higher_ones_in_one() -> None:
    assert [position for position, _ in fuse([[7, 1], [9, 1]])] == [1, 7, 9]
