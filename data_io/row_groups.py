"""Row groups in memory, from the moment they are asked for until nobody needs them: decoded once for all their rows."""

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
"""Epoch, source and row group: an epoch uses other columns of a row group than the next."""

_UNKNOWN_BYTES = 4 * 2**20


@dataclass(frozen=True)
class RowGroup:
    """R rows with C texts each. Text c of row r is number c * R + r: queries with their instruction, positives, then
    each negative column. Hashes, uint64 [R], are those of the stored texts.
    """

    texts: pa.StringArray
    rows: int
    query_hash: npt.NDArray[np.uint64]
    positive_hash: npt.NDArray[np.uint64]

    @property
    def nbytes(self) -> int:
        return int(self.texts.nbytes) + self.query_hash.nbytes + self.positive_hash.nbytes


def row_group_of(table: pa.Table, instruction: str) -> RowGroup:
    """`table` has query, positive, the negatives, query_hash and positive_hash, in this order."""
    query, *others = table.columns[:-2]
    if instruction:
        query = pc.binary_join_element_wise(format_query("", instruction), query, "")
    return RowGroup(
        texts=pa.concat_arrays([chunk for column in (query, *others) for chunk in column.chunks]),
        rows=table.num_rows,
        query_hash=table.column(-2).to_numpy(),
        positive_hash=table.column(-1).to_numpy(),
    )


class RowGroupCache:
    """Row groups that are needed soon are pinned; others stay while there is room, least recently used first out.

    One that is not there is read by `pool`; all who pin it share the read.
    """

    def __init__(self, pool: Executor, limit_bytes: int, *, ahead: int) -> None:
        """`ahead`: how many row groups may be read, or wait to be used for the first time, at once."""
        self._pool = pool
        self._limit = limit_bytes
        self._ahead = ahead
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._typical = _UNKNOWN_BYTES
        self._lock = Lock()

    def pin(self, key: Key, read: Callable[[], RowGroup]) -> Future[RowGroup]:
        """The row group, now or later. Whoever pins one unpins it."""
        with self._lock:
            entry = self._entries.get(key)
            new = entry is None
            if entry is None:
                entry = self._entries[key] = _Entry(self._pool.submit(read), self._typical)
            self._entries.move_to_end(key)
            entry.pins += 1
            self._evict()
        if new:  # not under the lock: what is there already calls back at once
            entry.row_group.add_done_callback(lambda future: self._arrived(key, future))
        return entry.row_group

    def unpin(self, key: Key) -> None:
        """It was used and is not needed any more by whoever pinned it."""
        with self._lock:
            entry = self._entries[key]
            entry.pins -= 1
            entry.used = True
            self._evict()

    def may_pin(self, keys: list[Key]) -> bool:
        """Whether there is room for those of them that are not there; always where nothing else is pinned."""
        with self._lock:
            pinned = [entry for entry in self._entries.values() if entry.pins]
            new = sum(key not in self._entries for key in keys)
            if not pinned or not new:
                return True
            waiting = sum(not entry.used for entry in pinned)
            size = sum(entry.nbytes for entry in pinned) + new * self._typical
            return waiting + new <= self._ahead and size <= self._limit

    def _arrived(self, key: Key, future: Future[RowGroup]) -> None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry.row_group is not future:
                return
            if future.cancelled() or future.exception():
                entry.nbytes = 0
            else:
                entry.nbytes = self._typical = future.result().nbytes
            self._evict()

    def _evict(self) -> None:
        total = sum(entry.nbytes for entry in self._entries.values())
        for key, entry in list(self._entries.items()):
            if total <= self._limit:
                return
            if not entry.pins:
                del self._entries[key]
                total -= entry.nbytes


@dataclass
class _Entry:
    row_group: Future[RowGroup]
    nbytes: int
    """An estimate until it is there."""
    pins: int = 0
    used: bool = False
