"""One contract for every kind of store: memory, a local directory, and a real S3 server."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data_io.errors import NotFoundInStore, ObjectChanged, StorageError
from data_io.storage.probe import probe_store
from data_io.storage.store import Store, open_store
from tests.support.s3_server import S3Server

MIB = 1 << 20


# Whole objects


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 4096], ids=["empty", "one byte", "one MiB"])
def test_a_read_returns_the_bytes_of_the_put(store: Store, data: bytes) -> None:
    etag = store.put("folder/key", data)

    assert store.get("folder/key") == data
    info = store.head("folder/key")
    assert info is not None
    assert (info.key, info.size, info.etag) == ("folder/key", len(data), etag)
    assert store.exists("folder/key")


def test_a_second_put_replaces_the_object_and_its_etag(store: Store) -> None:
    before = store.put("key", b"before")

    after = store.put("key", b"after!")

    assert store.get("key") == b"after!"
    assert after != before


def test_a_missing_key_is_named_and_not_retryable(store: Store) -> None:
    store.put("another", b"data")

    with pytest.raises(NotFoundInStore, match=r"folder/missing") as caught:
        store.get("folder/missing")

    assert not caught.value.retryable
    assert store.head("folder/missing") is None
    assert not store.exists("folder/missing")
    with pytest.raises(NotFoundInStore, match=r"folder/missing"):
        store.get_range("folder/missing", 0, 1)


@pytest.mark.parametrize("key", ["with space", "plus+percent%20", "ümlaut/日本語", "a=b&c#d?e", "dots..inside/.hidden"])
def test_a_key_is_taken_literally(store: Store, key: str) -> None:
    store.put(key, b"data")

    assert [info.key for info in store.list()] == [key]
    assert store.get(key) == b"data"


def test_deleting_removes_the_named_keys_and_ignores_missing_ones(store: Store) -> None:
    for key in ("a", "b", "folder/c"):
        store.put(key, b"data")

    store.delete(["a", "folder/c", "never/there"])

    assert [info.key for info in store.list()] == ["b"]


# Listing


def test_a_listing_has_the_keys_relative_to_the_store_with_their_sizes(store: Store) -> None:
    etags = {key: store.put(key, b"x" * size) for key, size in (("b/2", 2), ("b/1", 1), ("a", 3))}

    listed = store.list()

    assert [(info.key, info.size, info.etag) for info in listed] == [
        ("a", 3, etags["a"]),
        ("b/1", 1, etags["b/1"]),
        ("b/2", 2, etags["b/2"]),
    ]
    assert all(info.modified.tzinfo is not None for info in listed)


def test_a_listing_of_a_prefix_has_only_whole_directories(store: Store) -> None:
    for key in ("step-1/data", "step-10/data"):
        store.put(key, b"data")

    assert [info.key for info in store.list("step-1")] == ["step-1/data"]


def test_an_empty_or_missing_directory_has_an_empty_listing(store: Store) -> None:
    assert store.list() == []
    assert store.list("nowhere") == []


def test_more_keys_than_fit_in_one_response_are_all_listed_and_deleted(store: Store) -> None:
    keys = [f"many/{number:04d}" for number in range(1_050)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b"x"), keys))

    listed = [info.key for info in store.list("many")]
    store.delete(listed)

    assert listed == keys
    assert store.list("many") == []


def test_a_child_has_its_part_under_shorter_keys(store: Store) -> None:
    child = store.child("runs").child("demo/")
    child.put("status.json", b"{}")

    assert store.get("runs/demo/status.json") == b"{}"
    assert [info.key for info in child.list()] == ["status.json"]
    assert child.uri == f"{store.uri}/runs/demo"


# Ranges


def test_a_range_has_its_bytes_and_the_etag_and_size_of_the_whole_object(store: Store) -> None:
    etag = store.put("key", b"0123456789")

    blob = store.get_range("key", 3, 4)

    assert bytes(blob.data) == b"3456"
    assert (blob.etag, blob.size) == (etag, 10)
    assert bytes(store.get_range("key", 9, 1).data) == b"9"


@pytest.mark.parametrize(
    ("start", "length"), [(5, 10), (10, 1), (50, 5)], ids=["beyond the end", "at the end", "after the end"]
)
def test_an_incomplete_range_is_an_error_and_never_truncated(store: Store, start: int, length: int) -> None:
    store.put("directory/key", b"0123456789")

    with pytest.raises(StorageError, match=rf"directory/key.* 10 bytes.*\b{start + length}\b"):
        store.get_range("directory/key", start, length)


def test_a_range_of_an_object_that_was_overwritten_is_refused(store: Store) -> None:
    etag = store.put("shard", b"first version")
    kept = store.get_range("shard", 0, 5, if_match=etag)

    store.put("shard", b"other version")

    assert bytes(kept.data) == b"first"
    with pytest.raises(ObjectChanged, match="shard") as caught:
        store.get_range("shard", 0, 5, if_match=etag)
    assert not caught.value.retryable
    assert bytes(store.get_range("shard", 0, 5).data) == b"other"


def test_sixteen_threads_read_their_own_ranges(store: Store) -> None:
    data = os.urandom(2 * MIB)
    etag = store.put("shard", data)
    starts = range(0, 2 * MIB, 16 * 1024)

    with ThreadPoolExecutor(16) as pool:
        parts = pool.map(lambda start: bytes(store.get_range("shard", start, 16 * 1024, if_match=etag).data), starts)

    assert b"".join(parts) == data


def test_put_immutable_keeps_an_intact_object_and_replaces_a_damaged_one(store: Store) -> None:
    etag = store.put_immutable("shard-1", b"data")
    assert store.put_immutable("shard-1", b"data") == etag
    store.put("shard-1", b"datu")

    store.put_immutable("shard-1", b"data")

    assert store.get("shard-1") == b"data"


# Writing piece by piece


def write_and_stop(store: Store, key: str, size: int) -> None:
    with store.open_writer(key) as writer:
        writer.write(b"x" * size)
        raise KeyboardInterrupt


def test_a_large_object_is_written_in_pieces_from_one_reused_buffer(store: Store) -> None:
    pieces = [bytes([number]) * (MIB + number) for number in range(24)]
    buffer = bytearray(MIB + 24)

    with store.open_writer("large") as writer:
        for piece in pieces:
            view = memoryview(buffer)[: len(piece)]
            view[:] = piece
            assert writer.write(view) == len(piece)
        buffer[:] = b"\xff" * len(buffer)

    assert store.get("large", most=2**25) == b"".join(pieces)
    assert [info.key for info in store.list()] == ["large"]


def test_an_object_does_not_exist_until_its_writer_ends(store: Store) -> None:
    with store.open_writer("folder/key") as writer:
        writer.write(b"x" * 12 * MIB)

        assert not store.exists("folder/key")
        assert store.list() == []

    assert store.exists("folder/key")


def test_a_writer_without_writes_creates_an_empty_object(store: Store) -> None:
    with store.open_writer("empty"):
        pass

    assert store.get("empty") == b""


@pytest.mark.parametrize("size", [10, 12 * MIB], ids=["small", "large"])
def test_a_failed_writer_publishes_nothing_and_keeps_the_old_object(store: Store, size: int) -> None:
    store.put("old", b"old")

    for key in ("old", "new"):
        with pytest.raises(KeyboardInterrupt):
            write_and_stop(store, key, size)

    assert [info.key for info in store.list()] == ["old"]
    assert store.get("old") == b"old"


def test_an_aborted_writer_leaves_no_file(s3: S3Server, tmp_path: Path) -> None:
    local, bucket = tmp_path / "store", s3.make_bucket()

    for store in (open_store(str(local)), open_store(f"s3://{bucket}", s3.options)):
        with pytest.raises(KeyboardInterrupt):
            write_and_stop(store, "aborted", 12 * MIB)

    assert [path for folder in (local, s3.folder / bucket) for path in folder.rglob("*") if path.is_file()] == []


def test_a_probe_finds_all_features_that_a_run_needs_and_leaves_no_objects(store: Store) -> None:
    needed = ["read after write", "read after overwrite", "list after write", "ranges", "If-Match", "multipart upload"]

    assert probe_store(store) == [*needed, "delete"]
    assert store.list() == []
