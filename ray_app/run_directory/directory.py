"""The run directory, in a local directory or a bucket: the truth about a run (docs/developers/design.md#the-run-directory)."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

from pydantic import ValidationError

from data_io.errors import NotFoundInStore
from data_io.storage.store import Store
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

# A store has no append: the object is written anew, and not for every step. A local file grows at once.
_UPLOAD_SECONDS = 15.0


class LineLog:
    """A file of JSON lines that only grows, except that a resume drops the lines of steps it will repeat.

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
        """Opens what is there. With `keep`, lines for which it is false are removed; so is a half-written last line.
        `before_write` may raise whenever this process may no longer write to the file.
        """
        self._store, self._key, self._before_write = store, key, before_write
        before = read_text(store, key)
        lines = [line for line in before.splitlines() if _is_json(line)]
        kept = lines if keep is None else [line for line in lines if keep(json.loads(line))]
        self.dropped = len(lines) - len(kept)
        content = "".join(f"{line}\n" for line in kept)
        if content != before:
            store.put(key, content.encode())
        # What is in the store, and behind it what is not yet there.
        self._parts = [content.encode()]
        self._uploaded = monotonic()
        self._uploads = Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._under_way: Future[None] | None = None

    def kept(self) -> Iterator[dict[str, Any]]:
        """The lines that were there when it was opened; to be asked for before the first append."""
        return map(json.loads, self._parts[0].split(b"\n")[:-1])

    def append(self, line: dict[str, Any]) -> None:
        """Never waits for a bucket: an upload is begun now and then, and a line after it raises what it failed of."""
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
        """Make sure that everything appended before is in the store; waits for an upload under way."""
        if not self._store.is_local:
            self._upload()
            self._under_way = None  # if it failed, this has made good for it

    def _upload(self) -> None:
        with self._uploads:  # two at once may end in either order
            taken = len(self._parts)
            if taken > 1:
                self._before_write()
                content = b"".join(self._parts[:taken])
                self._store.put(self._key, content)
                self._parts[:taken] = [content]  # in one piece for Python: lines go on being appended
            self._uploaded = monotonic()


def append_event(run: Store, event: str, **facts: Any) -> None:
    """One line in events.jsonl: what happened to the run, for people and for programs. Rare, so written at once."""
    log = LineLog(run, EVENTS)
    log.append({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts})
    log.flush()


def read_status(run: Store) -> RunStatus | None:
    """None where there is no run yet, or where a damaged status.json cannot say."""
    try:
        return RunStatus.model_validate_json(run.get(STATUS))
    except (NotFoundInStore, ValidationError):
        return None


def write_status(run: Store, status: RunStatus) -> None:
    run.put(STATUS, status.model_copy(update={"updated": datetime.now(UTC)}).model_dump_json(indent=1).encode())


def read_text(run: Store, key: str) -> str:
    """The file's text, empty where there is none; broken UTF-8, as a crash may leave it, is replaced."""
    try:
        return run.get(key).decode("utf-8", "replace")
    except NotFoundInStore:
        return ""


def claim(
    run: Store,
    job_spec_yaml: str,
    differences: Callable[[str], list[str]],
    changes: Callable[[str], list[str]],
) -> bool:
    """Make the directory this document's own; True where it already was, so that the run goes on.

    Until something is trained the document may still change. `differences(frozen_yaml)` lists, one line each, the
    fields that differ and may not, `changes(frozen_yaml)` those that may: they become an event of the run. Raises
    RunConflict with the former, or where the directory holds something else than a run.
    """
    frozen = read_text(run, JOB_SPEC)
    if frozen:
        different = differences(frozen)
        if different and not read_text(run, METRICS) and not list_checkpoints(run):
            # Nothing was trained: the first start failed, and the mend was in the document.
            run.delete([BEFORE])
        elif different:
            raise RunConflict(
                f"{run.uri} is the run of another document:\n  " + "\n  ".join(different),
                remedy="give this document another metadata.name, or put the fields back to what the run began with",
            )
        run.put(JOB_SPEC, job_spec_yaml.encode())
        if changed := changes(frozen):
            append_event(run, "DocumentChanged", changes=changed)
        return True
    strangers = [info.key for info in run.list() if not info.key.startswith("logs/") and info.key != LEASE]
    if strangers:
        raise RunConflict(
            f"{run.uri} is not empty and has no {JOB_SPEC}: {', '.join(strangers[:3])}",
            remedy="choose another metadata.name or storage.uri, or remove what is there",
        )
    run.put(JOB_SPEC, job_spec_yaml.encode())
    return False


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
