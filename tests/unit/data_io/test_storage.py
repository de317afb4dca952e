"""One law for all stores: what holds for a local folder holds in memory and on S3."""

import os
import pickle
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from data_io.errors import NotFoundInStore, ObjectChanged, StorageError, StoreAccessError
from data_io.storage import Store, open_store
from data_io.storage_errors import ObjectTooShort
from tests.support.s3_server import S3Server

POEM = b"I celebrate myself, and sing myself"


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    if request.param == "memory":
        return open_store(f"memory://{uuid.uuid4()}/prefix")
    server: S3Server = request.getfixturevalue("s3")
    return open_store(f"{server.uri}/{uuid.uuid4()}", server.options)


@pytest.mark.parametrize("key", ["a", "folder/deeper/a", "with space/ü%20+&.txt"])
@pytest.mark.parametrize("data", [b"", POEM, bytes(range(256)) * 40_000], ids=["empty", "short", "10 MB"])
def test_what_was_put_is_what_is_read(store: Store, key: str, data: bytes) -> None:
    etag = store.put(key, data)

    assert store.get(key) == data
    info = store.head(key)
    assert info is not None
    assert (info.key, info.size, info.etag) == (key, len(data), etag)
    assert store.exists(key)


@pytest.mark.parametrize(("start", "length"), [(0, 1), (0, len(POEM)), (5, 10), (len(POEM) - 1, 1)])
def test_a_range_is_a_slice_and_tells_of_the_whole(store: Store, start: int, length: int) -> None:
    etag = store.put("poem", POEM)

    blob = store.get_range("poem", start, length)

    assert bytes(blob.data) == POEM[start : start + length]
    assert (blob.size, blob.etag) == (len(POEM), etag)


@pytest.mark.parametrize("start", [30, len(POEM), 1000], ids=["across the end", "at the end", "behind the end"])
def test_a_range_past_the_end_is_refused_with_both_sizes(store: Store, start: int) -> None:
    store.put("poem", POEM)

    with pytest.raises(ObjectTooShort, match=rf"has {len(POEM)} bytes, but {start + 100} were expected"):
        store.get_range("poem", start, 100)


def test_a_missing_object_is_named(store: Store) -> None:
    store.put("other", b"1")

    for read in (lambda: store.get("no/such"), lambda: store.get_range("no/such", 0, 1)):
        with pytest.raises(NotFoundInStore) as caught:
            read()
        assert f"{store.uri}/no/such" in str(caught.value)
    assert store.head("no/such") is None
    assert not store.exists("no/such")


def test_if_match_refuses_an_object_that_was_overwritten(store: Store) -> None:
    etag = store.put("poem", POEM)
    assert bytes(store.get_range("poem", 2, 9, if_match=etag).data) == b"celebrate"

    store.put("poem", POEM.upper())

    with pytest.raises(ObjectChanged, match="overwritten"):
        store.get_range("poem", 2, 9, if_match=etag)


def test_put_new_writes_once(store: Store) -> None:
    assert store.put_new("lock", b"mine")

    assert not store.put_new("lock", b"yours")

    assert store.get("lock") == b"mine"


def test_put_immutable_leaves_a_whole_object_alone_and_mends_a_damaged_one(store: Store) -> None:
    etag = store.put_immutable("poem-1", POEM)
    assert store.put_immutable("poem-1", POEM) == etag
    store.put("poem-1", POEM[:-1] + b"?")

    store.put_immutable("poem-1", POEM)

    assert store.get("poem-1") == POEM


def test_a_listing_is_sorted_and_relative_to_its_store(store: Store) -> None:
    for key in ("b/2", "b/10", "a", "bb/1"):
        store.put(key, key.encode())

    assert [info.key for info in store.list()] == ["a", "b/10", "b/2", "bb/1"]
    assert [(info.key, info.size) for info in store.list("b")] == [("b/10", 4), ("b/2", 3)]
    assert [info.key for info in store.child("b").list()] == ["10", "2"]
    assert store.list("nothing") == []
    assert all(store.get(info.key) == info.key.encode() for info in store.list())


def test_a_child_is_a_prefix(store: Store) -> None:
    store.child("runs").child("demo/").put("status.json", b"{}")

    assert store.get("runs/demo/status.json") == b"{}"
    assert store.child("runs/demo").uri == f"{store.uri}/runs/demo"


