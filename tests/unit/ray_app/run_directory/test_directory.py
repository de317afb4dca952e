"""Lines of a run in a bucket: training never waits for an upload, and all lines are stored before a checkpoint."""

import json
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_io.errors import F2LLMError, NotFoundInStore, StorageError
from ray_app.errors import RunConflict
from ray_app.run_directory import directory as run_directory
from ray_app.run_directory.directory import LineLog
from tests.support.waiting import wait_for

KEY = "metrics.jsonl"


class Bucket:
    """A store of one object. A put waits until `open` is set, and raises `error` if that is set."""

    is_local = False

    def __init__(self) -> None:
        self.content: bytes | None = None
        self.begun, self.ended, self.most_at_once = 0, 0, 0
        self._counting = threading.Lock()
        self.error: F2LLMError | None = None
        self.open = threading.Event()
        self.open.set()

    def get(self, key: str, *, most: int) -> bytes:
        if self.content is None:
            raise NotFoundInStore(key)
        return self.content

    def put(self, key: str, content: bytes) -> None:
        with self._counting:
            self.begun += 1
            self.most_at_once = max(self.most_at_once, self.begun - self.ended)
        assert self.open.wait(30)
        try:
            if self.error is not None:
                raise self.error
            self.content = content
        finally:
            with self._counting:
                self.ended += 1

    def steps(self) -> list[int]:
        return [json.loads(line)["step"] for line in self.content.splitlines()] if self.content else []


def opened(bucket: Bucket, **options: Any) -> LineLog:
    return LineLog(bucket, KEY, **options)  # type: ignore[arg-type]  # only the methods that it needs


def append_for_ever(log: LineLog) -> None:
    for step in range(10**6):
        log.append({"step": step})
        time.sleep(0.001)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an upload due at every line."""
    monkeypatch.setattr(run_directory, "_UPLOAD_SECONDS", -1.0)


@pytest.mark.usefixtures("at_once")
def test_a_line_does_not_wait_for_the_store() -> None:
    bucket = Bucket()
    log = opened(bucket)
    bucket.open.clear()

    for step in range(5):
        log.append({"step": step})

    assert bucket.ended == 0
    bucket.open.set()
    log.flush()
    assert bucket.steps() == list(range(5))


@given(st.lists(st.sampled_from(["append", "flush", "open again"]), max_size=30))
def test_what_was_appended_before_a_flush_is_in_the_store_after_it(calls: list[str]) -> None:
    bucket, steps = Bucket(), 0
    log = opened(bucket)

    for call in calls:
        if call == "append":
            log.append({"step": steps})
            steps += 1
        else:
            log.flush()
            assert bucket.steps() == list(range(steps))
            log = opened(bucket) if call == "open again" else log


@pytest.mark.usefixtures("at_once")
def test_a_flush_waits_for_the_running_upload_and_uploads_the_rest() -> None:
    bucket = Bucket()
    log = opened(bucket)
    bucket.open.clear()
    log.append({"step": 0})
    wait_for(lambda: bucket.begun == 1, "an upload begins")
    log.append({"step": 1})

    flush = threading.Thread(target=log.flush)
    flush.start()
    flush.join(0.2)  # a flush that does not wait for the upload would begin its own in this time

    assert flush.is_alive()
    bucket.open.set()
    flush.join(30)
    assert bucket.most_at_once == 1, "two uploads at once can end in either order"
    assert bucket.steps() == [0, 1]


@pytest.mark.usefixtures("at_once")
def test_lines_that_come_while_another_thread_flushes_are_kept_in_order() -> None:
    bucket = Bucket()
    log = opened(bucket)
    ended = threading.Event()

    def flush() -> None:
        while not ended.is_set():
            log.flush()

    thread = threading.Thread(target=flush)
    thread.start()
    for step in range(3000):
        log.append({"step": step})
    ended.set()
    thread.join(30)
    log.flush()

    assert bucket.steps() == list(range(3000))


@pytest.mark.usefixtures("at_once")
def test_a_failed_upload_raises_its_error_at_a_later_line() -> None:
    bucket = Bucket()
    log = opened(bucket)
    bucket.error = StorageError("the store is away")
    log.append({"step": 0})
    wait_for(lambda: bucket.ended == 1, "the upload ends")

    with pytest.raises(StorageError, match="the store is away"):
        append_for_ever(log)
    with pytest.raises(StorageError, match="the store is away"):
        log.flush()


@pytest.mark.usefixtures("at_once")
def test_a_flush_repeats_a_failed_upload() -> None:
    bucket = Bucket()
    log = opened(bucket)
    bucket.error = StorageError("the store is away")
    log.append({"step": 0})
    wait_for(lambda: bucket.ended == 1, "the upload ends")
    bucket.error = None

    log.flush()
    log.append({"step": 1})
    log.flush()

    assert bucket.steps() == [0, 1]


@pytest.mark.usefixtures("at_once")
def test_a_replaced_process_writes_no_more_lines() -> None:
    def replaced() -> None:
        raise RunConflict("attempt 2 has begun")

    bucket = Bucket()
    log = opened(bucket, before_write=replaced)

    with pytest.raises(RunConflict):
        append_for_ever(log)
    with pytest.raises(RunConflict):
        log.flush()
    assert bucket.content is None
