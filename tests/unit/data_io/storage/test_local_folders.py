"""Local directories as stores: paths, permissions, and when files appear. Laws of all stores: tests/contract."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_io.errors import NotFoundInStore, StorageError, StoreAccessError
from data_io.storage.store import open_store


def test_a_local_directory_appears_with_the_first_write(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    store = open_store(str(folder))
    assert store.list() == []
    assert not store.exists("a")
    with pytest.raises(NotFoundInStore):
        store.get("a")
    assert not folder.exists()

    store.put("b/a", b"1")

    assert (folder / "b" / "a").read_bytes() == b"1"


def test_deleting_the_last_local_object_of_a_directory_removes_the_directory(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("step-1/manifest.json", b"1")

    store.delete(["step-1/manifest.json"])

    assert list(tmp_path.iterdir()) == []


def test_local_addresses_may_be_relative_or_file_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    open_store("data sets/x").put("a", b"1")

    for uri in (f"file://{tmp_path}/data%20sets/x", f"{tmp_path}/data sets/./y/../x", "./data sets/x", "~/data sets/x"):
        assert open_store(uri) == open_store("data sets/x")
        assert open_store(uri).get("a") == b"1"


def test_a_file_in_place_of_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    for uri, key in ((tmp_path / "file", "a"), (tmp_path / "file" / "deeper", "a"), (tmp_path, "file/a")):
        with pytest.raises(StoreAccessError, match="is a file, not a directory") as caught:
            open_store(str(uri)).put(key, b"1")
        assert str(tmp_path / "file") in caught.value.message
        with pytest.raises(StorageError):
            open_store(str(uri)).get(key)


AS_A_STRANGER = """
import os, sys, datetime
import obstore
from data_io.storage.store import open_store
from data_io.errors import StoreAccessError
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
directory = sys.argv[1]
store = open_store(directory)
for action in (
    lambda: store.put("closed/new", b"1"),
    lambda: store.put("closed/deeper/new", b"1"),
    lambda: store.get("secret"),
    lambda: store.head("hidden/file"),
    lambda: store.list("hidden"),
    lambda: open_store(directory + "/closed/new").put("key", b"1"),
):
    try:
        action()
    except StoreAccessError as error:
        assert "permission denied" in error.message and directory in error.message and error.remedy, error
    else:
        raise AssertionError("was let in")
print("refused")
"""


def test_a_local_refusal_names_the_path(tmp_path: Path) -> None:
    for name, mode in (("closed", 0o555), ("hidden", 0o000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
        (tmp_path / name).chmod(mode)
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0)
    for parent in [tmp_path, *tmp_path.parents]:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)

    result = run_python(AS_A_STRANGER, str(tmp_path))

    (tmp_path / "hidden").chmod(0o755)
    assert result.stdout == "refused\n", result.stderr


def test_the_store_module_loads_no_pyarrow() -> None:
    code = "import sys, data_io.storage.store; print({'pyarrow', 'numpy', 'torch'} & set(sys.modules))"

    assert run_python(code).stdout == "set()\n"


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
