"""Vectors for texts: one per row in the order of the input, quantized as sentence-transformers does, after any kill."""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentence_transformers.util.quantization import quantize_embeddings

from data_io.errors import ConfigError, DataError
from data_io.storage.resumable import WORK_PREFIX
from data_io.storage.store import open_store
from ray_app.errors import ModelError
from ray_app.inference.embed_files import Embedded, embed_texts
from ray_app.inference.encoder import Cut, load_encoder
from ray_app.inference.model_source import ExportedModel, find_exported
from tests.support.exported import export_small_model

TEXTS = [f"text {i}, which says {'a few words more ' * (i * 7 % 11)}and ends" for i in range(50)]


class Killed(Exception):
    """Interrupts a job."""


def killed_after(tasks: int) -> Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[tuple[Any, Any]]]:
    """An executor that ends after some of the tasks, as if the process had been killed."""

    def executor(function: Callable[[Any], Any], todo: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for number, task in enumerate(todo):
            if number == tasks:
                raise Killed
            yield task, function(task)

    return executor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_small_model(tmp_path_factory.mktemp("model") / "small", TEXTS, width=48)


@pytest.fixture(scope="module")
def model(folder: Path) -> ExportedModel:
    return find_exported(open_store(str(folder)))


@pytest.fixture
def texts(tmp_path: Path) -> str:
    path = tmp_path / "texts.parquet"
    pq.write_table(pa.table({"id": range(50), "text": TEXTS}), path, row_group_size=13)
    return str(path)


def embed(model: ExportedModel, address: str, out: Path, **options: Any) -> Embedded:
    return embed_texts(model, address, open_store(str(out)), shard_rows=8, **options)


def table_of(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("part-*.parquet")))


def vectors_of(out: Path, column: str = "embedding") -> Any:
    return np.array(table_of(out).column(column).to_pylist())


def files_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_each_row_keeps_its_columns_and_its_place_and_has_the_vector_of_its_text(
    model: ExportedModel, folder: Path, texts: str, tmp_path: Path
) -> None:
    made = embed(model, texts, tmp_path / "out", instruction="Find it.")

    table = table_of(tmp_path / "out")
    assert table.column_names == ["id", "text", "embedding"]
    assert table.column("id").to_pylist() == list(range(50))
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 48)
    np.testing.assert_allclose(
        vectors_of(tmp_path / "out"), load_encoder(folder).encode(TEXTS, instruction="Find it."), atol=1e-6
    )
    found = made.embeddings
    assert (found.rows, found.nulls, found.dimensions, found.width) == (50, 0, 48, 48)
    assert [part.rows for part in found.parts] == [8] * 6 + [2]
    assert sorted(files_of(tmp_path / "out")) == ["embeddings.json", *(part.key for part in found.parts)]


@pytest.mark.parametrize("kills", [(0,), (3,), (1, 0, 4)])
def test_a_killed_job_resumes_and_writes_the_same_bytes(
    model: ExportedModel, texts: str, tmp_path: Path, kills: tuple[int, ...]
) -> None:
    embed(model, texts, tmp_path / "straight")

    for tasks in kills:
        with pytest.raises(Killed):
            embed(model, texts, tmp_path / "killed", executor=killed_after(tasks))
    progress: list[int] = []
    made = embed(model, texts, tmp_path / "killed", on_progress=lambda p: progress.append(p.rows))

    assert files_of(tmp_path / "killed") == files_of(tmp_path / "straight")
    assert progress[0] == 8 * (sum(kills) + 1)
    assert made.rows_per_second is not None


def test_finished_vectors_are_kept(model: ExportedModel, texts: str, tmp_path: Path) -> None:
    first = embed(model, texts, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}

    again = embed(model, texts, tmp_path / "out", executor=killed_after(0))

    assert again.embeddings == first.embeddings
    assert again.tokens_per_second is None
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_a_directory_with_other_files_is_refused(model: ExportedModel, texts: str, tmp_path: Path) -> None:
    embed(model, texts, tmp_path / "out")

    with pytest.raises(DataError, match="holds other files, or vectors of another model, input or setting"):
        embed(model, texts, tmp_path / "out", cut=Cut(8))


def test_a_directory_of_the_caller_starts_over_for_another_job(
    model: ExportedModel, texts: str, tmp_path: Path
) -> None:
    said: list[str] = []
    embed(model, texts, tmp_path / "straight", cut=Cut(8))
    embed(model, texts, tmp_path / "out")
    with pytest.raises(Killed):
        embed(model, texts, tmp_path / "out", cut=Cut(16), starts_over=True, executor=killed_after(2))

    embed(model, texts, tmp_path / "out", cut=Cut(8), starts_over=True, say=said.append)

    assert files_of(tmp_path / "out") == files_of(tmp_path / "straight")
    assert any("starting over" in line for line in said)


