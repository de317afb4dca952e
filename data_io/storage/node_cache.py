"""A directory on this machine that caches bytes read from a store, for all processes of the machine.

Any number of processes may share it. An entry is written under a temporary name and renamed. It contains its length and
checksum, so an entry that a crash left incomplete reads as missing. Nothing waits for a disk or holds a lock. A failure
here (no space, no permission, the directory deleted) is counted and costs at most a read from the store.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from struct import Struct
from threading import Lock
from time import time
from uuid import uuid4

from zlib_ng.zlib_ng import crc32

_HEADER = Struct("<4sIQ")  # magic, CRC-32 and length of the content
_MAGIC = b"f2c1"
_ENTRY, _UNFINISHED = ".entry", ".unfinished"
_ABANDONED_SECONDS = 3600
_KEEP_SHARE = 0.9  # share kept when entries are evicted, so that not every new entry evicts
_COUNT_AGAIN_SHARE = 1 / 16  # other processes write too: recount the directory after so much was written here


@dataclass(frozen=True)
class CacheStats:
    """Entries found, missing, written and evicted; and failures of the directory or an entry."""

    hits: int = 0
    misses: int = 0
    written: int = 0
    removed: int = 0
    failures: int = 0


class NodeCache:
    """Bytes by key, least recently used evicted first. Threads may share one. No method raises OSError."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Opens and creates nothing."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._stats = CacheStats()
        self._size: int | None = None  # size at the last count, plus bytes written since
        self._uncounted = 0

    @property
    def stats(self) -> CacheStats:
        return self._stats

    def get(self, key: str) -> memoryview | None:
        """The bytes stored under `key`. None if they are missing or incomplete."""
        path = self._path(key)
        try:
            content = path.read_bytes()
            os.utime(path)  # used just now
        except FileNotFoundError:
            self._count(misses=1)
            return None
        except OSError:
            self._count(misses=1, failures=1)
            return None
        data = memoryview(content)[_HEADER.size :]
        if content[: _HEADER.size] != _HEADER.pack(_MAGIC, crc32(data), len(data)):
            self._count(misses=1, failures=1)
            self._remove(path)
            return None
        self._count(hits=1)
        return data

    def put(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        """Store `parts`, concatenated, under `key`."""
        length, crc = sum(len(part) for part in parts), 0
        if length > self._max_bytes * _KEEP_SHARE:
            return
        for part in parts:
            crc = crc32(part, crc)
        path = self._path(key)
        unfinished = path.with_name(f"{uuid4().hex}{_UNFINISHED}")
        try:
            self._make_room(length + _HEADER.size)
            path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                file.write(_HEADER.pack(_MAGIC, crc, length))
                for part in parts:
                    file.write(part)
            unfinished.replace(path)
        except OSError:
            self._count(failures=1)
            self._remove(unfinished)
            return
        self._count(written=1)

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / name[:2] / f"{name[2:]}{_ENTRY}"

    def _make_room(self, length: int) -> None:
        with self._lock:
            self._uncounted += length
            if (
                self._size is not None
                and self._size + length <= self._max_bytes
                and self._uncounted <= self._max_bytes * _COUNT_AGAIN_SHARE
            ):
                self._size += length
                return
            entries = self._entries()
            size = sum(size for _, size, _ in entries)
            if size + length > self._max_bytes:
                for _, entry_size, path in sorted(entries, key=lambda entry: entry[0]):
                    if size + length <= self._max_bytes * _KEEP_SHARE:
                        break
                    if path.suffix == _UNFINISHED:  # another process is writing it
                        continue
                    size -= entry_size
                    if self._remove(path):
                        self._stats = replace(self._stats, removed=self._stats.removed + 1)
            self._size, self._uncounted = size + length, 0

    def _entries(self) -> list[tuple[float, int, Path]]:
        """Last use, size and path of each entry. Removes old unfinished files of writers."""
        entries = []
        for path in self._folder.glob("*/*"):
            try:
                found = path.stat()
            except FileNotFoundError:  # another process evicts too
                continue
            if path.suffix == _UNFINISHED and time() - found.st_mtime > _ABANDONED_SECONDS:
                self._remove(path)
            elif path.suffix in {_ENTRY, _UNFINISHED}:
                entries.append((found.st_mtime, found.st_size, path))
        return entries

    def _remove(self, path: Path) -> bool:
        try:
            path.unlink()
        except OSError:
            return False
        return True

    def _count(self, *, hits: int = 0, misses: int = 0, written: int = 0, failures: int = 0) -> None:
        with self._lock:
            before = self._stats
            self._stats = replace(
                before,
                hits=before.hits + hits,
                misses=before.misses + misses,
                written=before.written + written,
                failures=before.failures + failures,
            )
