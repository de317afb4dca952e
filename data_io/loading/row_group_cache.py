"""Row groups in memory, from the first request until no slot needs them: each is decoded once for all its rows."""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_io.task import format_query

Key = tuple[int, int, int]
"""Epoch, source and row group. Each epoch uses other columns of a row group."""

_UNKNOWN_BYTES = 4 * 2**20
_BYTES_A_TEXT = 64  # overhead of a Python str, with its reference


@dataclass(frozen=True, eq=False)
class RowGroup:
    """R rows. `texts_CR`, str objects, has query with instruction, positive and negatives of each row. Hashes, uint64
    [R], are of the stored texts.
    """

    texts_CR: npt.NDArray[np.object_]
    query_hash: npt.NDArray[np.uint64]
    positive_hash: npt.NDArray[np.uint64]
    nbytes: int


def row_group_of(table: pa.Table, instruction: str) -> RowGroup:
    """Convert `table`: query, positive, the negatives, query_hash and positive_hash, in this order."""
    query, *others = table.columns[:-2]
    if instruction:
        query = pc.binary_join_element_wise(format_query("", instruction), query, "")
    texts_CR = np.empty((len(others) + 1, table.num_rows), dtype=np.object_)
    for c, column in enumerate((query, *others)):
        texts_CR[c] = column.to_numpy(zero_copy_only=False)
    return RowGroup(
        texts_CR=texts_CR,
        query_hash=table.column(-2).to_numpy(),
        positive_hash=table.column(-1).to_numpy(),
        nbytes=query.nbytes + table.nbytes + texts_CR.size * _BYTES_A_TEXT,
    )


class RowGroupCache:
    """Row groups that are needed soon are pinned. The others stay while there is room, and are evicted in LRU order.

    A missing row group is read by `pool`. All callers that pin it share the read.
    """

    def __init__(self, pool: Executor, limit_bytes: int, *, ahead: int) -> None:
        """`ahead`: maximum number of row groups that are being read or wait for their first use."""
        self._pool = pool
        self._limit = limit_bytes
        self._ahead = ahead
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._bytes = self._pinned_bytes = 0
        self._waiting = 0  # pinned and not used yet
        self._typical = _UNKNOWN_BYTES
        self._lock = Lock()

    def pin(self, key: Key, read: Callable[[], RowGroup]) -> Future[RowGroup]:
        """The row group as a future. Each caller that pins it must unpin it."""
        with self._lock:
            entry = self._entries.get(key)
            new = entry is None
            if entry is None:
                entry = self._entries[key] = _Entry(self._pool.submit(read), self._typical)
                self._bytes += entry.nbytes
            self._entries.move_to_end(key)
            self._set_pins(entry, entry.pins + 1)
            self._evict()
        if new:  # outside the lock: a finished future calls back at once
            entry.row_group.add_done_callback(lambda future: self._arrived(key, future))
        return entry.row_group

    def unpin(self, key: Key) -> None:
        """The caller that pinned it does not need it any more."""
        with self._lock:
            entry = self._entries[key]
            self._waiting -= not entry.used
            entry.used = True
            self._set_pins(entry, entry.pins - 1)
            self._evict()
            self._drop(key, entry)

    def finish(self, key: Key) -> None:
        """It will not be pinned again: drop it as soon as it is not pinned."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                entry.finished = True
                self._drop(key, entry)

    def may_pin(self, keys: list[Key]) -> bool:
        """Whether there is room for the missing ones among the keys. Always true if nothing else is pinned."""
        with self._lock:
            new = sum(key not in self._entries for key in keys)
            room = self._pinned_bytes + new * self._typical <= self._limit
            return not new or not self._pinned_bytes or (room and self._waiting + new <= self._ahead)

    def _set_pins(self, entry: "_Entry", pins: int) -> None:
        if not pins or not entry.pins:
            self._pinned_bytes += entry.nbytes if pins else -entry.nbytes
            if not entry.used:
                self._waiting += 1 if pins else -1
        entry.pins = pins

    def _arrived(self, key: Key, future: Future[RowGroup]) -> None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry.row_group is not future:
                return
            nbytes = 0 if future.cancelled() or future.exception() else future.result().nbytes
            self._typical = nbytes or self._typical
            self._bytes += nbytes - entry.nbytes
            if entry.pins:
                self._pinned_bytes += nbytes - entry.nbytes
            entry.nbytes = nbytes
            self._evict()

    def _drop(self, key: Key, entry: "_Entry") -> None:
        if entry.finished and not entry.pins and self._entries.pop(key, None) is not None:
            self._bytes -= entry.nbytes

    def _evict(self) -> None:
        if self._bytes <= self._limit:
            return
        for key, entry in list(self._entries.items()):
            if self._bytes <= self._limit:
                return
            if not entry.pins:
                del self._entries[key]
                self._bytes -= entry.nbytes


@dataclass
class _Entry:
    row_group: Future[RowGroup]
    nbytes: int
    """An estimate until the row group is loaded."""
    pins: int = 0
    used: bool = False
    finished: bool = False
