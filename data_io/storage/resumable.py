"""The state of an unfinished job in OUT/.f2llm-work/, so that it can resume after an interruption, on any machine.

The directory's name is a hash of everything that determines its content. A preparation with another recipe or changed
files starts over and removes the old state. Every record has its own checksum and those of the objects it names.
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

from data_io.bounded_json import read_json
from data_io.errors import NotFoundInStore
from data_io.execution import Say
from data_io.storage.store import BULK_BYTES, Store

WORK_PREFIX = ".f2llm-work"
"""The only prefix that this module writes to or removes. All other files, such as the user's, are left alone."""
_FORMAT_VERSION = 2
_WRITTEN_INTO = ("sources", "evaluation", "tokenizer")
_STAGED = re.compile(r"\.(parquet|json)#\d+$")


@dataclass(frozen=True)
class Work:
    """The unfinished preparation of a data set. `state` contains its records and intermediate objects."""

    store: Store
    name: str

    @property
    def state(self) -> Store:
        return self.store.child(WORK_PREFIX).child(self.name)

    def save(self, key: str, content: Mapping[str, Any]) -> None:
        """Record that a task is finished, with JSON values. The task's objects must already exist."""
        text = _canonical(content)
        self.state.put(key, json.dumps({"sha256": _sha256(text), "content": content}).encode())

    def load(self, key: str) -> dict[str, Any] | None:
        """The content that `save` wrote. None if there is no record, or it is damaged."""
        try:
            found = read_json(self.state.get(key, most=BULK_BYTES))
            content = found["content"]
            whole = isinstance(content, dict) and found["sha256"] == _sha256(_canonical(content))
        except (NotFoundInStore, ValueError, KeyError, TypeError):
            return None
        return content if whole else None


def begin_work(store: Store, *decided_by: object, say: Say) -> Work:
    """The work for `decided_by` (JSON values). Existing work for the same values is kept, all other is removed."""
    name = _sha256(_canonical([_FORMAT_VERSION, *decided_by]))[:16]
    found = [info.key for info in store.list(WORK_PREFIX)]
    mine = f"{WORK_PREFIX}/{name}/"
    store.delete(key for key in found if not key.startswith(mine))
    if any(key.startswith(mine) for key in found):
        say("resuming an unfinished preparation")
    elif found:
        say("removing another unfinished preparation and starting over")
    return Work(store, name)


def end_work(store: Store, *, began: float) -> None:
    """Remove all work. `began` is the start of this preparation, in seconds since the epoch."""
    store.delete([info.key for info in store.list(WORK_PREFIX)])
    if not store.is_local:
        return
    folder = Path(store.uri)
    shutil.rmtree(folder / WORK_PREFIX, ignore_errors=True)
    # A local store writes to a temporary file and renames it. A killed process leaves that file, and no listing shows
    # it. Younger files may belong to another process.
    beside = chain(folder.glob("*#*"), *((folder / each).rglob("*#*") for each in _WRITTEN_INTO))
    for path in [path for path in beside if _STAGED.search(path.name)]:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < began:
                path.unlink()


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
