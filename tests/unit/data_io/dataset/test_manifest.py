import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_io.dataset.manifest import (
    EvaluationEntry,
    Manifest,
    RowGroups,
    Shard,
    SourceData,
    SourceEntry,
    StoredFile,
    load_manifest,
    save_manifest,
)
from data_io.errors import DataError
from data_io.storage.store import Store, open_store
from data_io.task import Kind
from tests.support.datasets import write_example


def source_data(name: str = "a", *, groups: int = 5, groups_per_shard: int = 2, negatives: int = 1) -> SourceData:
    """A source whose shards do not exist."""
    shards = -(-groups // groups_per_shard)
    numbers = np.arange(groups * (negatives + 4)).reshape(groups, negatives + 4)
    return SourceData(
        entry=SourceEntry(name=name, kind=Kind.RETRIEVAL, negatives=negatives, rows=groups * 256),
        shards=tuple(
            Shard(f"sources/{name}/{i:05d}-{i:012x}.parquet", 1000 + i, groups_per_shard * 256, f'"{i}"', f"{i:064x}")
            for i in range(shards)
        ),
        row_groups=RowGroups(
            shard=(np.arange(groups) // groups_per_shard).astype(np.int32),
            rows=np.full(groups, 256, dtype=np.int32),
            offset=(np.arange(groups, dtype=np.int64) % groups_per_shard) * 2**33 + 4,
            chunk_bytes=numbers.astype(np.int32),
            chunk_crc=(numbers * 7919 + 2**31).astype(np.uint32),
        ),
    )


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    files = {"pairs": StoredFile(key="evaluation/e/pairs.parquet", size=3, sha256="f" * 64)}
    written = Manifest(
        [source_data("a"), source_data("b", groups=1, negatives=24)],
        [EvaluationEntry(name="e", type="sts", pairs=2, files=files)],
    )

    save_manifest(store, written)
    read = load_manifest(store)

    assert (read.version, read.sources, read.evaluations) == (written.version, written.sources, written.evaluations)
    for name in ("a", "b"):
        assert read.source(name) == written.source(name)
        assert read.shards(name) == written.shards(name)
        found, expected = read.row_groups(name), written.row_groups(name)
        for column in ("shard", "rows", "offset", "chunk_bytes", "chunk_crc"):
            assert getattr(found, column).dtype == getattr(expected, column).dtype
            np.testing.assert_array_equal(getattr(found, column), getattr(expected, column))


def test_the_version_depends_on_the_content_and_not_on_the_path(tmp_path: Path) -> None:
    here, there = (write_example(open_store(str(tmp_path / name))) for name in ("here", "there"))

    assert here.version == there.version
    assert here.shards("questions")[0].etag != there.shards("questions")[0].etag


@pytest.mark.parametrize(
    "change",
    ["rows", "license", "kind", "instruction", "sha256", "chunk_crc", "chunk_bytes", "offset", "order", "one more"],
)
def test_the_version_changes_with_the_content(change: str) -> None:
    first, second = source_data("a"), source_data("b")
    sources = [first, second]
    if change in {"chunk_crc", "chunk_bytes", "offset", "rows"}:
        getattr(sources[1].row_groups, change).flat[-1] += 1
    elif change == "sha256":
        sources[1] = SourceData(
            second.entry, (*second.shards[:-1], Shard("k", 1, 2, None, "0" * 64)), second.row_groups
        )
    elif change == "order":
        sources.reverse()
    elif change == "one more":
        sources.append(source_data("c"))
    else:
        value = Kind.CLUSTERING if change == "kind" else "other"
        entry = second.entry.model_copy(update={change: value})
        sources[1] = SourceData(entry, second.shards, second.row_groups)

    changed = Manifest(sources)

    assert changed.version != Manifest([source_data("a"), source_data("b")]).version


def test_the_version_changes_with_an_evaluation_set() -> None:
    files = {"pairs": StoredFile(key="evaluation/e/pairs.parquet", size=3, sha256="f" * 64)}
    other = {"pairs": files["pairs"].model_copy(update={"sha256": "0" * 64})}

    without, one, another = (
        Manifest([source_data()], evaluations)
        for evaluations in ([], *([EvaluationEntry(name="e", type="sts", pairs=2, files=f)] for f in (files, other)))
    )

    assert len({without.version, one.version, another.version}) == 3


def test_an_unknown_name_lists_the_known_ones() -> None:
    manifest = Manifest([source_data("a"), source_data("b")])

    with pytest.raises(DataError, match=r"no source 'c' in the data set; it has a, b"):
        manifest.source("c")
    with pytest.raises(DataError, match=r"no evaluation set 'c' in the data set; it has none"):
        manifest.evaluation("c")


def test_two_sources_cannot_share_a_name() -> None:
    with pytest.raises(DataError, match="two sources are called 'a'"):
        Manifest([source_data("a"), source_data("a")])


@pytest.mark.parametrize("key", ["/etc/hostname", "../other/shard", "sources/../../shard", "sources//shard", ""])
def test_a_data_set_with_keys_outside_its_directory_is_refused(tmp_path: Path, key: str) -> None:
    data = source_data("a")
    store = open_store(str(tmp_path))
    save_manifest(store, Manifest([replace(data, shards=tuple(replace(shard, key=key) for shard in data.shards))]))

    with pytest.raises(DataError, match="which is outside the data set"):
        load_manifest(store)


@pytest.mark.parametrize("key", ["manifest.json", "manifest.arrow"])
def test_a_missing_file_says_how_to_get_a_data_set(dataset: Store, key: str) -> None:
    dataset.delete([key])

    with pytest.raises(DataError, match=f"no data set at {dataset.uri}: {key} is missing") as caught:
        load_manifest(dataset)

    assert "f2llm data prepare" in str(caught.value.remedy)


def test_half_of_a_newer_data_set_is_detected(dataset: Store) -> None:
    old = dataset.get("manifest.json")
    save_manifest(dataset, Manifest([source_data("newer")]))
    dataset.put("manifest.json", old)

    with pytest.raises(DataError, match=r"manifest\.arrow does not belong to this manifest\.json"):
        load_manifest(dataset)


def test_any_flipped_byte_of_the_table_is_detected(dataset: Store) -> None:
    table = dataset.get("manifest.arrow")

    for at in range(0, len(table), 97):
        dataset.put("manifest.arrow", table[:at] + bytes([table[at] ^ 4]) + table[at + 1 :])
        with pytest.raises(DataError):
            load_manifest(dataset)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(format_version=1), "format_version 1, expected 2"),
        (lambda m: m.update(surprise=1), "surprise: Extra inputs"),
        (lambda m: m.pop("sources"), "sources: Field required"),
        (lambda m: m["sources"][0].update(kind="poetry"), "sources.0.kind: Input should be"),
        (lambda m: m["sources"][0].update(rows=-1), "sources.0.rows: Input should be"),
        (lambda m: m["sources"][0].update(kind="clustering"), "was edited"),
        (lambda m: m["sources"][0].update(negatives=7), "was edited"),
        (lambda m: m["sources"][0].update(name="renamed"), "no shard of source 'renamed'"),
        (lambda m: m["sources"].pop(), "was edited"),
        (lambda m: m["sources"].append(m["sources"][0]), "two sources are called"),
    ],
)
def test_a_manifest_that_was_edited_is_refused_with_the_field(dataset: Store, edit: object, message: str) -> None:
    document = json.loads(dataset.get("manifest.json"))
    edit(document)  # type: ignore[operator]
    dataset.put("manifest.json", json.dumps(document).encode())

    with pytest.raises(DataError) as caught:
        load_manifest(dataset)

    assert message in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff\xfe", b'{"format_version": "one"}'])
def test_a_file_that_is_not_a_manifest_is_refused(dataset: Store, text: bytes) -> None:
    dataset.put("manifest.json", text)

    with pytest.raises(DataError, match="is not a valid manifest"):
        load_manifest(dataset)


def test_a_large_manifest_loads_fast() -> None:
    store = open_store("memory://large-manifest")
    save_manifest(
        store, Manifest([source_data(f"s{i}", groups=1_500, groups_per_shard=64, negatives=24) for i in range(16)])
    )

    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        manifest = load_manifest(store)
        seconds.append(time.perf_counter() - began)

    assert sum(len(manifest.row_groups(source.name)) for source in manifest.sources) == 24_000
    assert min(seconds) < 1.0  # a tenth of 60 million rows; it takes about 0.03 s
