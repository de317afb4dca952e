import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_io.dataset.manifest import SourceInfo, load_manifest
from data_io.dataset.reader import MERGE_GAP_BYTES, Reader
from data_io.dataset.schema import HASH_COLUMNS, columns
from data_io.dataset.writer import Row, write_dataset
from data_io.errors import DataError, NotFoundInStore, ObjectChanged, StorageError
from data_io.storage.node_cache import NodeCache
from data_io.storage.store import Store, open_store
from data_io.task import Kind
from tests.support.datasets import example_rows, write_example
from tests.support.s3_server import S3Server

ALL = columns(5).names


@pytest.fixture
def reader(dataset: Store) -> Reader:
    return Reader(dataset, load_manifest(dataset))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """24 negatives in columns of about 30 kB, so that skipping columns saves bytes."""
    store = open_store(str(tmp_path_factory.mktemp("wide")))
    rows = [
        Row(f"query {i}", f"positive {i}", [f"negative {i} {j} " + noise(i * 24 + j, 200) for j in range(24)])
        for i in range(2 * 256)
    ]
    write_dataset(store, [(SourceInfo(name="wide", kind=Kind.RETRIEVAL, negatives=24), rows)])
    return store


def noise(seed: int, characters: int) -> str:
    """Text that does not compress, always the same for a seed."""
    return "".join(f"{(seed * 2654435761 + i * 40503) ** 3 % 2**61:x}" for i in range(characters // 15))


def stored_row_group(store: Store, source: str, row_group: int) -> pa.Table:
    manifest = load_manifest(store)
    groups = manifest.row_groups(source)
    shard = groups.shard[row_group]
    file = store.get(manifest.shards(source)[shard].key)
    return pq.ParquetFile(pa.BufferReader(file)).read_row_group(row_group - groups.shard.searchsorted(shard))


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_reads_the_same_as_pyarrow_in_the_requested_order(
    dataset: Store, reader: Reader, data: st.DataObject
) -> None:
    row_group = data.draw(st.integers(0, 9), label="row_group")
    names = data.draw(st.lists(st.sampled_from(ALL), min_size=1, unique=True), label="columns")

    table = reader.read("questions", row_group, names)

    assert table.schema.names == names
    assert table == stored_row_group(dataset, "questions", row_group).select(names)


def test_a_training_read_takes_few_gets_and_not_the_columns_between(wide: Store) -> None:
    for window, gets in (
        (range(1, 8), 1),  # the first negatives are next to the columns that every step reads
        (range(9, 16), 2),  # in the middle
        ([22, 23, 24, 1, 2, 3, 4], 2),  # across the end
    ):
        reader = Reader(wide, load_manifest(wide))
        names = ["query", "positive", *(f"negative_{i}" for i in window), *HASH_COLUMNS]

        table = reader.read("wide", 1, names)

        assert table == stored_row_group(wide, "wide", 1).select(names)
        assert reader.stats.requests == gets
        row_group_bytes = int(load_manifest(wide).row_groups("wide").chunk_bytes[1].sum())
        assert row_group_bytes > 24 * MERGE_GAP_BYTES / 3
        assert reader.stats.bytes < 0.4 * row_group_bytes


def test_small_gaps_are_read_over(reader: Reader) -> None:
    reader.read("questions", 0, ["query", "negative_3", "positive_hash"])

    assert reader.stats.requests == 1


def test_threads_may_share_a_reader(dataset: Store, reader: Reader) -> None:
    expected = [stored_row_group(dataset, "questions", g) for g in range(10)]

    with ThreadPoolExecutor(8) as pool:
        tables = list(pool.map(lambda i: reader.read("questions", i % 10, ALL), range(200)))

    assert all(table == expected[i % 10] for i, table in enumerate(tables))
    assert reader.stats.requests == 200
    assert reader.stats.retries == 0


def test_every_flipped_byte_of_a_row_group_is_detected_before_its_use(dataset: Store) -> None:
    manifest = load_manifest(dataset)
    shard, groups = manifest.shards("questions")[0], manifest.row_groups("questions")
    whole = dataset.get(shard.key)
    start, end = int(groups.offset[1]), int(groups.offset[1] + groups.chunk_bytes[1].sum())
    ends = start + groups.chunk_bytes[1].cumsum()

    for at in range(start, end, 13):
        dataset.put(shard.key, whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        reader = Reader(dataset, manifest)
        with pytest.raises(DataError) as caught:
            reader.read("questions", 1, ALL)
        column = ALL[int(ends.searchsorted(at, side="right"))]
        assert (
            f"source 'questions', row group 1 (rows 16 to 31): shard {shard.key} at {dataset.uri} is damaged"
            in caught.value.message
        )
        assert f"checksum of column {column} " in caught.value.message
        assert "f2llm data validate" in str(caught.value.remedy)
        assert reader.stats.retries == 1
        assert reader.read("questions", 0, ALL).num_rows == 16


def test_bytes_damaged_in_transfer_are_fetched_again(dataset: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(dataset, load_manifest(dataset))
    real, damaged = Store.get_range, []

    def damage_the_first(*args: object, **options: object) -> object:
        blob = real(*args, **options)  # type: ignore[arg-type]
        if damaged:
            return blob
        damaged.append(True)
        return type(blob)(memoryview(b"?" + bytes(blob.data)[1:]), blob.etag, blob.size)

    monkeypatch.setattr(Store, "get_range", damage_the_first)

    table = reader.read("questions", 2, ALL)

    assert table == stored_row_group(dataset, "questions", 2)
    assert (reader.stats.requests, reader.stats.retries) == (2, 1)


def test_without_verification_pages_are_not_checked(dataset: Store) -> None:
    manifest = load_manifest(dataset)
    key, groups = manifest.shards("questions")[0].key, manifest.row_groups("questions")
    whole = dataset.get(key)
    hashes = ALL.index("positive_hash") + 1
    last = int(groups.offset[0] + groups.chunk_bytes[0, :hashes].sum()) - 1  # inside the hash: zstd has no checksum
    dataset.put(key, whole[:last] + bytes([whole[last] ^ 1]) + whole[last + 1 :])

    table = Reader(dataset, manifest, verify=False).read("questions", 0, ["query", "positive_hash"])

    assert table.column("query") == stored_row_group(dataset, "questions", 0).column("query")


def test_unverified_bytes_never_reach_a_verifying_reader(dataset: Store, tmp_path: Path) -> None:
    manifest, cache = load_manifest(dataset), NodeCache(tmp_path / "cache", 2**20)
    key, groups = manifest.shards("questions")[0].key, manifest.row_groups("questions")
    whole = dataset.get(key)
    last = int(groups.offset[0] + groups.chunk_bytes[0].sum()) - 1
    dataset.put(key, whole[:last] + bytes([whole[last] ^ 1]) + whole[last + 1 :])
    Reader(dataset, manifest, verify=False, cache=cache).read("questions", 0, ["query"])

    dataset.put(key, whole)

    reader = Reader(dataset, manifest, cache=cache)
    assert reader.read("questions", 0, ["query"]) == stored_row_group(dataset, "questions", 0).select(["query"])
    assert cache.stats.hits == 0


def test_bytes_that_are_not_parquet_are_an_error_without_verification_too(dataset: Store) -> None:
    manifest = load_manifest(dataset)
    shard = manifest.shards("questions")[0]
    dataset.put(shard.key, b"\0" * shard.size)

    with pytest.raises(DataError, match="not readable as Parquet"):
        Reader(dataset, manifest, verify=False).read("questions", 0, ALL)


def test_a_missing_shard_is_named_with_what_to_do(dataset: Store, reader: Reader) -> None:
    key = load_manifest(dataset).shards("questions")[3].key
    dataset.delete([key])

    with pytest.raises(
        DataError, match=rf"row group 9 \(rows \d+ to \d+\): shard {key} at {dataset.uri} is missing"
    ) as caught:
        reader.read("questions", 9, ["query"])

    assert "f2llm data validate" in str(caught.value.remedy)
    assert reader.read("questions", 0, ["query"]).num_rows == 16


@pytest.mark.parametrize("keep", [0, 100, 2_000, -1])
def test_a_truncated_shard_is_reported_with_both_sizes(dataset: Store, reader: Reader, keep: int) -> None:
    shard = load_manifest(dataset).shards("questions")[0]
    dataset.put(shard.key, dataset.get(shard.key)[:keep])
    left = shard.size - 1 if keep == -1 else keep

    for row_group in range(3):
        with pytest.raises(DataError, match=rf"{left} bytes long, expected {shard.size}"):
            reader.read("questions", row_group, ALL)


def test_a_shard_overwritten_during_the_read_is_an_error(dataset: Store, reader: Reader) -> None:
    shard = load_manifest(dataset).shards("questions")[0]
    whole = dataset.get(shard.key)
    reader.read("questions", 0, ALL)

    dataset.put(shard.key, whole)

    with pytest.raises(DataError, match=f"shard {shard.key} at {dataset.uri} is overwritten during the read") as caught:
        reader.read("questions", 1, ALL)
    assert isinstance(caught.value.__cause__, ObjectChanged)  # told by If-Match, before any byte was sent


def test_a_copied_data_set_reads_the_same(dataset: Store, tmp_path: Path) -> None:
    copy = open_store(str(tmp_path / "copy"))
    for info in dataset.list():
        copy.put(info.key, dataset.get(info.key))
    manifest = load_manifest(copy)

    table = Reader(copy, manifest).read("questions", 4, ALL)

    assert table == stored_row_group(dataset, "questions", 4)
    assert manifest.version == load_manifest(dataset).version


def test_s3_gives_the_same_tables_and_the_same_errors(s3: S3Server, dataset: Store) -> None:
    remote = open_store(f"{s3.uri}/{uuid.uuid4()}", s3.options)
    manifest = write_example(remote)
    reader = Reader(remote, manifest)
    shards = manifest.shards("questions")
    assert manifest.version == load_manifest(dataset).version

    for row_group in range(10):
        assert reader.read("questions", row_group, ALL) == stored_row_group(dataset, "questions", row_group)

    remote.put(shards[0].key, b"x" * shards[0].size)
    remote.delete([shards[1].key])
    remote.put(shards[2].key, remote.get(shards[2].key)[:1000])
    fresh = Reader(remote, manifest)
    for reading, row_group, message in (
        (reader, 0, "overwritten during the read"),
        (fresh, 0, "damaged"),
        (fresh, 3, "missing"),
        (fresh, 8, f"1000 bytes long, expected {shards[2].size}"),
    ):
        with pytest.raises(DataError, match=message):
            reading.read("questions", row_group, ALL)


def test_an_unreachable_store_is_a_storage_error_not_a_data_error(
    dataset: Store, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: object, **options: object) -> None:
        raise StorageError("cannot connect")

    monkeypatch.setattr(Store, "get_range", away)

    with pytest.raises(StorageError) as caught:
        reader.read("questions", 0, ALL)

    assert not isinstance(caught.value, NotFoundInStore)


@pytest.fixture
def many(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "many"))
    rows = example_rows(4 * 256, negatives=24)
    write_dataset(store, [(SourceInfo(name="many", kind=Kind.RETRIEVAL, negatives=24), rows)])
    return store


def test_a_row_group_takes_milliseconds(many: Store) -> None:
    reader = Reader(many, load_manifest(many))
    names = ["query", "positive", *(f"negative_{i}" for i in range(9, 14)), "query_hash", "positive_hash"]
    seconds = []

    for i in range(40):
        began = time.perf_counter()
        reader.read("many", i % 4, names)
        seconds.append(time.perf_counter() - began)

    assert min(seconds) < 0.02  # about 0.002 on one core that has nothing else to do
