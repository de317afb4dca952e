"""Sorted rows as immutable Parquet shards: the same rows give the same bytes, in whatever tables they arrive."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from zlib_ng.zlib_ng import crc32

from data_io.dataset.manifest import RowGroups, Shard, SourceData, SourceEntry, SourceInfo
from data_io.storage.store import Store

ROWS_PER_GROUP = 256
GROUPS_PER_SHARD = 64


@dataclass(frozen=True)
class ShardSize:
    """Rows per row group and row groups per shard. The last row group and the last shard may be smaller."""

    rows_per_group: int = ROWS_PER_GROUP
    groups_per_shard: int = GROUPS_PER_SHARD

    @property
    def rows(self) -> int:
        return self.rows_per_group * self.groups_per_shard


@dataclass(frozen=True, eq=False)
class WrittenShard:
    """A shard and the positions of its row groups."""

    shard: Shard
    row_groups: RowGroups


_PARQUET = {
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": False,
    "write_statistics": False,
    "write_page_checksum": True,
    "data_page_version": "1.0",
    "store_schema": False,
}


def write_shards(
    store: Store, source: str, tables: Iterable[pa.Table], size: ShardSize, *, first_number: int = 0
) -> Iterator[WrittenShard]:
    """Write rows of `data_io.dataset.schema.columns` as they arrive. Holds one table and one encoded shard."""
    groups = _regrouped(tables, size.rows_per_group)
    number = first_number
    while (first := next(groups, None)) is not None:
        yield _write_shard(store, source, number, chain([first], islice(groups, size.groups_per_shard - 1)))
        number += 1


def find_shard(store: Store, shard: Shard, number: int) -> WrittenShard | None:
    """A shard that was written earlier. None if it is missing, damaged or was replaced."""
    found = store.head(shard.key)
    if found is None or (found.size, found.etag) != (shard.size, shard.etag):
        return None
    data = store.get(shard.key, most=shard.size)
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        return None
    return WrittenShard(shard, _describe(data, number, shard.key))


def source_data(info: SourceInfo, written: Sequence[WrittenShard]) -> SourceData:
    """A source whose shards are all written, in order."""
    rows = sum(each.shard.rows for each in written)
    entry = SourceEntry(**info.model_dump(include=set(SourceInfo.model_fields)), rows=rows)
    parts = [each.row_groups for each in written]
    groups = RowGroups(
        shard=np.concatenate([part.shard for part in parts]),
        rows=np.concatenate([part.rows for part in parts]),
        offset=np.concatenate([part.offset for part in parts]),
        chunk_bytes=np.concatenate([part.chunk_bytes for part in parts]),
        chunk_crc=np.concatenate([part.chunk_crc for part in parts]),
    )
    return SourceData(entry=entry, shards=tuple(each.shard for each in written), row_groups=groups)


def _regrouped(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows` rows; the last table may be shorter."""
    rest: pa.Table | None = None
    for table in tables:
        together = table if rest is None else pa.concat_tables([rest, table])
        whole = together.num_rows // rows * rows
        for first in range(0, whole, rows):
            yield together.slice(first, rows).combine_chunks()
        # `take` copies; a slice would keep all rows before it in memory.
        rest = together.take(np.arange(whole, together.num_rows))
    if rest is not None and rest.num_rows:
        yield rest.combine_chunks()


def _write_shard(store: Store, source: str, number: int, groups: Iterator[pa.Table]) -> WrittenShard:
    first = next(groups)
    rows = 0
    sink = BytesIO()  # pyarrow's own sink would need one more copy of the bytes
    with pq.ParquetWriter(sink, first.schema, **_PARQUET) as out:
        for group in chain([first], groups):
            out.write_table(group, row_group_size=group.num_rows)
            rows += group.num_rows
    data = sink.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"sources/{source}/{number:05d}-{sha256[:12]}.parquet"
    etag = store.put_immutable(key, data)
    return WrittenShard(Shard(key, len(data), rows, etag, sha256), _describe(data, number, key))


def _describe(data: bytes, number: int, key: str) -> RowGroups:
    """The positions of the column chunks of a Parquet file, from its footer."""
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
            # The reader builds its own footer for these chunks, so these properties must hold.
            assert chunk.data_page_offset == at, f"{key}: column chunks are not contiguous"
            assert set(chunk.encodings) <= {"PLAIN", "RLE"}, f"{key}: encodings {chunk.encodings}"
            assert chunk.compression == "ZSTD", f"{key}: compression {chunk.compression}"
            size = chunk.total_compressed_size
            chunk_bytes[g, c] = size
            chunk_crc[g, c] = crc32(view[at : at + size])
            at += size
    rows = np.array([footer.row_group(g).num_rows for g in range(groups)], dtype=np.int32)
    return RowGroups(np.full(groups, number, dtype=np.int32), rows, offset, chunk_bytes, chunk_crc)
