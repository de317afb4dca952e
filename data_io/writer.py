"""Rows in, immutable Parquet shards and a manifest out. The same rows give the same bytes and the same names."""

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data_io.errors import DataError
from data_io.evaluation_sets import RetrievalSet, StsSet, save_evaluation
from data_io.keyed_hash import mix, permutation
from data_io.manifest import Manifest, RowGroups, Shard, SourceData, SourceEntry, SourceInfo, save_manifest
from data_io.schema import columns, text_columns, text_hash
from data_io.storage import Store

ROWS_PER_GROUP = 256
GROUPS_PER_SHARD = 64
MAX_TEXT_BYTES = 4 * 2**20
"""Longer texts are refused: 256 of them would not fit a string column, and no model reads that far."""

_ROW_ORDER, _NEGATIVE_ORDER = 1, 2


@dataclass(frozen=True, slots=True)
class Row:
    """One example. `negatives` are hardest first; `place` is where it came from, for messages."""

    query: str
    positive: str
    negatives: Sequence[str] = ()
    place: str = ""


class SourceWriter:
    """Collects and checks the rows of one source; `finish` writes its shards. Holds the source's texts in memory."""

    def __init__(
        self,
        store: Store,
        info: SourceInfo,
        *,
        rows_per_group: int = ROWS_PER_GROUP,
        groups_per_shard: int = GROUPS_PER_SHARD,
        seed: int = 0,
    ) -> None:
        self._store = store
        self._info = info
        self._rows_per_group = rows_per_group
        self._rows_per_shard = rows_per_group * groups_per_shard
        self._seed = seed
        self._texts: list[list[str]] = [[] for _ in text_columns(info.negatives)]
        self._hashes: list[tuple[int, int]] = []
        self._keys: list[int] = []
        self._seen: Counter[tuple[int, int]] = Counter()

    def add(self, row: Row) -> None:
        """Take one row; negatives beyond the source's number are left out. Raises DataError with the row's place."""
        place = row.place or f"source {self._info.name!r}, row {len(self._keys)}"
        check_row(row, self._info.negatives, place)
        hashes = text_hash(row.query), text_hash(row.positive)
        # The occurrence keeps rows with the same texts from lying side by side.
        key = mix(self._seed, _ROW_ORDER, *hashes, self._seen[hashes])
        self._seen[hashes] += 1
        self._keys.append(key)
        self._hashes.append(hashes)
        order = permutation(mix(key, _NEGATIVE_ORDER), self._info.negatives)
        for column, text in zip(
            self._texts, (row.query, row.positive, *(row.negatives[i] for i in order)), strict=True
        ):
            column.append(text)

    def finish(self) -> SourceData:
        """Shuffle by keyed hashes and write every shard. Raises DataError for a source without rows."""
        if not self._keys:
            raise DataError(
                f"source {self._info.name!r} has no rows", remedy="leave it out, or look at the files it is made of"
            )
        order = np.argsort(np.array(self._keys, dtype=np.uint64), kind="stable")
        shards, parts = [], []
        for number, first in enumerate(range(0, len(order), self._rows_per_shard)):
            shard, part = self._write_shard(number, order[first : first + self._rows_per_shard])
            shards.append(shard)
            parts.append(part)
        entry = SourceEntry(**self._info.model_dump(include=set(SourceInfo.model_fields)), rows=len(order))
        return SourceData(entry=entry, shards=tuple(shards), row_groups=_concatenate(parts))

    def _write_shard(self, number: int, rows: npt.NDArray[np.int64]) -> tuple[Shard, RowGroups]:
        schema = columns(self._info.negatives)
        arrays = [pa.array([column[i] for i in rows], pa.string()) for column in self._texts]
        hashes = np.array([self._hashes[i] for i in rows], dtype=np.uint64)
        arrays += [pa.array(hashes[:, 0]), pa.array(hashes[:, 1])]
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, schema, **_PARQUET) as out:
            out.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=self._rows_per_group)
        data = sink.getvalue().to_pybytes()
        sha256 = hashlib.sha256(data).hexdigest()
        key = f"sources/{self._info.name}/{number:05d}-{sha256[:12]}.parquet"
        etag = self._store.put_immutable(key, data)
        return Shard(key, len(data), len(rows), etag, sha256), _describe(data, number, key)


_PARQUET = {
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": False,
    "write_statistics": False,
    "write_page_checksum": True,
    "data_page_version": "1.0",
    "store_schema": False,
}


