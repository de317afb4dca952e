"""Objects that tasks of a job write for other tasks: chunks with checksums, and a mark that is written last.

A task is finished when its mark exists. The mark lists the task's objects with their sizes, and every chunk in them
with its range of keys, its position and its CRC-32. A reader fetches only the chunks of a range of keys and detects
damaged bytes. A task that runs twice writes the same bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from zlib_ng.zlib_ng import crc32

from data_io.errors import DataError, NotFoundInStore
from data_io.storage.errors import ObjectTooShort
from data_io.storage.ranged_reads import split_runs
from data_io.storage.store import BULK_BYTES, Store

KEYS = 2**64
"""Keys are 64-bit hashes of texts, evenly distributed: a range of keys is a share of the texts."""
_MARK = ".json"


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ChunkRef(_Stored):
    """A chunk in an object: its name, first and last key, rows, position in bytes and CRC-32."""

    name: str
    first: int = 0
    last: int = KEYS - 1
    rows: int
    offset: int
    size: int
    crc: int


class PartRef(_Stored):
    """One object of a task. For each name, keys increase from chunk to chunk."""

    key: str
    size: int
    chunks: tuple[ChunkRef, ...]


class Mark(_Stored):
    """The result of a finished task: its objects and its counts."""

    parts: tuple[PartRef, ...] = ()
    counts: dict[str, int] = Field(default_factory=dict)
    histograms: dict[str, list[int]] = Field(default_factory=dict)
    samples: tuple[dict[str, object], ...] = ()


@dataclass(frozen=True)
class Chunk:
    """A chunk before it is written."""

    name: str
    data: bytes
    rows: int
    first: int = 0
    last: int = KEYS - 1


@dataclass(frozen=True)
class Fetch:
    """A span of one object that contains only wanted chunks."""

    key: str
    chunks: tuple[ChunkRef, ...]


def key_range(index: int, count: int) -> tuple[int, int]:
    """First and last key of the `index`-th of `count` equal shares of all keys."""
    return index * KEYS // count, (index + 1) * KEYS // count - 1


def mark_key(task: str) -> str:
    """Key of the mark of the task with this name."""
    return f"{task}{_MARK}"


def write_part(store: Store, key: str, chunks: Sequence[Chunk]) -> PartRef:
    """Write one object of a task with its chunks in this order."""
    refs, offset = [], 0
    for chunk in chunks:
        refs.append(
            ChunkRef(
                name=chunk.name, first=chunk.first, last=chunk.last, rows=chunk.rows, offset=offset,
                size=len(chunk.data), crc=crc32(chunk.data),
            )
        )  # fmt: skip
        offset += len(chunk.data)
    store.put(key, b"".join(chunk.data for chunk in chunks))
    return PartRef(key=key, size=offset, chunks=tuple(refs))


def write_mark(store: Store, task: str, mark: Mark) -> Mark:
    """Mark a task as finished and return the mark. All its objects must exist."""
    store.put(mark_key(task), mark.model_dump_json().encode())
    return mark


def read_mark(store: Store, task: str) -> Mark | None:
    """The mark of a finished task. None if there is none or it cannot be read."""
    try:
        return Mark.model_validate_json(store.get(mark_key(task), most=BULK_BYTES))
    except (NotFoundInStore, ValidationError):
        return None


def finished(store: Store, folder: str) -> dict[str, Mark]:
    """Marks by task name under `folder`, of tasks whose objects all exist with the right sizes.

    Takes one listing, and one GET per mark.
    """
    listed = {info.key: info.size for info in store.list(folder)}
    done = {}
    for key in listed:
        if PurePosixPath(key).suffix != _MARK:
            continue
        task = key.removesuffix(_MARK)
        mark = read_mark(store, task)
        if mark is not None and all(listed.get(part.key) == part.size for part in mark.parts):
            done[task] = mark
    return done


def fetches(marks: Iterable[Mark], name: str, first: int = 0, last: int = KEYS - 1) -> list[Fetch]:
    """The spans to read for all chunks called `name` with a key from `first` to `last`."""
    found = []
    for mark in marks:
        for part in mark.parts:
            chunks = tuple(c for c in part.chunks if c.name == name and c.first <= last and c.last >= first)
            if chunks:
                found.append(Fetch(part.key, chunks))
    return found


def read_chunks(store: Store, wanted: Iterable[Fetch]) -> Iterator[memoryview]:
    """The bytes of each chunk, with one GET for neighbors. Raises DataError for a missing or damaged object."""
    for fetch in wanted:
        for run in _neighbors(fetch.chunks):
            start = run[0].offset
            length = run[-1].offset + run[-1].size - start
            if length == 0:
                continue
            try:
                data = store.get_range(fetch.key, start, length).data
            except (NotFoundInStore, ObjectTooShort) as error:
                raise _damaged(store, fetch.key, "missing or truncated") from error
            for chunk in run:
                view = data[chunk.offset - start : chunk.offset - start + chunk.size]
                if crc32(view) != chunk.crc:
                    raise _damaged(store, fetch.key, f"damaged: chunk {chunk.name!r} has another checksum")
                yield view


def read_tables(store: Store, wanted: Iterable[Fetch]) -> Iterator[pa.Table]:
    """The tables of chunks made by `table_chunks`. Raises DataError like `read_chunks`."""
    for data in read_chunks(store, wanted):
        yield pa.ipc.open_stream(pa.py_buffer(data)).read_all()


def table_chunks(name: str, table: pa.Table, *, chunk_bytes: int, key_column: str | None = "key") -> list[Chunk]:
    """A table as chunks of about `chunk_bytes` before compression. Its key column is increasing; None: no keys."""
    if table.num_rows == 0:
        return []
    step = max(1, min(table.num_rows, chunk_bytes * table.num_rows // max(1, table.nbytes)))
    chunks = []
    for start in range(0, table.num_rows, step):
        part = table.slice(start, step)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, part.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as out:
            out.write_table(part)
        spans = {}
        if key_column is not None:
            keys = part.column(key_column)
            spans = {"first": keys[0].as_py(), "last": keys[-1].as_py()}
        chunks.append(Chunk(name, sink.getvalue().to_pybytes(), part.num_rows, **spans))
    return chunks


def array_chunk(name: str, values: npt.NDArray[np.generic]) -> Chunk:
    """An array [N, ...] as one chunk of N rows, little-endian."""
    plain = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    return Chunk(name, plain.tobytes(), len(values))


def _neighbors(chunks: Sequence[ChunkRef]) -> list[list[ChunkRef]]:
    return split_runs(chunks, lambda run, chunk: run[-1].offset + run[-1].size == chunk.offset)


def _damaged(store: Store, key: str, found: str) -> DataError:
    return DataError(
        f"{store.uri.rstrip('/')}/{key}, a work file of mining, is {found}",
        remedy="remove it and run the same command again: it writes the missing files",
    )
