"""Texts and rows for mining: external sort, each text once, for any sizes."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_io.dataset.manifest import SourceInfo, load_manifest
from data_io.dataset.rows import MAX_TEXT_BYTES
from data_io.dataset.schema import text_key
from data_io.dataset.writer import Row, write_dataset
from data_io.errors import DataError
from data_io.storage.chunk_files import Mark, fetches, key_range, read_tables
from data_io.storage.store import Store, open_store
from data_io.task import Kind
from ray_app.mining.inputs import corpus_texts, find_corpus, merge_documents, merge_rows, plan_scan, scan, source_rows

ROWS = [
    Row(f"query {i % 40}", f"Answer  {i}", [f"wrong {i % 7}", f"WRONG {i % 7} ", f"wrong too {i}"]) for i in range(100)
]
LONG = "x" * (MAX_TEXT_BYTES + 1)


def data_set(name: str) -> Store:
    store = open_store(f"memory://{name}")
    info = SourceInfo(name="docs", kind=Kind.RETRIEVAL, negatives=3)
    write_dataset(store, [(info, ROWS)], rows_per_group=8, groups_per_shard=2)
    return store


def scanned(name: str, *, run_bytes: int, chunk_bytes: int = 256) -> tuple[Store, list[Mark]]:
    data, work = data_set(name), open_store(f"memory://{name}-work")
    ranges = plan_scan(data, load_manifest(data), "docs", [], run_bytes=run_bytes)
    return work, [scan(each, work, run_bytes=run_bytes, chunk_bytes=chunk_bytes) for each in ranges]


@pytest.mark.parametrize("run_bytes", [1, 500, 10**6])
@pytest.mark.parametrize("shares", [1, 5])
def test_documents_are_the_distinct_texts_by_key_for_any_sizes(run_bytes: int, shares: int) -> None:
    work, marks = scanned(f"documents-{run_bytes}-{shares}", run_bytes=run_bytes)

    texts, keys = [], []
    for index in range(shares):
        first, last = key_range(index, shares)
        table = merge_documents(read_tables(work, fetches(marks, "documents", first, last)), first, last)
        texts += table.column("text").to_pylist()
        keys += table.column("key").to_pylist()

    smallest: dict[int, str] = {}
    for row in ROWS:
        for text in (row.positive, *row.negatives):
            smallest[text_key(text)] = min(text, smallest.get(text_key(text), text))
    assert keys == sorted(smallest)
    assert texts == [smallest[key] for key in keys]


@pytest.mark.parametrize("run_bytes", [1, 500, 10**6])
def test_all_rows_of_a_query_are_together_and_none_is_lost(run_bytes: int) -> None:
    work, marks = scanned(f"rows-{run_bytes}", run_bytes=run_bytes)

    found = []
    for index in range(3):
        first, last = key_range(index, 3)
        found += merge_rows(read_tables(work, fetches(marks, "rows", first, last)), first, last)

    assert sorted(row.number for row in found) == list(range(100))
    assert [row.key for row in found] == sorted(row.key for row in found)
    assert {(r.query, r.positive, frozenset(r.negatives)) for r in found} == {
        (r.query, r.positive, frozenset(r.negatives)) for r in ROWS
    }


def test_runs_exceed_their_size_by_at_most_one_text() -> None:
    _, marks = scanned("bounded", run_bytes=2000, chunk_bytes=100_000)

    whole = sum(len(r.query) + 2 * len(r.positive) + 2 * sum(map(len, r.negatives)) for r in ROWS)
    runs = [part for mark in marks for part in mark.parts]
    assert whole / 2000 / 2 < len(runs) < whole / 2000 * 4
    assert sum(chunk.rows for part in runs for chunk in part.chunks if chunk.name == "rows") == 100


def test_a_range_of_row_groups_has_the_numbers_of_its_rows() -> None:
    data = data_set("numbers")

    assert [row.number for row in source_rows(data, "docs", 2, 4)] == list(range(16, 32))


def test_a_corpus_is_read_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbffirst\n\n second \n")
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate("xy")))
    pq.write_table(pa.table({"anything": ["only column"]}), tmp_path / "c.parquet")

    found = [
        list(corpus_texts(file))
        for name in ("a.txt", "b.jsonl", "c.parquet")
        for file in find_corpus(str(tmp_path / name))
    ]

    assert found == [["first", "second"], ["x", "y"], ["only column"]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere.txt", None, "no text file at"),
        ("nowhere.jsonl", None, "no data file at"),
        ("a.jsonl", '{"id": 1, "name": "x"}\n', "no text column: found id, name; expected one of text"),
        ("a.jsonl", '{"text": "x"}\n{"text": null}\n', "a.jsonl, line 2: 'text' is null"),
        ("a.jsonl", '{"text": "x"}\n{"text": " "}\n', "a.jsonl, line 2: 'text' is blank"),
        ("a.jsonl", '{"text": "x"}\n{"body": "y"}\n', "a.jsonl, line 2: the field 'text' is missing; the row has body"),
        ("a.jsonl", '{"text": "x"}\n{"text": 5}\n', "a.jsonl, line 2: 'text' is int, "),
        ("a.jsonl", '{"text": "x"}\n{"text": "\\ud83d"}\n', r"a.jsonl, line 2: 'text' .* lone surrogate U\+D83D"),
        ("a.jsonl", f'{{"text": "{LONG}"}}', f"a.jsonl, line 1: 'text' has {len(LONG)} bytes, "),
        ("a.txt", f"good\n{LONG}\n", f"a.txt, line 2: the text has {len(LONG)} bytes, "),
        ("a.txt", b"good\nbad \xff\n", "a.txt, line 2: not valid UTF-8"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_named_with_its_place(
    tmp_path: Path, name: str, content: str | bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(DataError, match=message):
        [list(corpus_texts(file)) for file in find_corpus(str(tmp_path / name))]