def test_the_next_start_removes_work_files_next_to_complete_vectors(
    model: ExportedModel, texts: str, tmp_path: Path
) -> None:
    made = embed(model, texts, tmp_path / "out")
    before = files_of(tmp_path / "out")
    open_store(str(tmp_path / "out")).put(f"{WORK_PREFIX}/{made.embeddings.key}/begun", b"")

    embed(model, texts, tmp_path / "out", executor=killed_after(0))

    assert files_of(tmp_path / "out") == before


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_vectors_are_quantized_as_sentence_transformers_does_between_ranges_that_all_shards_share(
    model: ExportedModel, folder: Path, texts: str, tmp_path: Path, precision: Any
) -> None:
    made = embed(model, texts, tmp_path / "out", precision=precision)

    found = made.embeddings
    ranges = None if found.ranges is None else np.array(found.ranges)
    expected = quantize_embeddings(load_encoder(folder).encode(TEXTS), precision=precision, ranges=ranges)
    stored = vectors_of(tmp_path / "out")
    assert (found.ranges is not None) == (precision in ("int8", "uint8"))
    assert found.width == stored.shape[1] == (6 if "binary" in precision else 48)
    assert table_of(tmp_path / "out").schema.field("embedding").type.value_type == (
        pa.int8() if precision in ("int8", "binary") else pa.uint8()
    )
    # A value can lie at the edge of a quantization step.
    assert (stored != expected).mean() < 0.01
    assert stored.std() > 10


@pytest.mark.parametrize("normalize", [True, False])
def test_a_cut_keeps_the_first_values_and_their_length_if_it_is_told_to(
    model: ExportedModel, folder: Path, texts: str, tmp_path: Path, normalize: bool
) -> None:
    embed(model, texts, tmp_path / "out", cut=Cut(16, normalize))

    first = load_encoder(folder).encode(TEXTS)[:, :16]
    expected = first / np.linalg.norm(first, axis=1, keepdims=True) if normalize else first
    np.testing.assert_allclose(vectors_of(tmp_path / "out"), expected, atol=1e-6)


def test_a_cut_wider_than_the_model_is_refused(model: ExportedModel, texts: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="49 dimensions are requested, but the model's embeddings have 48"):
        embed(model, texts, tmp_path / "out", cut=Cut(49))


def test_a_row_without_a_text_keeps_its_place_without_a_vector(model: ExportedModel, tmp_path: Path) -> None:
    lines = ["a", None, "", "b", *[None] * 9, "c"]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in lines))

    made = embed(model, str(tmp_path / "texts.jsonl"), tmp_path / "out")

    stored = table_of(tmp_path / "out").column("embedding")
    assert [value is None for value in stored.to_pylist()] == [text is None for text in lines]
    assert (made.embeddings.rows, made.embeddings.nulls) == (14, 10)


def test_compressed_lines_give_what_plain_ones_do_and_no_copy_of_them_stays(
    model: ExportedModel, tmp_path: Path
) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    (tmp_path / "plain.jsonl").write_bytes(lines)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(lines))

    embed(model, str(tmp_path / "plain.jsonl"), tmp_path / "plain")
    embed(model, str(tmp_path / "packed.jsonl.gz"), tmp_path / "packed")

    plain, packed = files_of(tmp_path / "plain"), files_of(tmp_path / "packed")
    assert plain.pop("embeddings.json") != packed.pop("embeddings.json")
    assert packed == plain


def test_the_vectors_column_must_be_a_new_one(model: ExportedModel, texts: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="already have a column 'id'"):
        embed(model, texts, tmp_path / "out", into="id")


def test_files_of_a_directory_are_embedded_in_order(model: ExportedModel, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, ids in (("b", range(9, 12)), ("a", range(9)), ("c", range(0))):
        table = pa.table({"id": pa.array(ids, pa.int64()), "text": pa.array([str(i) for i in ids], pa.string())})
        pq.write_table(table, tmp_path / "in" / f"{name}.parquet")

    made = embed(model, str(tmp_path / "in"), tmp_path / "out", keep=("id",))

    assert table_of(tmp_path / "out").column("id").to_pylist() == list(range(12))
    assert [part.rows for part in made.embeddings.parts] == [8, 1, 3]


def write_lines(path: Path, *rows: dict[str, str | None]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_file_of_json_lines_none_of_which_has_the_texts_is_refused_and_the_output_stays_empty(
    model: ExportedModel, tmp_path: Path
) -> None:
    write_lines(tmp_path / "in" / "a.jsonl", {"query": "x", "positive": "y"})
    write_lines(tmp_path / "in" / "b.jsonl", {"id": "1", "text": "z"}, {"id": "2", "text": "z"})

    with pytest.raises(DataError, match=r"b\.jsonl has no 'positive' in any row \(2 rows\); .* id, text") as refused:
        embed(model, str(tmp_path / "in"), tmp_path / "out")

    assert "--column" in str(refused.value.remedy)
    assert files_of(tmp_path / "out") == {}


def test_rows_without_a_text_files_without_rows_and_a_column_that_begins_late_are_taken(
    model: ExportedModel, tmp_path: Path
) -> None:
    write_lines(tmp_path / "in" / "a.jsonl", {"text": "x"})
    write_lines(tmp_path / "in" / "b.jsonl")
    write_lines(tmp_path / "in" / "c.jsonl", {"id": "1"}, {"text": "y"}, {"id": "3"})
    write_lines(tmp_path / "in" / "d.jsonl", {"text": None})

    made = embed(model, str(tmp_path / "in"), tmp_path / "out")

    assert (made.embeddings.rows, made.embeddings.nulls) == (5, 3)


def test_a_detected_column_is_printed_and_a_named_one_is_not(model: ExportedModel, tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "a.jsonl", {"query": "x", "positive": "y"})
    chosen: list[str] = []
    named: list[str] = []

    embed(model, str(tmp_path / "in"), tmp_path / "chosen", say=chosen.append)
    embed(model, str(tmp_path / "in"), tmp_path / "named", column="query", say=named.append)

    assert "text column: 'positive'" in chosen
    assert not [line for line in named if "column" in line]
