"""Rows that do not fit into memory: written in buckets by key, read back bucket by bucket.

A spill object is a sequence of sections. A section holds rows of one bucket: their keys and hashes as plain integers
(24 bytes per row, so that repeated rows can be counted without reading texts), then their texts as compressed Arrow.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from zlib_ng.zlib_ng import crc32

from data_io.dataset.manifest import SourceInfo
from data_io.dataset.rows import KEY_COLUMN, KEY_COLUMNS, Row, RowBuffer, sort_unique, unique_order
from data_io.dataset.schema import column_names, text_columns
from data_io.errors import StorageError
from data_io.storage.store import Store, Writer

MEMORY_BYTES = 256 * 2**20
"""About the maximum memory of the rows in one process."""
_KEY_BYTES = 8 * len(KEY_COLUMNS)
_BUCKET, _OFFSET, _ROWS, _SIZE, _KEY_CRC, _TEXT_CRC = range(6)
_IPC = pa.ipc.IpcWriteOptions(compression="zstd")


@dataclass(frozen=True, eq=False)
class Spill:
    """A spill object: `sections` int64 [S, 6] holds bucket, offset, rows, bytes and both checksums of each section."""

    key: str
    size: int
    sections: npt.NDArray[np.int64]

    @property
    def rows(self) -> int:
        return int(self.sections[:, _ROWS].sum())


def run_bytes(memory_bytes: int) -> int:
    """Bytes of rows that are sorted and written together. Sorting needs more than one copy of them."""
    return max(1, memory_bytes // 4)


def bucket_count(text_bytes: int, memory_bytes: int) -> int:
    """A power of two, so that a bucket is about an eighth of the memory: processing it needs more than one copy."""
    target = max(1, memory_bytes // 8)
    return 1 << max(0, (-(-text_bytes // target) - 1).bit_length())


class SpillWriter:
    """Collects rows and writes them when they fill a quarter of the memory."""

    def __init__(self, out: Writer, info: SourceInfo, *, buckets: int, memory_bytes: int, seed: int) -> None:
        self._out = out
        self._buffer = RowBuffer(info, seed=seed)
        self._texts = text_columns(info.negatives)
        self._shift = np.uint64(64 - (buckets.bit_length() - 1))
        self._run_bytes = run_bytes(memory_bytes)
        self._sections: list[tuple[int, ...]] = []
        self._at = 0

    def add(self, row: Row) -> None:
        """Raises DataError with the position of an invalid row."""
        self._buffer.add(row)
        if self._buffer.bytes >= self._run_bytes:
            self.flush(self._buffer.take())

    def finish(self, key: str) -> Spill:
        """The content of the object `key`. It exists after the `with` block."""
        self.flush(self._buffer.take())
        return Spill(key, self._at, np.array(self._sections, dtype=np.int64).reshape(-1, 6))

    def flush(self, table: pa.Table) -> None:
        """Write rows in input order."""
        if not table.num_rows:
            return
        keys = table.column(KEY_COLUMN).to_numpy()
        bucket = np.zeros(len(keys), np.int64) if self._shift == 64 else (keys >> self._shift).astype(np.int64)
        order = np.argsort(bucket, kind="stable")
        numbers, first = np.unique(bucket[order], return_index=True)
        for number, rows in zip(numbers.tolist(), np.split(order, first[1:]), strict=True):
            self._write(number, table.take(rows))

    def _write(self, bucket: int, table: pa.Table) -> None:
        keys = np.stack([table.column(name).to_numpy() for name in KEY_COLUMNS]).astype("<u8").tobytes()
        sink = pa.BufferOutputStream()
        texts = table.select(self._texts).combine_chunks()
        with pa.ipc.new_stream(sink, texts.schema, options=_IPC) as out:
            out.write_table(texts)
        data = memoryview(sink.getvalue())
        self._out.write(keys)
        self._out.write(data)
        size = len(keys) + len(data)
        self._sections.append((bucket, self._at, table.num_rows, size, crc32(keys), crc32(data)))
        self._at += size


def count_unique(store: Store, spills: Sequence[Spill], buckets: int) -> npt.NDArray[np.int64]:
    """Rows per bucket without repeated rows, int64 [buckets]. Reads keys only."""
    found = np.zeros(buckets, dtype=np.int64)
    for bucket in range(buckets):
        parts = []
        for spill, section in _sections_of(spills, bucket):
            data = store.get_range(spill.key, int(section[_OFFSET]), int(section[_ROWS]) * _KEY_BYTES).data
            _check(store, spill, data, section[_KEY_CRC])
            parts.append(_keys(data))
        if parts:
            found[bucket] = len(unique_order(*np.concatenate(parts, axis=1)))
    return found


def sorted_buckets(store: Store, spills: Sequence[Spill], buckets: Iterable[int]) -> Iterator[pa.Table]:
    """The rows to store of each bucket, in order: one table per bucket that is not empty.

    `spills` are in input order. Raises StorageError if an object is damaged.
    """
    for bucket in buckets:
        parts = [_read(store, spill, section) for spill, section in _sections_of(spills, bucket)]
        if parts:
            yield sort_unique(pa.concat_tables(parts))


def is_whole(store: Store, spill: Spill) -> bool:
    """Whether the object exists and the checksums of all sections match."""
    found = store.head(spill.key)
    if found is None or found.size != spill.size:
        return False
    try:
        for section in spill.sections:
            _read_section(store, spill, section)
    except StorageError:
        return False
    return True


def _sections_of(spills: Sequence[Spill], bucket: int) -> Iterator[tuple[Spill, npt.NDArray[np.int64]]]:
    for spill in spills:
        for section in spill.sections[spill.sections[:, _BUCKET] == bucket]:
            yield spill, section


def _read_section(store: Store, spill: Spill, section: npt.NDArray[np.int64]) -> tuple[memoryview, memoryview]:
    data = store.get_range(spill.key, int(section[_OFFSET]), int(section[_SIZE])).data
    cut = int(section[_ROWS]) * _KEY_BYTES
    for part, crc in ((data[:cut], section[_KEY_CRC]), (data[cut:], section[_TEXT_CRC])):
        _check(store, spill, part, crc)
    return data[:cut], data[cut:]


def _read(store: Store, spill: Spill, section: npt.NDArray[np.int64]) -> pa.Table:
    keys, texts = _read_section(store, spill, section)
    table = pa.ipc.open_stream(pa.py_buffer(texts)).read_all()
    texts_of_row = table.num_columns
    columns = dict(zip(KEY_COLUMNS, _keys(keys), strict=True))
    for name in (*KEY_COLUMNS[1:], KEY_COLUMN):
        table = table.append_column(pa.field(name, pa.uint64(), nullable=False), pa.array(columns[name]))
    return table.select([*column_names(texts_of_row - 2), KEY_COLUMN])


def _keys(data: memoryview) -> npt.NDArray[np.uint64]:
    return np.frombuffer(data, dtype="<u8").astype(np.uint64, copy=False).reshape(len(KEY_COLUMNS), -1)


def _check(store: Store, spill: Spill, data: memoryview, crc: np.int64) -> None:
    if crc32(data) != crc:
        raise StorageError(
            f"{store.uri}/{spill.key}: an intermediate object is damaged",
            remedy="run the same command again: it makes this part again and keeps the other parts",
        )
