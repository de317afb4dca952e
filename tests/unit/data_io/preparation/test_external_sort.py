import json
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_io.dataset.spill import bucket_count
from data_io.errors import DataError, StorageError
from data_io.execution import ProgressLine
from data_io.preparation.attempt import Resources
from data_io.preparation.external_sort import shard_ranges
from data_io.preparation.files import FileOptions, prepare_files
from data_io.preparation.inputs import FileInput
from data_io.storage.resumable import WORK_PREFIX, Work, begin_work, end_work
from data_io.storage.store import Store, open_store
from data_io.task import Kind
from data_io.user_files.records import find_files, read_records, split_file

MEMORY = 20_000
_names = count()


def write_files(folder: Path, rows: list[int], files: int) -> FileInput:
    """Rows with few distinct texts, distributed over files in order."""
    folder.mkdir()
    share = -(-len(rows) // files)
    for number in range(files):
        lines = [
            {"query": f"question {n}", "positive": f"answer {n} " * (n % 9 + 1), "negative": f"no answer {n}"}
            for n in rows[number * share : (number + 1) * share]
        ]
        if lines:
            folder.joinpath(f"{number}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return FileInput("faq", str(folder), Kind.RETRIEVAL)


def out_of_order(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """An executor that runs the last task first."""
    for task in reversed(list(tasks)):
        yield task, function(task)


def prepare(given: FileInput, **options: Any) -> tuple[str, dict[str, bytes]]:
    store = open_store(f"memory://pipeline-{next(_names)}")
    manifest = prepare_files(store, [given], FileOptions(heldout_fraction=0.1), Resources(**options))
    return manifest.version, {info.key: store.get(info.key) for info in store.list() if "manifest." not in info.key}


@settings(max_examples=12)
@given(
    rows=st.lists(st.integers(0, 400), min_size=250, max_size=400),
    files=st.integers(1, 5),
    memory_bytes=st.sampled_from([1_000, 5_000, 20_000]),
)
def test_the_result_does_not_depend_on_parts_memory_or_order(
    rows: list[int], files: int, memory_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    given = write_files(tmp_path_factory.mktemp("rows") / "faq", rows, files)

    whole = prepare(given)

    assert prepare(given, memory_bytes=memory_bytes) == whole
    assert prepare(given, memory_bytes=memory_bytes, executor=out_of_order) == whole


@given(
    rows_of_bucket=st.lists(st.integers(0, 30), min_size=1, max_size=64).filter(any),
    rows_per_shard=st.integers(1, 50),
)
def test_every_row_is_in_one_shard_and_every_shard_begins_where_the_last_one_ends(
    rows_of_bucket: list[int], rows_per_shard: int
) -> None:
    ranges = shard_ranges(np.array(rows_of_bucket), rows_per_shard)

    begin_of_bucket = [sum(rows_of_bucket[:bucket]) for bucket in range(len(rows_of_bucket) + 1)]
    at = 0
    for each in ranges:
        assert begin_of_bucket[each.first_bucket] + each.skip == at == each.first_shard * rows_per_shard
        assert at + each.rows <= begin_of_bucket[each.last_bucket + 1]
        at += each.rows
    assert at == sum(rows_of_bucket)


@given(text_bytes=st.integers(0, 2**45), memory_bytes=st.integers(1, 2**31))
def test_a_bucket_takes_an_eighth_of_the_memory_at_most(text_bytes: int, memory_bytes: int) -> None:
    buckets = bucket_count(text_bytes, memory_bytes)

    assert buckets & (buckets - 1) == 0
    assert text_bytes <= buckets * max(1, memory_bytes // 8)


class Killed(Exception):
    pass


def killed_after(tasks: int) -> Callable[..., Iterator[tuple[Any, Any]]]:
    """An executor that fails after this number of tasks in total."""
    left = [tasks]

    def executor(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for task in tasks:
            if not left[0]:
                raise Killed
            left[0] -= 1
            yield task, function(task)

    return executor


@pytest.fixture
def given_files(tmp_path: Path) -> FileInput:
    draw = random.Random(1)
    return write_files(tmp_path / "faq", [draw.randrange(300) for _ in range(400)], 4)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "out"))


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
@pytest.mark.parametrize("what", ["scan/", "spill/faq/00001", "spill/faq/00001.json", "count/", "shards/", "sources/"])
def test_objects_damaged_between_two_attempts_are_made_again(
    store: Store, given_files: FileInput, what: str, damage: str
) -> None:
    whole = prepare(given_files)
    with pytest.raises(Killed):
        # Scanned, spilled and counted, the shards written. The rest has no tasks.
        prepare_files(
            store,
            [given_files],
            FileOptions(heldout_fraction=0.1),
            Resources(memory_bytes=MEMORY, executor=killed_after(9)),
        )
    prepare_tasks(store, given_files)
    keys = [info.key for info in store.list() if what in info.key]
    data = store.get(keys[0])
    if damage == "remove":
        store.delete(keys[:1])
    else:
        at = len(data) // 2
        store.put(keys[0], data[:-2] if damage == "cut" else data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])

    prepare_files(store, [given_files], FileOptions(heldout_fraction=0.1), Resources(memory_bytes=MEMORY))

    found = {info.key: store.get(info.key) for info in store.list() if "manifest." not in info.key}
    assert found == whole[1]


def prepare_tasks(store: Store, given: FileInput) -> None:
    """Run until every task is finished, then fail."""

    def executor(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        done = [(task, function(task)) for task in tasks]
        if hasattr(done[0][0], "part"):
            raise Killed
        yield from done

    with pytest.raises(Killed):
        prepare_files(
            store, [given], FileOptions(heldout_fraction=0.1), Resources(memory_bytes=MEMORY, executor=executor)
        )


def test_work_damaged_during_use_is_named_and_made_again_by_the_same_command(
    store: Store, given_files: FileInput
) -> None:
    def executor(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for task in tasks:
            if hasattr(task, "part"):
                key = next(info.key for info in store.list(WORK_PREFIX) if info.key.endswith("spill/faq/00002"))
                store.put(key, bytes(len(store.get(key))))
            yield task, function(task)

    with pytest.raises(StorageError, match=r"spill/faq/00002: an intermediate object is damaged") as caught:
        prepare_files(
            store, [given_files], FileOptions(heldout_fraction=0.1), Resources(memory_bytes=MEMORY, executor=executor)
        )
    manifest = prepare_files(store, [given_files], FileOptions(heldout_fraction=0.1), Resources(memory_bytes=MEMORY))

    assert caught.value.remedy.startswith("run the same command again")
    assert manifest.version == prepare(given_files)[0]


def test_a_failed_preparation_leaves_no_manifest_and_the_next_one_no_work(store: Store, tmp_path: Path) -> None:
    given = write_files(tmp_path / "faq", list(range(300)), 3)
    third = tmp_path / "faq" / "2.jsonl"
    good = third.read_text()
    third.write_text(good + '{"query": "q", "positive": null, "negative": "n"}\n')

    with pytest.raises(DataError, match=r"2\.jsonl, line 101: 'positive' is null"):
        prepare_files(store, [given], resources=Resources(memory_bytes=MEMORY))
    assert not store.exists("manifest.json")
    assert store.list(WORK_PREFIX)
    third.write_text(good)
    prepare_files(store, [given], resources=Resources(memory_bytes=MEMORY))

    assert store.list(WORK_PREFIX) == []
    assert not Path(store.uri, WORK_PREFIX).exists()


def test_work_of_another_recipe_is_removed(store: Store) -> None:
    said: list[str] = []
    other = begin_work(store, {"seed": 0}, say=said.append)
    other.save("done.json", {"rows": 3})

    again = begin_work(store, {"seed": 0}, say=said.append)
    assert again.load("done.json") == {"rows": 3}
    mine = begin_work(store, {"seed": 1}, say=said.append)

    assert mine.load("done.json") is None
    assert store.list(WORK_PREFIX) == []
    assert said == [
        "resuming an unfinished preparation",
        "removing another unfinished preparation and starting over",
    ]


def test_a_record_that_was_changed_does_not_count(store: Store) -> None:
    work = Work(store, "name")
    work.save("done.json", {"rows": 3})
    store.put(".f2llm-work/name/done.json", store.get(".f2llm-work/name/done.json").replace(b"3", b"4"))

    assert work.load("done.json") is None


def test_files_of_a_killed_local_write_are_removed_unless_younger(store: Store) -> None:
    store.put("sources/faq/0.parquet", b"whole")
    staged = Path(store.uri, "sources", "faq", "1.parquet#1")
    staged.write_bytes(b"half")

    end_work(store, began=staged.stat().st_mtime - 1)
    assert staged.exists()
    end_work(store, began=staged.stat().st_mtime + 1)

    assert not staged.exists()
    assert store.get("sources/faq/0.parquet") == b"whole"


@pytest.mark.parametrize("part_bytes", [1, 2_000, 10**9])
def test_parts_of_a_parquet_file_are_the_file_with_the_same_places(tmp_path: Path, part_bytes: int) -> None:
    path = tmp_path / "rows.parquet"
    texts = [f"query {i} " * 5 for i in range(500)]
    pq.write_table(pa.table({"query": texts, "positive": texts}), path, row_group_size=60)
    (file,) = find_files(str(path))

    parts = split_file(file, part_bytes)

    read = [record for part, _ in parts for record in read_records(part, ["query"])]
    assert read == list(read_records(file, ["query"]))
    assert read[499][0] == f"{path}, row 500"
    assert (len(parts) > 1) == (part_bytes < 10**9)


def test_progress_has_the_speed_and_the_remaining_time() -> None:
    said: list[str] = []
    times = iter([0.0, 2.0, 10.0, 11.0, 20.0])
    line = ProgressLine("checking", 4_000, said.append, clock=lambda: next(times))

    for _ in range(4):
        line.advance(1_000, 500)

    assert said == [
        "checking: 2,000 rows, 200 rows/s, 25%, about 30 s left",
        "checking: 4,000 rows, 200 rows/s, 50%, about 20 s left",
    ]
