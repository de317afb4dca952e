"""Copies the files of a store to a directory, for libraries that read only directories, and a directory to a store."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_io.errors import NotFoundInStore
from data_io.storage.store import Store

FILES_KEY = "files.json"
_UPLOAD_BLOCK = 8 << 20


@contextmanager
def local_copy(store: Store) -> Iterator[Path]:
    """A directory with the store's files: the store itself if it is local, else a copy that the block removes."""
    if store.is_local:
        yield Path(store.uri)
        return
    with tempfile.TemporaryDirectory() as temporary:
        for info in store.list():
            target = Path(temporary) / info.key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(store.get(info.key))
        yield Path(temporary)


def upload_folder(folder: Path, store: Store) -> None:
    """Copy a directory's files to `store`. `files.json` lists their sizes and SHA-256 when the copy is complete. Until
    then its list is empty, so readers know that neither this copy nor the one before is complete. Files of an earlier
    copy that are not in this one are removed; all other files stay.
    """
    earlier = _earlier_files(store)
    store.put(FILES_KEY, _listing({"files": None, "replaces": earlier}))
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest = hashlib.sha256()
        with store.open_writer(path.relative_to(folder).as_posix()) as writer:
            for block in _blocks(path):
                digest.update(block)
                writer.write(block)
        files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": digest.hexdigest()}
    store.delete([key for key in earlier if key not in files])
    store.put(FILES_KEY, _listing({"files": files}))


def _earlier_files(store: Store) -> list[str]:
    """The files of earlier copies, complete or interrupted."""
    try:
        return sorted({*(uploaded_files(store) or ()), *_read_listing(store).get("replaces", ())})
    except TypeError:  # a file of another program
        return []


def uploaded_files(store: Store) -> dict[str, Any] | None:
    """The list of `upload_folder`, by name. None while a copy is incomplete, empty if there was no copy."""
    found: dict[str, Any] | None = _read_listing(store).get("files", {})
    return found


def _read_listing(store: Store) -> dict[str, Any]:
    try:
        found = json.loads(store.get(FILES_KEY))
    except (NotFoundInStore, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_UPLOAD_BLOCK):
            yield block


def _listing(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises OSError and ValueError."""
    return json.loads(path.read_text(encoding="utf-8"))