def test_deleting_is_quiet_about_what_is_not_there(store: Store) -> None:
    for key in ("a", "b/c", "b/d"):
        store.put(key, b"1")

    store.delete(["nothing", "a", "b/c"])
    store.delete([])

    assert [info.key for info in store.list()] == ["b/d"]


def test_a_writer_publishes_when_it_ends(store: Store) -> None:
    with store.open_writer("big") as out:
        for _ in range(30):
            assert out.write(b"x" * 10**6) == 10**6
        assert not store.exists("big")

    info = store.head("big")
    assert info is not None
    assert info.size == 30 * 10**6


def test_a_writer_takes_copies(store: Store) -> None:
    buffer = bytearray(b"first")

    with store.open_writer("copied") as out:
        out.write(buffer)
        buffer[:] = b"wrong"
        out.write(memoryview(b" second"))

    assert store.get("copied") == b"first second"


def test_a_writer_that_fails_leaves_nothing(store: Store) -> None:
    store.put("kept", b"before")

    def write_and_fail(key: str) -> None:
        with store.open_writer(key) as out:
            out.write(b"x" * 12 * 10**6)
            raise ZeroDivisionError

    for key in ("new", "kept"):
        with pytest.raises(ZeroDivisionError):
            write_and_fail(key)

    assert [info.key for info in store.list()] == ["kept"]
    assert store.get("kept") == b"before"


def test_a_store_survives_pickling(store: Store) -> None:
    store.put("poem", POEM)

    copy = pickle.loads(pickle.dumps(store.child("x")))

    assert copy == store.child("x")
    assert copy.child("..").uri != store.uri
    assert pickle.loads(pickle.dumps(store)).get("poem") == POEM


def test_a_pickled_store_holds_no_secret(s3: S3Server) -> None:
    store = open_store(s3.uri, s3.options)
    store.put("used", b"1")

    assert s3.secret_key.encode() not in pickle.dumps(store)
    assert s3.secret_key not in repr(store)


def test_a_local_folder_appears_with_the_first_write_and_not_before(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    store = open_store(str(folder))
    assert store.list() == []
    assert not store.exists("a")
    with pytest.raises(NotFoundInStore):
        store.get("a")
    assert not folder.exists()

    store.put("b/a", b"1")

    assert (folder / "b" / "a").read_bytes() == b"1"


def test_deleting_the_last_local_object_of_a_folder_removes_the_folder(tmp_path: Path) -> None:
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


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    for uri, key in ((tmp_path / "file", "a"), (tmp_path / "file" / "deeper", "a"), (tmp_path, "file/a")):
        with pytest.raises(StoreAccessError, match="is a file, not a folder") as caught:
            open_store(str(uri)).put(key, b"1")
        assert str(tmp_path / "file") in caught.value.message
        with pytest.raises(StorageError):
            open_store(str(uri)).get(key)


AS_A_STRANGER = """
import os, sys, datetime
import obstore
from data_io.storage import open_store
from data_io.errors import StoreAccessError
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
folder = sys.argv[1]
store = open_store(folder)
for action in (
    lambda: store.put("closed/new", b"1"),
    lambda: store.put("closed/deeper/new", b"1"),
    lambda: store.get("secret"),
    lambda: store.head("hidden/file"),
    lambda: store.list("hidden"),
    lambda: open_store(folder + "/closed/new").put("key", b"1"),
):
    try:
        action()
    except StoreAccessError as error:
        assert "permission denied" in error.message and folder in error.message and error.remedy, error
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


AFTER_FORK = """
import os, sys
from data_io.errors import F2LLMError
from data_io.storage import open_store
store = open_store(sys.argv[1])
if sys.argv[2] == "used":
    store.put("a", b"1")
if os.fork() == 0:
    try:
        store.put("a", b"2")
    except F2LLMError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
store.put("b", b"3")
"""


def test_a_store_used_before_a_fork_says_so_and_does_not_hang(tmp_path: Path) -> None:
    used, unused = (run_python(AFTER_FORK, str(tmp_path / name), name) for name in ("used", "unused"))

    assert "was forked" in used.stdout
    assert "spawn or forkserver" in used.stdout
    assert (tmp_path / "used" / "a").read_bytes() == b"1"
    assert (tmp_path / "used" / "b").read_bytes() == b"3"
    assert unused.stdout == ""
    assert (tmp_path / "unused" / "a").read_bytes() == b"2"


def test_the_door_loads_no_pyarrow() -> None:
    code = "import sys, data_io.storage; print({'pyarrow', 'numpy', 'torch'} & set(sys.modules))"

    assert run_python(code).stdout == "set()\n"


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
