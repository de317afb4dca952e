"""Stores and processes: pickled, sent to another process, forked."""

import pickle
import subprocess
import sys
import textwrap

import pytest

from data_io.storage.store import Store
from tests.support.s3_server import S3Server


def test_a_pickled_store_is_the_same_store_and_holds_no_secret(shared_store: Store, s3: S3Server) -> None:
    shared_store.put("key", b"data")

    pickled = pickle.dumps(shared_store)

    assert s3.secret_key.encode() not in pickled
    assert s3.access_key.encode() not in pickled
    assert s3.secret_key not in repr(shared_store)
    assert pickle.loads(pickled) == shared_store
    assert pickle.loads(pickled).get("key") == b"data"


def test_another_process_reads_with_the_pickled_store(shared_store: Store) -> None:
    shared_store.put("key", b"data")
    script = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).get('key'))"

    done = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(shared_store), capture_output=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout) == (0, b"b'data'\n"), done.stderr.decode()


FORKING = """
import os, pickle, sys
store = pickle.loads(sys.stdin.buffer.read())
if {used_before}:
    store.get("key")
child = os.fork()
if child == 0:
    try:
        print(store.get("key"), flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize("used_before", [True, False], ids=["used before", "first used after"])
def test_a_fork_after_first_use_is_refused_and_never_hangs(shared_store: Store, used_before: bool) -> None:
    shared_store.put("key", b"data")
    script = textwrap.dedent(FORKING.format(used_before=used_before))

    done = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(shared_store), capture_output=True, timeout=60, check=False
    )

    said = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    if used_before:
        assert "F2LLMError" in said
        assert "fork" in said
        assert "spawn" in said
    else:
        assert said == "b'data'\n"
