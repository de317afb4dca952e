import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_io.dataset.manifest import SourceData, SourceInfo, load_manifest
from data_io.dataset.rows import MAX_TEXT_BYTES, Row
from data_io.dataset.schema import columns, negative_columns, text_hash
from data_io.dataset.writer import write_dataset, write_source
from data_io.errors import DataError
from data_io.storage.store import Store, open_store
from data_io.task import Kind
from tests.support.datasets import example_rows, write_example
from tests.support.stored import stored


def info(negatives: int = 3, name: str = "facts") -> SourceInfo:
    return SourceInfo(name=name, kind=Kind.RETRIEVAL, negatives=negatives)


def read_all(store: Store, written: SourceData) -> pa.Table:
    """A source's rows as plain pyarrow sees them."""
    return pa.concat_tables([pq.read_table(pa.BufferReader(store.get(shard.key))) for shard in written.shards])


def as_rows(table: pa.Table, negatives: int) -> list[tuple[str, str, tuple[str, ...]]]:
    names = ["query", "positive", *negative_columns(negatives)]
    return [(q, p, tuple(n)) for q, p, *n in zip(*(table.column(name).to_pylist() for name in names), strict=True)]


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(lambda text: bool(text.strip()))


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(texts, texts, st.lists(texts, min_size=2, max_size=4)), min_size=1, max_size=40),
    rows_per_group=st.integers(1, 9),
    groups_per_shard=st.integers(1, 4),
)
def test_every_row_is_stored_once_and_of_equal_rows_the_first(
    rows: list[tuple[str, str, list[str]]], rows_per_group: int, groups_per_shard: int
) -> None:
    store = open_store("memory://writer")
    rows = [(q, p, [n if n != p else n + "'" for n in negatives]) for q, p, negatives in rows]

    written = write_source(
        store, info(2), [Row(*row) for row in rows], rows_per_group=rows_per_group, groups_per_shard=groups_per_shard
    )

    table = read_all(store, written)
    first = {(q, p): tuple(sorted(n[:2])) for q, p, n in reversed(rows)}
    expected = sorted((q, p, negatives) for (q, p), negatives in first.items())
    assert sorted((q, p, tuple(sorted(n))) for q, p, n in as_rows(table, 2)) == expected
    assert table.schema == columns(2)
    assert table.column("query_hash").to_pylist() == [text_hash(q) for q in table.column("query").to_pylist()]
    assert table.column("positive_hash").to_pylist() == [text_hash(p) for p in table.column("positive").to_pylist()]


def test_the_same_rows_in_any_order_give_the_same_bytes_and_names() -> None:
    rows = list(example_rows(300, negatives=3))
    shuffled = random.Random(0).sample(rows, len(rows))
    one, other = open_store("memory://one"), open_store("memory://other")

    first, second = (
        write_source(store, info(), given, rows_per_group=16) for store, given in ((one, rows), (other, shuffled))
    )

    assert [shard.sha256 for shard in first.shards] == [shard.sha256 for shard in second.shards]
    assert stored(one) == stored(other)


def test_another_row_gives_another_name() -> None:
    store = open_store("memory://names")

    shards = [write_source(store, info(), example_rows(count, negatives=3)).shards for count in (20, 21)]

    assert shards[0][0].key != shards[1][0].key
    assert all(shard.key.startswith("sources/facts/00000-") for (shard,) in shards)
    assert all(shard.sha256[:12] in shard.key for (shard,) in shards)


def test_rows_and_negatives_are_shuffled_and_the_seed_decides_how() -> None:
    store = open_store("memory://shuffled")
    rows = list(example_rows(200, negatives=3))

    orders = [as_rows(read_all(store, write_source(store, info(), rows, seed=seed)), 3) for seed in (0, 1)]

    given_order = [(row.query, row.positive, tuple(row.negatives)) for row in rows]
    for order in orders:
        assert [row[0] for row in order] != [row[0] for row in given_order]
        moved = sum(tuple(sorted(row[2])) != row[2] for row in order)
        assert 0.7 < moved / len(order) < 0.95  # five of six orders of three negatives are not the given one
    assert orders[0] != orders[1]


def test_of_rows_with_the_same_query_and_positive_the_first_is_kept_and_the_rest_counted() -> None:
    store, removed = open_store("memory://same"), dict[str, int]()
    rows = [*example_rows(300, negatives=1), *(Row("the query", "the positive", [f"no {i}"]) for i in range(100))]

    table = read_all(store, write_source(store, info(1), rows, removed=removed))

    assert [row for row in as_rows(table, 1) if row[0] == "the query"] == [("the query", "the positive", ("no 0",))]
    assert table.num_rows == 301
    assert removed == {"facts": 99}


@settings(max_examples=40)
@given(
    numbers=st.lists(st.integers(0, 60), min_size=1, max_size=120),
    memory_bytes=st.sampled_from([16, 500, 2_000, 10_000, 2**28]),
    rows_per_group=st.integers(1, 9),
)
def test_rows_that_do_not_fit_into_memory_are_written_as_if_they_did(
    numbers: list[int], memory_bytes: int, rows_per_group: int
) -> None:
    rows = [Row(f"query {n}", f"answer {n}" * (n % 5 + 1), [f"no {i}", f"{i} no"]) for i, n in enumerate(numbers)]
    sizes = {"rows_per_group": rows_per_group, "groups_per_shard": 3}

    one, other = (
        write_source(open_store(f"memory://{name}"), info(2), rows, memory_bytes=memory, **sizes)
        for name, memory in (("held", 2**30), ("spilled", memory_bytes))
    )

    assert [replace(shard, etag=None) for shard in one.shards] == [replace(shard, etag=None) for shard in other.shards]


