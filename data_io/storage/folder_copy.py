"""Copies the files of a store to a directory, for libraries that read only directories, and a directory to a store."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, TypeAdapter, ValidationError

from data_io import bounded_json
from data_io.errors import DataError, NotFoundInStore
from data_io.storage.store import ObjectInfo, Store, stays_inside
from data_io.wording import shown

FILES_KEY = "files.json"
SETTINGS_BYTES = 2**26
"""Size limit of a text file in a model directory. The largest are tokenizers."""
_BLOCK = 8 << 20


class ListedFile(BaseModel):
    """Size and SHA-256 of a file, in `files.json`."""

    model_config = ConfigDict(frozen=True, strict=True)

    size: NonNegativeInt
    sha256: str


_FILES = TypeAdapter(dict[str, ListedFile] | None)


@contextmanager
def local_copy(store: Store) -> Iterator[Path]:
    """A directory with the store's files: the store itself if it is local, else a copy that the block removes.

    Raises DataError if a copied file differs from the SHA-256 that `files.json` lists for it.
    """
    if store.is_local:
        yield Path(store.uri)
        return
    listed = uploaded_files(store) or {}
    with tempfile.TemporaryDirectory() as temporary:
        for info in store.list():
            found = _download(store, info, Path(temporary) / info.key)
            if info.key in listed and found != listed[info.key].sha256:
                raise DataError(
                    f"{store.uri}/{info.key} differs from {FILES_KEY}: found SHA-256 {found[:12]}..., expected "
                    f"{shown(listed[info.key].sha256[:12])}...",
                    remedy="check who wrote it, then write the directory again or restore it from a backup",
                )
        yield Path(temporary)


def _download(store: Store, info: ObjectInfo, target: Path) -> str:
    """Copy an object in blocks, as it was when it was listed. Returns its SHA-256."""
    digest = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        for block in _blocks_of(store, info):
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def _blocks_of(store: Store, info: ObjectInfo) -> Iterator[memoryview]:
    for start in range(0, info.size, _BLOCK):
        yield store.get_range(info.key, start, min(_BLOCK, info.size - start), if_match=info.etag).data


def sha256_of(store: Store, key: str) -> str:
    """SHA-256 of an object, read in blocks. Raises NotFoundInStore."""
    info = store.head(key)
    if info is None:
        raise NotFoundInStore(f"{store.uri}/{key} does not exist")
    digest = hashlib.sha256()
    for block in _blocks_of(store, info):
        digest.update(block)
    return digest.hexdigest()


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
        earlier = {*(uploaded_files(store) or ()), *_read_listing(store).get("replaces", ())}
        return sorted(key for key in earlier if isinstance(key, str) and stays_inside(key))
    except (DataError, TypeError):  # a file of another program
        return []


def uploaded_files(store: Store) -> Mapping[str, ListedFile] | None:
    """The list of `upload_folder`, by name. None while a copy is incomplete, empty if there was no copy.

    Raises DataError if the list is damaged.
    """
    try:
        return _FILES.validate_python(_read_listing(store).get("files", {}))
    except ValidationError as error:
        raise DataError(
            f"{store.uri}/{FILES_KEY} is damaged: it does not list files with their size and sha256",
            remedy="write the directory again, or restore it from a backup",
        ) from error


def _read_listing(store: Store) -> dict[str, Any]:
    try:
        found = bounded_json.read_json(store.get(FILES_KEY))
    except (NotFoundInStore, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _listing(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises OSError, and ValueError also for a file that is too large for settings."""
    if (size := path.stat().st_size) > SETTINGS_BYTES:
        raise ValueError(f"{path.name} has {size:,} bytes, expected at most {SETTINGS_BYTES:,}")
    return bounded_json.read_json(path.read_bytes())
