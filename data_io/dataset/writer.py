"""Rows in, immutable Parquet shards and a manifest out. The same rows, in any order, give the same bytes and names."""

from collections.abc import Iterable
from contextlib import ExitStack
from tempfile import TemporaryDirectory

import pyarrow as pa

from data_io.dataset.evaluation_sets import RetrievalSet, StsSet, save_evaluation
from data_io.dataset.manifest import Manifest, SourceData, SourceInfo, save_manifest
from data_io.dataset.rows import MAX_TEXT_BYTES, Row, RowBuffer, check_row, sort_unique
from data_io.dataset.shards import GROUPS_PER_SHARD, ROWS_PER_GROUP, ShardSize, source_data, write_shards
from data_io.dataset.spill import MEMORY_BYTES, SpillWriter, run_bytes, sorted_buckets
from data_io.errors import DataError
from data_io.storage.store import Store, open_store

__all__ = ["MAX_TEXT_BYTES", "Row", "check_row", "write_dataset", "write_source"]

_BUCKETS = 256
"""Buckets if the size of a source is not known in advance: suitable for up to 8 GB of texts."""


def write_source(
    store: Store,
    info: SourceInfo,
    rows: Iterable[Row],
    *,
    rows_per_group: int = ROWS_PER_GROUP,
    groups_per_shard: int = GROUPS_PER_SHARD,
    seed: int = 0,
    memory_bytes: int = MEMORY_BYTES,
    removed: dict[str, int] | None = None,
) -> SourceData:
    """Write one source under sources/<name>/.

    Of rows with equal query and positive the first is kept, even if the negatives differ; `removed` gets the number of
    rows left out. Rows beyond `memory_bytes` are written to a temporary directory on this machine. Raises DataError at
    the first invalid row, and for a source without rows.
    """
    size = ShardSize(rows_per_group, groups_per_shard)
    buffer, spill = RowBuffer(info, seed=seed), None
    count = 0
    with ExitStack() as stack:
        for row in rows:
            count += 1
            if spill is not None:
                spill.add(row)
                continue
            buffer.add(row)
            if buffer.bytes >= run_bytes(memory_bytes):
                folder = open_store(stack.enter_context(TemporaryDirectory(prefix="f2llm-")))
                writing = stack.enter_context(ExitStack())
                out = writing.enter_context(folder.open_writer("spill"))
                spill = SpillWriter(out, info, buckets=_BUCKETS, memory_bytes=memory_bytes, seed=seed)
                spill.flush(buffer.take())
        if not count:
            raise DataError(f"source {info.name!r} has no rows", remedy="leave it out, or check its files")
        tables: Iterable[pa.Table] = [sort_unique(buffer.take())]
        if spill is not None:
            spilled = spill.finish("spill")
            writing.close()
            tables = sorted_buckets(folder, [spilled], range(_BUCKETS))
        written = source_data(info, list(write_shards(store, info.name, tables, size)))
    if removed is not None:
        removed[info.name] = count - written.entry.rows
    return written


def write_dataset(
    store: Store,
    sources: Iterable[tuple[SourceInfo, Iterable[Row]]],
    evaluations: Iterable[RetrievalSet | StsSet] = (),
    *,
    rows_per_group: int = ROWS_PER_GROUP,
    groups_per_shard: int = GROUPS_PER_SHARD,
    seed: int = 0,
    memory_bytes: int = MEMORY_BYTES,
    removed: dict[str, int] | None = None,
) -> Manifest:
    """Write the sources one by one, the evaluation sets, then the manifest. The manifest makes the data set exist.

    `removed` gets the number of repeated rows that were left out of each source.
    """
    written = [
        write_source(
            store, info, rows, rows_per_group=rows_per_group, groups_per_shard=groups_per_shard, seed=seed,
            memory_bytes=memory_bytes, removed=removed,
        )
        for info, rows in sources
    ]  # fmt: skip
    return publish(store, written, evaluations)


def publish(store: Store, written: list[SourceData], evaluations: Iterable[RetrievalSet | StsSet]) -> Manifest:
    """Write the evaluation sets, then the manifest. All shards of the sources must already be written."""
    manifest = Manifest(written, [save_evaluation(store, evaluation) for evaluation in evaluations])
    save_manifest(store, manifest)
    return manifest
