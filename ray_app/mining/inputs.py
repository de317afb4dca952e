"""The texts and rows of a source, sorted by the keys of texts, in bounded memory.

The rows of a data set and the texts of a corpus are shuffled. An external sort finds repeated texts and all rows of one
query. Each task reads a range of the input and writes sorted runs: documents by the key of the text, and rows by the
key of the query. Later tasks read one range of keys of all runs, which fits in memory. Keys are computed by
`data_io.dataset.schema.text_key`: texts that differ only in case and white space are the same text, and the smallest of
them is kept.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import pyarrow as pa

from data_io.dataset.manifest import Manifest, load_manifest
from data_io.dataset.reader import Reader
from data_io.dataset.rows import NO_NEGATIVE, check_text
from data_io.dataset.schema import text_columns, text_key
from data_io.errors import DataError
from data_io.storage.chunk_files import Chunk, Mark, PartRef, table_chunks, write_mark, write_part
from data_io.storage.store import Store
from data_io.user_files.columns import text_column
from data_io.user_files.records import (
    RawFile,
    find_files,
    find_text_files,
    is_text_file_name,
    read_records,
    read_text_lines,
)

DOCUMENTS = pa.schema({"key": pa.uint64(), "text": pa.large_string()})
ROWS = pa.schema(
    {
        "key": pa.uint64(),
        "number": pa.int64(),
        "query": pa.large_string(),
        "positive": pa.large_string(),
        "negatives": pa.list_(pa.large_string()),
    }
)
_COMPRESSION_RATIO = 4
"""Approximate ratio of zstd on text. Ranges are planned by the stored sizes in the manifest."""


@dataclass(frozen=True)
class SourceRow:
    """One row of a retrieval source. `number` is its position in the source."""

    key: int
    number: int
    query: str
    positive: str
    negatives: tuple[str, ...]


@dataclass(frozen=True)
class RowRange:
    """Row groups of a source, `first_group` <= group < `end_group`, or one corpus file. One task reads it."""

    key: str
    """Name of the task in the work directory, and prefix of its runs."""
    data: Store
    source: str
    first_group: int = 0
    end_group: int = 0
    corpus: RawFile | None = None


def plan_scan(
    data: Store, manifest: Manifest, source: str, corpus: Sequence[RawFile], *, run_bytes: int
) -> list[RowRange]:
    """Ranges of a source with about `run_bytes` bytes of texts each, in stored order, then its corpus files."""
    stored = manifest.row_groups(source).chunk_bytes.sum(axis=1, dtype="int64") * _COMPRESSION_RATIO
    bounds, size = [0], 0
    for group, group_bytes in enumerate(stored.tolist()):
        if size and size + group_bytes > run_bytes:
            bounds.append(group)
            size = 0
        size += group_bytes
    bounds.append(len(stored))
    ranges = [
        RowRange(f"{source}/scan-{number:05d}", data, source, first, end)
        for number, (first, end) in enumerate(pairwise(bounds))
    ]
    return ranges + [
        RowRange(f"{source}/scan-corpus-{number:05d}", data, source, corpus=file) for number, file in enumerate(corpus)
    ]


def scan(row_range: RowRange, work: Store, *, run_bytes: int, chunk_bytes: int) -> Mark:
    """Read a range and write its sorted runs. Memory holds about `run_bytes` bytes of texts, plus one row group or
    record.

    Raises DataError for an invalid corpus text, with its file and line, and for a damaged data set.
    """
    runs = _Runs(work, row_range.key, run_bytes, chunk_bytes)
    if row_range.corpus is not None:
        for text in corpus_texts(row_range.corpus):
            runs.add_document(text)
    else:
        for row in source_rows(row_range.data, row_range.source, row_range.first_group, row_range.end_group):
            runs.add_document(row.positive)
            for negative in row.negatives:
                runs.add_document(negative)
            runs.add_row(row)
    return runs.finish()


def source_rows(data: Store, source: str, first_group: int, end_group: int) -> Iterator[SourceRow]:
    """Rows of the row groups `first_group` <= group < `end_group`, in stored order."""
    manifest = _manifest(data)
    reader = Reader(data, manifest)
    groups = manifest.row_groups(source)
    columns = text_columns(manifest.source(source).negatives)
    number = int(groups.rows[:first_group].sum(dtype="int64"))
    for group in range(first_group, end_group):
        table = reader.read(source, group, columns)
        for query, positive, *negatives in zip(*(table.column(name).to_pylist() for name in columns), strict=True):
            own = tuple(text for text in negatives if text != NO_NEGATIVE)
            yield SourceRow(text_key(query), number, query, positive, own)
            number += 1


def find_corpus(address: str) -> list[RawFile]:
    """Files of texts: plain text (one text per line), JSON lines, CSV, TSV or Parquet; a file, a directory or a glob.

    Raises DataError if no file is found, or if the text column of a file cannot be detected.
    """
    if is_text_file_name(address):
        return find_text_files(address, remedy="give the path of a file of texts")
    files = find_files(address)
    for file in files:
        text_column(file)
    return files


def corpus_texts(file: RawFile) -> Iterator[str]:
    """Texts of a file. Blank lines of plain text are skipped. Raises DataError, with the place, for an invalid text."""
    if file.format == "txt":
        for place, line in read_text_lines(file):
            if line:
                check_text(line, "the text", place)
                yield line
        return
    column = text_column(file)
    for place, record in read_records(file, (column,)):
        if column not in record:
            raise DataError(
                f"{place}: the field {column!r} is missing; the row has {', '.join(record) or 'no fields'}",
                remedy="add the field or remove the row",
            )
        check_text(record[column], repr(column), place)
        yield record[column]


def merge_documents(tables: Iterable[pa.Table], first: int, last: int) -> pa.Table:
    """Documents of sorted runs with keys from `first` to `last`, in ascending order: each key once, with its smallest
    text.
    """
    smallest: dict[int, str] = {}
    for table in tables:
        for key, text in zip(table.column("key").to_pylist(), table.column("text").to_pylist(), strict=True):
            if first <= key <= last and (key not in smallest or text < smallest[key]):
                smallest[key] = text
    keys = sorted(smallest)
    return pa.table([keys, [smallest[key] for key in keys]], schema=DOCUMENTS)


def merge_rows(tables: Iterable[pa.Table], first: int, last: int) -> list[SourceRow]:
    """Rows of sorted runs with query keys from `first` to `last`, by key and then by their position in the source."""
    rows = [
        SourceRow(**record | {"negatives": tuple(record["negatives"])})
        for table in tables
        for record in table.to_pylist()
        if first <= record["key"] <= last
    ]
    return sorted(rows, key=lambda row: (row.key, row.number))


class _Runs:
    """Collects documents and rows, and writes a pair of sorted runs after about `run_bytes` bytes of texts."""

    def __init__(self, work: Store, key: str, run_bytes: int, chunk_bytes: int) -> None:
        self._work = work
        self._key = key
        self._run_bytes = run_bytes
        self._chunk_bytes = chunk_bytes
        self._parts: list[PartRef] = []
        self._counts = dict.fromkeys(("documents", "document_bytes", "rows", "row_bytes"), 0)
        self._clear()

    def add_document(self, text: str) -> None:
        key = text_key(text)
        known = self._documents.get(key)
        if known is None or text < known:
            self._documents[key] = text
        if known is None:
            self._bytes += len(text)
        self._flush_if_full()

    def add_row(self, row: SourceRow) -> None:
        self._rows.append(row)
        size = len(row.query) + len(row.positive) + sum(map(len, row.negatives))
        self._bytes += size
        self._counts["row_bytes"] += size
        self._flush_if_full()

    def finish(self) -> Mark:
        self._flush()
        return write_mark(self._work, self._key, Mark(parts=tuple(self._parts), counts=self._counts))

    def _flush_if_full(self) -> None:
        if self._bytes >= self._run_bytes:
            self._flush()

    def _flush(self) -> None:
        keys = sorted(self._documents)
        documents = pa.table([keys, [self._documents[key] for key in keys]], schema=DOCUMENTS)
        ordered = sorted(self._rows, key=lambda row: (row.key, row.number))
        rows = pa.Table.from_pylist(
            [
                {"key": r.key, "number": r.number, "query": r.query, "positive": r.positive, "negatives": r.negatives}
                for r in ordered
            ],
            schema=ROWS,
        )
        chunks: list[Chunk] = table_chunks("documents", documents, chunk_bytes=self._chunk_bytes)
        chunks += table_chunks("rows", rows, chunk_bytes=self._chunk_bytes)
        if chunks:
            key = f"{self._key}-run-{len(self._parts):05d}"
            self._parts.append(write_part(self._work, key, chunks))
        self._counts["documents"] += len(keys)
        self._counts["document_bytes"] += sum(len(text) for text in self._documents.values())
        self._counts["rows"] += len(ordered)
        self._clear()

    def _clear(self) -> None:
        self._documents: dict[int, str] = {}
        self._rows: list[SourceRow] = []
        self._bytes = 0


# The tasks of a worker share one data set. Its manifest is read once per process.
_manifest: Callable[[Store], Manifest] = lru_cache(maxsize=2)(load_manifest)
