"""What an unfinished job keeps under OUT's .f2llm-work/, so that it resumes after a kill, on another machine too.

Its directory is named after everything that decides what is in it: a preparation of another recipe, or of files that
have changed, starts over and removes what it finds. Every record holds its own checksum and names objects with theirs.
"""

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from data_io.errors import NotFoundInStore
from data_io.execution import Say
from data_io.storage.store import Store

WORK_PREFIX = ".f2llm-work"
"""Ours alone: whatever else is in the place, a user's own files too, is left as it is."""
_FORMAT_VERSION = 2
_WRITTEN_INTO = ("sources", "evaluation", "tokenizer")
_STAGED = re.compile(r"\.(parquet|json)#\d+$")


@dataclass(frozen=True)
class Work:
    """The unfinished preparation of a data set; `state` holds its records and intermediate objects."""

    store: Store
    name: str

    @property
    def state(self) -> Store:
        return self.store.child(WORK_PREFIX).child(self.name)

    def save(self, key: str, content: Mapping[str, Any]) -> None:
        """Record that a task is done, with values of JSON. The objects of the task must be there already."""
        text = _canonical(content)
        self.state.put(key, json.dumps({"sha256": _sha256(text), "content": content}).encode())

    def load(self, key: str) -> dict[str, Any] | None:
        """The content that `save` wrote; None where there is no record, or a damaged one."""
        try:
            found = json.loads(self.state.get(key))
            content = found["content"]
            whole = isinstance(content, dict) and found["sha256"] == _sha256(_canonical(content))
        except (NotFoundInStore, ValueError, KeyError, TypeError):
            return None
        return content if whole else None


def begin_work(store: Store, *decided_by: object, say: Say) -> Work:
    """The work that `decided_by` (values of JSON) describes: what there is of it is kept, any other is removed."""
    name = _sha256(_canonical([_FORMAT_VERSION, *decided_by]))[:16]
    found = [info.key for info in store.list(WORK_PREFIX)]
    mine = f"{WORK_PREFIX}/{name}/"
    store.delete(key for key in found if not key.startswith(mine))
    if any(key.startswith(mine) for key in found):
        say("going on with a preparation that did not end")
    elif found:
        say("another preparation did not end here: starting over")
    return Work(store, name)


def end_work(store: Store, *, began: float) -> None:
    """Remove all work. `began` (seconds since the epoch) is when this preparation did."""
    store.delete([info.key for info in store.list(WORK_PREFIX)])
    if not store.is_local:
        return
    folder = Path(store.uri)
    shutil.rmtree(folder / WORK_PREFIX, ignore_errors=True)
    # A local store writes beside the object and renames; a kill leaves such a file, which no listing shows. One that is
    # younger may belong to another process.
    beside = chain(folder.glob("*#*"), *((folder / each).rglob("*#*") for each in _WRITTEN_INTO))
    for path in [path for path in beside if _STAGED.search(path.name)]:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < began:
                path.unlink()


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
