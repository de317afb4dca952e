"""`f2llm data stats`."""

import json
from pathlib import Path

from data_io.dataset.manifest import SourceInfo
from data_io.dataset.writer import Row, write_dataset
from data_io.storage.store import open_store
from data_io.task import Kind
from tests.support.calling import Run
from tests.support.datasets import write_example
from tests.support.small_training import write_small_dataset


def test_stats_print_the_contents_of_a_data_set(f2llm: Run, tmp_path: Path) -> None:
    write_example(open_store("data"))

    code, out, err = f2llm("data", "stats", "data")
    _, as_json, quiet = f2llm("data", "stats", "data", "--json", "--quiet")

    assert code == 0
    assert "questions (retrieval): 150 rows, 5 hard negatives per row\n  instruction: Find the answer.\n" in out
    assert "  query     21 (p50 21, p90 22, max 22)\n" in out
    assert "held-out (retrieval): 2 queries, 3 documents" in out
    assert "licenses: CC0-1.0" in out
    assert " tokens\n" not in out
    assert (err, quiet) == ("reading questions\nreading labels\n", "")
    assert [source["rows"] for source in json.loads(as_json)["sources"]] == [150, 21]


def test_stats_count_tokens_if_the_data_set_has_a_tokenizer(f2llm: Run, tmp_path: Path) -> None:
    write_small_dataset(open_store(str(tmp_path / "data")))

    _, out, _ = f2llm("data", "stats", "data")
    _, as_json, _ = f2llm("data", "stats", "data", "--json")

    assert out.count(" tokens\n") == 4
    assert ")1" not in out  # columns do not touch
    tokens = json.loads(as_json)["sources"][0]["tokens"]["query"]
    assert 10 < tokens["p50"] <= tokens["max"] < 100


def test_stats_of_a_sample_name_its_size(f2llm: Run, tmp_path: Path) -> None:
    rows = [Row(f"query {i}", f"document {i}") for i in range(70)]
    info = SourceInfo(name="many", kind=Kind.RETRIEVAL, negatives=0)
    write_dataset(open_store(str(tmp_path / "data")), [(info, rows)], rows_per_group=1)

    _, sample, _ = f2llm("data", "stats", "data")
    _, everything, _ = f2llm("data", "stats", "data", "--all")

    assert "70 rows, 0 hard negatives per row; statistics of 64 rows (--all reads all rows)" in sample
    assert "70 rows, 0 hard negatives per row\n" in everything
