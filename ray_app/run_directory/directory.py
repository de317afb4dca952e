"""The run directory, in a local directory or a bucket: the single source of truth about a run.

See docs/developers/design.md#the-run-directory.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

from data_io.bounded_json import read_json, read_model
from data_io.errors import NotFoundInStore
from data_io.storage.store import BULK_BYTES, MOST_BYTES, Store
from ray_app.errors import RunConflict
from ray_app.run_directory.checkpoint_manifest import list_checkpoints
from ray_app.run_directory.driver_lease import LEASE
from ray_app.run_directory.status import RunStatus

JOB_SPEC = "job.yaml"
STATUS = "status.json"
METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
EXAMPLES = "examples.jsonl"
BEFORE = "evaluation/before.json"

LINES_BYTES = 2**28
"""Size limit of a file of lines for readers."""
# An object store has no append, so the whole object is written again, but not at every step. Local files are appended.
_UPLOAD_SECONDS = 15.0


class LineLog:
    """A file of JSON lines that only grows. As an exception, a resume drops the lines of steps that it recomputes.

    One thread appends; any thread may flush.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        *,
        keep: Callable[[dict[str, Any]], bool] | None = None,
        before_write: Callable[[], None] = lambda: None,
    ) -> None:
        """Open the existing file, if any. Removes incomplete lines, and lines for which `keep` is false.

        `before_write` is called before each write. It raises if this process must no longer write to the file.
        """
        self._store, self._key, self._before_write = store, key, before_write
        before = read_text(store, key, most=BULK_BYTES)
        lines = [line for line in before.splitlines() if _is_json(line)]
        kept = lines if keep is None else [line for line in lines if keep(read_json(line))]
        self.dropped = len(lines) - len(kept)
        content = "".join(f"{line}\n" for line in kept)
        if content != before:
            store.put(key, content.encode())
        # The first part is in the store; the others are not there yet.
        self._parts = [content.encode()]
        self._uploaded = monotonic()
        self._uploads = Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._under_way: Future[None] | None = None

    def kept(self) -> Iterator[dict[str, Any]]:
        """The lines that existed when the file was opened. Call it before the first append."""
        return map(read_json, self._parts[0].split(b"\n")[:-1])

    def append(self, line: dict[str, Any]) -> None:
        """Append a line. For a bucket this never waits: uploads run in the background, at most one every few seconds.

        Raises the error of an earlier background upload that failed.
        """
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"
        if self._store.is_local:
            self._before_write()
            path = Path(self._store.uri) / self._key
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
            return
        self._parts.append(text.encode())
        under_way = self._under_way
        if under_way is not None and under_way.done():
            under_way.result()
        if (under_way is None or under_way.done()) and monotonic() - self._uploaded > _UPLOAD_SECONDS:
            self._under_way = self._thread.submit(self._upload)

    def flush(self) -> None:
        """Make sure that all lines appended so far are in the store. Waits for a running upload."""
        if not self._store.is_local:
            self._upload()
            self._under_way = None  # if it failed, this upload has replaced it

    def _upload(self) -> None:
        with self._uploads:  # two uploads at once could finish in the wrong order
            taken = len(self._parts)
            if taken > 1:
                self._before_write()
                content = b"".join(self._parts[:taken])
                self._store.put(self._key, content)
                self._parts[:taken] = [content]  # atomic in Python, because another thread appends lines
            self._uploaded = monotonic()


def append_event(run: Store, event: str, **facts: Any) -> None:
    """Write one line to events.jsonl, for people and programs. Events are rare, so each is written at once."""
    log = LineLog(run, EVENTS)
    log.append({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts})
    log.flush()


def read_status(run: Store) -> RunStatus | None:
    """The status in status.json; None if the file is missing or damaged."""
    try:
        return read_model(RunStatus, run.get(STATUS))
    except (NotFoundInStore, ValueError):
        return None


def write_status(run: Store, status: RunStatus) -> None:
    run.put(STATUS, status.model_copy(update={"updated": datetime.now(UTC)}).model_dump_json(indent=1).encode())


def read_text(run: Store, key: str, *, most: int = MOST_BYTES) -> str:
    """The text of the file, of at most `most` bytes; empty if it does not exist. Replaces broken UTF-8, which a crash
    can leave.
    """
    try:
        return run.get(key, most=most).decode("utf-8", "replace")
    except NotFoundInStore:
        return ""


def claim(
    run: Store,
    job_spec_yaml: str,
    differences: Callable[[str], list[str]],
    changes: Callable[[str], list[str]],
) -> bool:
    """Write the job spec into the run directory. Returns True if the directory already had a run, which then resumes.

    `changes(frozen_yaml)` lists the fields that differ and may differ; they become an event of the run. Raises
    RunConflict as `check_claim` does.
    """
    frozen, different = check_claim(run, differences)
    if different:  # the evaluation before training belongs to the old job spec
        run.delete([BEFORE])
    run.put(JOB_SPEC, job_spec_yaml.encode())
    if frozen and (changed := changes(frozen)):
        append_event(run, "JobSpecChanged", changes=changed)
    return bool(frozen)


def check_claim(run: Store, differences: Callable[[str], list[str]]) -> tuple[str, list[str]]:
    """Whether a job spec can train in this run directory. Reads only.

    Returns job.yaml of the directory, empty for a new run, and `differences` of it: one line per field that
    must not change once something was trained. Before that, for example after a start that failed, every field may
    change. Raises RunConflict if a field changed too late, or if the directory contains something other than a run.
    """
    frozen = read_text(run, JOB_SPEC)
    if not frozen:
        strangers = [info.key for info in run.list() if not info.key.startswith("logs/") and info.key != LEASE]
        if strangers:
            raise RunConflict(
                f"{run.uri} is not empty and has no {JOB_SPEC}: {', '.join(strangers[:3])}",
                remedy="choose another metadata.name or storage.uri, or remove these files",
            )
        return "", []
    different = differences(frozen)
    metrics = run.head(METRICS)
    if different and ((metrics is not None and metrics.size > 0) or list_checkpoints(run)):
        raise RunConflict(
            f"{run.uri}: this run was started with a different job spec:\n  " + "\n  ".join(different),
            remedy="use another metadata.name for the new job spec, or restore the values of the run",
        )
    return frozen, different


def _is_json(line: str) -> bool:
    try:
        return isinstance(read_json(line), dict)
    except ValueError:
        return False
