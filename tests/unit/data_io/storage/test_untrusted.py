"""A store whose content somebody else can write: large objects, keys that lead out, and copies with changed bytes."""

import json
import os
from pathlib import Path

import pytest

from data_io.errors import DataError, StoreAccessError
from data_io.storage.errors import ObjectTooLarge
from data_io.storage.folder_copy import FILES_KEY, local_copy, sha256_of, upload_folder, uploaded_files
from data_io.storage.store import MOST_BYTES, Store, open_store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(os.urandom(20_000_000))
    (folder / "1_Pooling" / "config.json").write_text("{}")
    return folder


@pytest.fixture
def bucket(folder: Path, tmp_path: Path) -> Store:
    """A store that is not local, with the files of `folder`."""
    bucket = open_store(f"memory://untrusted-{tmp_path.name}/runs/small/model")
    upload_folder(folder, bucket)
    return bucket


def test_a_large_object_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "status.json").open("wb") as file:
        file.truncate(2**40)

    with pytest.raises(ObjectTooLarge, match=r"status.json: has 1,099,511,627,776 bytes, expected at most 16,777,216"):
        open_store(str(tmp_path)).get("status.json")


def test_the_limit_is_in_bytes(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("a", bytes(MOST_BYTES))
    store.put("b", bytes(10))

    assert len(store.get("a")) == MOST_BYTES
    with pytest.raises(ObjectTooLarge):
        store.get("b", most=9)


@pytest.mark.parametrize("key", ["../secret", "a/../../secret", "..", "a/./b", "./a"])
def test_a_key_cannot_lead_out_of_the_store(key: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "inside" / "a").mkdir(parents=True)

    for store in (open_store(str(tmp_path / "inside")), open_store("memory://keys/inside")):
        for action in (
            store.get,
            store.head,
            store.list,
            store.list_level,
            lambda key, store=store: store.get_range(key, 0, 1),
            lambda key, store=store: store.put(key, b""),
            lambda key, store=store: store.delete([key]),
        ):
            with pytest.raises(StoreAccessError, match="leads out of it"):
                action(key)

    assert (tmp_path / "secret").read_text() == "secret"


def test_a_copy_has_the_files_of_the_store(bucket: Store, folder: Path) -> None:
    with local_copy(bucket) as copy:
        assert (copy / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
        assert (copy / "1_Pooling" / "config.json").read_text() == "{}"


def test_one_changed_byte_of_a_copied_file_is_refused_by_name(bucket: Store) -> None:
    content = bytearray(bucket.get("model.safetensors", most=2**30))
    content[len(content) // 2] ^= 1
    bucket.put("model.safetensors", bytes(content))

    with (
        pytest.raises(DataError, match=r"model/model.safetensors differs from files.json: found SHA-256"),
        local_copy(bucket),
    ):
        pass


@pytest.mark.parametrize(
    "files", [[], "x", {"model.safetensors": 1}, {"model.safetensors": {"size": -1, "sha256": "x"}}, {"a": {"size": 1}}]
)
def test_a_damaged_list_of_files_is_named(bucket: Store, files: object) -> None:
    bucket.put(FILES_KEY, json.dumps({"files": files}).encode())

    with pytest.raises(DataError, match=r"files.json is damaged"):
        uploaded_files(bucket)


def test_an_upload_removes_no_file_outside_of_its_directory(bucket: Store, folder: Path) -> None:
    outside = open_store(bucket.root)
    outside.put("other/model.safetensors", b"x")
    listed = {"files": None, "replaces": ["../../../other/model.safetensors", "1_Pooling/old.json", 1]}
    bucket.put(FILES_KEY, json.dumps(listed).encode())
    bucket.put("1_Pooling/old.json", b"{}")

    upload_folder(folder, bucket)

    assert outside.exists("other/model.safetensors")
    assert set(uploaded_files(bucket) or ()) == {"model.safetensors", "1_Pooling/config.json"}
    assert not bucket.exists("1_Pooling/old.json")


def test_a_checksum_is_that_of_the_whole_object(bucket: Store) -> None:
    listed = uploaded_files(bucket) or {}

    assert sha256_of(bucket, "model.safetensors") == listed["model.safetensors"].sha256