def write_source(
    store: Store,
    info: SourceInfo,
    rows: Iterable[Row],
    *,
    rows_per_group: int = ROWS_PER_GROUP,
    groups_per_shard: int = GROUPS_PER_SHARD,
    seed: int = 0,
) -> SourceData:
    """Write one source under sources/<name>/. Raises DataError at the first row that is not valid."""
    writer = SourceWriter(store, info, rows_per_group=rows_per_group, groups_per_shard=groups_per_shard, seed=seed)
    for row in rows:
        writer.add(row)
    return writer.finish()


def write_dataset(
    store: Store,
    sources: Iterable[tuple[SourceInfo, Iterable[Row]]],
    evaluations: Iterable[RetrievalSet | StsSet] = (),
    *,
    rows_per_group: int = ROWS_PER_GROUP,
    groups_per_shard: int = GROUPS_PER_SHARD,
    seed: int = 0,
) -> Manifest:
    """Write the sources one by one, the evaluation sets, then the manifest: a data set exists when that does."""
    written = [
        write_source(store, info, rows, rows_per_group=rows_per_group, groups_per_shard=groups_per_shard, seed=seed)
        for info, rows in sources
    ]
    manifest = Manifest(written, [save_evaluation(store, evaluation) for evaluation in evaluations])
    save_manifest(store, manifest)
    return manifest


def check_row(row: Row, negatives: int, place: str) -> None:
    """Raises DataError, with the row's place, for a row that cannot be trained on."""
    if len(row.negatives) < negatives:
        raise DataError(
            f"{place}: has {len(row.negatives)} hard negatives, the source needs {negatives}",
            remedy=f"give the row more negatives, or set the source's negatives to {len(row.negatives)}",
        )
    _check_text(row.query, "query", place)
    _check_text(row.positive, "positive", place)
    for number, text in enumerate(row.negatives[:negatives], start=1):
        _check_text(text, f"negative {number}", place)
        if text == row.positive:
            raise DataError(
                f"{place}: negative {number} is the same text as the positive", remedy="remove that negative"
            )


def _check_text(text: object, what: str, place: str) -> None:
    if text is None:
        raise DataError(f"{place}: {what} is null", remedy="remove the row or fill the field")
    if not isinstance(text, str):
        raise DataError(f"{place}: {what} is {type(text).__name__}, not text", remedy="convert the field to text")
    if not text.strip():
        raise DataError(f"{place}: {what} is blank", remedy="remove the row or fill the field")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        found = f"lone surrogate U+{ord(text[error.start]):04X} at character {error.start}"
        raise DataError(
            f"{place}: {what} is not valid Unicode: {found}",
            remedy="repair the text where it was decoded",
        ) from error
    if size > MAX_TEXT_BYTES:
        raise DataError(f"{place}: {what} has {size} bytes, at most {MAX_TEXT_BYTES} are stored", remedy="cut the text")


def _describe(data: bytes, number: int, key: str) -> RowGroups:
    """Where the column chunks of a Parquet file are, from its own footer."""
    footer = pq.read_metadata(pa.BufferReader(data))
    groups, width = footer.num_row_groups, footer.num_columns
    chunk_bytes = np.empty((groups, width), dtype=np.int32)
    chunk_crc = np.empty((groups, width), dtype=np.uint32)
    offset = np.empty(groups, dtype=np.int64)
    view = memoryview(data)
    for g in range(groups):
        group = footer.row_group(g)
        offset[g] = at = group.column(0).data_page_offset
        for c in range(width):
            chunk = group.column(c)
            # The reader describes chunks to pyarrow by its own footer and must not describe them wrongly.
            assert chunk.data_page_offset == at, f"{key}: column chunks are not contiguous"
            assert set(chunk.encodings) <= {"PLAIN", "RLE"}, f"{key}: encodings {chunk.encodings}"
            assert chunk.compression == "ZSTD", f"{key}: compression {chunk.compression}"
            size = chunk.total_compressed_size
            chunk_bytes[g, c] = size
            chunk_crc[g, c] = zlib.crc32(view[at : at + size])
            at += size
    rows = np.array([footer.row_group(g).num_rows for g in range(groups)], dtype=np.int32)
    return RowGroups(np.full(groups, number, dtype=np.int32), rows, offset, chunk_bytes, chunk_crc)


def _concatenate(parts: Sequence[RowGroups]) -> RowGroups:
    return RowGroups(
        shard=np.concatenate([part.shard for part in parts]),
        rows=np.concatenate([part.rows for part in parts]),
        offset=np.concatenate([part.offset for part in parts]),
        chunk_bytes=np.concatenate([part.chunk_bytes for part in parts]),
        chunk_crc=np.concatenate([part.chunk_crc for part in parts]),
    )