def test_a_source_keeps_the_hardest_negatives_if_a_row_has_more() -> None:
    store = open_store("memory://hardest")

    table = read_all(store, write_source(store, info(2), [Row("q", "p", ["hard", "harder", "easy"])]))

    assert set(as_rows(table, 2)[0][2]) == {"hard", "harder"}


def test_shards_and_row_groups_have_the_requested_sizes(dataset: Store) -> None:
    manifest = load_manifest(dataset)

    groups = manifest.row_groups("questions")
    assert groups.rows.tolist() == [16] * 9 + [6]
    assert groups.shard.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert [shard.rows for shard in manifest.shards("questions")] == [48, 48, 48, 6]
    assert manifest.source("questions").rows == 150
    for shard in manifest.shards("questions"):
        found = dataset.head(shard.key)
        assert found is not None
        assert (found.size, found.etag) == (shard.size, shard.etag)


def test_the_parquet_layout_is_the_documented_one(dataset: Store) -> None:
    shard = load_manifest(dataset).shards("questions")[0]

    footer = pq.read_metadata(pa.BufferReader(dataset.get(shard.key)))

    assert footer.metadata is None
    for g in range(footer.num_row_groups):
        for c in range(footer.num_columns):
            chunk = footer.row_group(g).column(c)
            assert chunk.compression == "ZSTD"
            assert set(chunk.encodings) <= {"PLAIN", "RLE"}
            assert not chunk.has_dictionary_page
            assert not chunk.is_stats_set


def test_writing_again_changes_nothing(dataset: Store) -> None:
    before = {info.key: (info.etag, info.size) for info in dataset.list() if not info.key.startswith("manifest")}
    version = load_manifest(dataset).version

    again = write_example(dataset)

    assert again.version == version
    assert {info.key: (info.etag, info.size) for info in dataset.list() if info.key in before} == before


def test_writing_again_repairs_damage(dataset: Store, tmp_path: Path) -> None:
    key = load_manifest(dataset).shards("questions")[1].key
    whole = dataset.get(key)
    dataset.put(key, whole[:-1])

    write_example(dataset)

    assert dataset.get(key) == whole


good = ["x", "y", "z"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Row("", "p", good), "query is blank"),
        (Row(" \t\u2003\n", "p", good), "query is blank"),
        (Row("q", "\u00a0", good), "positive is blank"),
        (Row("q", "p", ["x", "", "z"]), "negative 2 is blank"),
        (Row(None, "p", good), "query is null"),
        (Row("q", None, good), "positive is null"),
        (Row("q", "p", ["x", "y", None]), "negative 3 is null"),
        (Row("q", float("nan"), good), "positive is float, expected a string"),
        (Row(b"q", "p", good), "query is bytes, expected a string"),
        (Row("q", "ok \ud800 no", good), "positive is not valid Unicode: lone surrogate U+D800 at character 3"),
        (Row("q", "p", ["x", "p", "z"]), "negative 2 equals the positive"),
        (Row("q", "p", ["x", "y"]), "2 hard negatives, but the source needs 3"),
        (Row("q", "x" * (MAX_TEXT_BYTES + 1), good), f"positive has {MAX_TEXT_BYTES + 1} bytes"),
    ],
)  # fmt: skip
def test_an_invalid_row_is_refused_with_its_place(row: Any, message: str) -> None:
    rows: Iterable[Row] = [Row("fine", "fine too", good), Row(row.query, row.positive, row.negatives, "a.jsonl:17")]

    with pytest.raises(DataError) as caught:
        write_source(open_store("memory://refused"), info(), rows)

    assert caught.value.message.startswith("a.jsonl:17: ")
    assert message in caught.value.message
    assert caught.value.remedy


def test_a_row_without_a_place_is_counted() -> None:
    with pytest.raises(DataError, match="source 'facts', row 1: query is blank"):
        write_source(open_store("memory://counted"), info(), [Row("q", "p", good), Row(" ", "p", good)])


def test_a_source_without_rows_is_refused_and_nothing_is_published(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))

    with pytest.raises(DataError, match="source 'empty' has no rows"):
        write_dataset(store, [(info(), example_rows(3, negatives=3)), (info(name="empty"), [])])

    assert not store.exists("manifest.json")


def test_sources_are_written_one_after_another() -> None:
    store = open_store("memory://one-by-one")

    def second() -> Iterable[Row]:
        assert any(info.key.startswith("sources/first/") for info in store.list())
        yield from example_rows(3, negatives=3)

    manifest = write_dataset(
        store, [(info(name="first"), example_rows(3, negatives=3)), (info(name="second"), second())]
    )

    assert [source.name for source in manifest.sources] == ["first", "second"]


def test_a_source_may_have_no_hard_negatives() -> None:
    store = open_store("memory://none")

    table = read_all(store, write_source(store, info(0), [Row("q", "p")]))

    assert table.schema.names == ["query", "positive", "query_hash", "positive_hash"]
