"""Columns of a row group by ranged GETs alone: no listing, no HEAD, no Parquet footer; every byte is checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock, Semaphore

import numpy as np
import pyarrow as pa
from zlib_ng.zlib_ng import crc32

from data_io.dataset.manifest import Manifest, Shard
from data_io.dataset.parquet_footer import ColumnChunk, decode
from data_io.dataset.schema import HASH_COLUMNS, column_names
from data_io.errors import DataError, NotFoundInStore, ObjectChanged
from data_io.storage.errors import ObjectTooShort
from data_io.storage.node_cache import NodeCache
from data_io.storage.ranged_reads import MAX_REQUESTS, Fetcher, ReadStats, split_runs
from data_io.storage.store import Blob, Store

MERGE_GAP_BYTES = 64 * 1024
"""Wanted columns with fewer bytes than this between them are read by one GET, which is cheaper than two requests."""

_DECODERS = 2
"""Threads that decode at the same time. Many threads may wait for the store; two decode faster than a worker reads."""


class Reader:
    """Reads row groups of a data set. Any number of threads may share one reader."""

    def __init__(
        self, store: Store, manifest: Manifest, *, verify: bool = True, cache: NodeCache | None = None
    ) -> None:
        """`verify` checks each column chunk against the manifest's CRC. `cache` is tried before the store."""
        self._store = store
        self._manifest = manifest
        self._verify = verify
        self._cache = cache
        self._fetcher = Fetcher(store)
        self._etags: dict[str, str] = {}
        self._lock = Lock()
        self._decoding = Semaphore(_DECODERS)

    @property
    def parallel_reads(self) -> int:
        """Useful number of reading threads. More threads would wait for each other, not for the store."""
        return _DECODERS if self._store.is_local else MAX_REQUESTS

    @property
    def stats(self) -> ReadStats:
        """Statistics since the start, over all sources."""
        return sum(self._fetcher.stats().values(), ReadStats())

    def stats_by_source(self) -> dict[str, ReadStats]:
        """Statistics since the start, by source; only sources that were read."""
        return self._fetcher.stats()

    def close(self) -> None:
        """Abort running reads: callers that wait for an unresponsive store get its error now."""
        self._fetcher.close()

    def read(self, source: str, row_group: int, columns: Sequence[str]) -> pa.Table:
        """The given columns, in that order, of all rows of a row group, in stored order.

        Raises DataError if the shard is missing, truncated, overwritten during the read, or damaged: wrong bytes are
        fetched once more and never returned. Raises StorageError if the store is unreachable.
        """
        wanted = self._locate(source, row_group, columns)
        return self._decode(wanted, columns, self._cached(wanted) or self._checked(wanted))

    def _cached(self, wanted: "_Wanted") -> dict[int, memoryview] | None:
        """The chunks from this node's cache. They were checked before they were stored there."""
        data = self._cache and self._cache.get(wanted.content)
        if not data:
            return None
        ends = np.cumsum([wanted.size(i) for i in wanted.columns]).tolist()
        return {i: data[end - wanted.size(i) : end] for i, end in zip(wanted.columns, ends, strict=True)}

    def _checked(self, wanted: "_Wanted") -> dict[int, memoryview]:
        """The chunks from the store, checked against the checksums in the manifest."""
        chunks = self._fetch(wanted, wanted.columns)
        bad = self._damaged(wanted, chunks)
        if bad:
            # Every chunk of the same request is suspect.
            runs = [run for run in _runs(wanted.columns, wanted.spans) if not set(run).isdisjoint(bad)]
            chunks |= self._fetch(wanted, [i for run in runs for i in run], retry=True)
            bad = self._damaged(wanted, chunks)
        if bad:
            names = ", ".join(wanted.names[i] for i in bad)
            raise self._error(wanted, f"damaged: the checksum of column {names} differs from the manifest's")
        if self._cache is not None and self._verify:  # reads from the cache are not checked again
            self._cache.put(wanted.content, [chunks[i] for i in wanted.columns])
        return chunks

    def _locate(self, source: str, row_group: int, names: Sequence[str]) -> "_Wanted":
        groups = self._manifest.row_groups(source)
        shard = self._manifest.shards(source)[int(groups.shard[row_group])]
        known = column_names(self._manifest.source(source).negatives)
        sizes = groups.chunk_bytes[row_group].tolist()
        ends = (int(groups.offset[row_group]) + np.cumsum(groups.chunk_bytes[row_group], dtype=np.int64)).tolist()
        return _Wanted(
            source=source,
            row_group=row_group,
            shard=shard,
            rows=int(groups.rows[row_group]),
            columns=sorted(known.index(name) for name in names),
            names=known,
            spans=[(end - size, end) for size, end in zip(sizes, ends, strict=True)],
            crcs=groups.chunk_crc[row_group].tolist(),
        )

    def _fetch(self, wanted: "_Wanted", indices: Sequence[int], *, retry: bool = False) -> dict[int, memoryview]:
        """The chunks of columns `indices` (increasing). Neighboring columns share a GET."""
        chunks: dict[int, memoryview] = {}
        for run in _runs(indices, wanted.spans):
            start, end = wanted.spans[run[0]][0], wanted.spans[run[-1]][1]
            if retry:
                self._fetcher.count(wanted.source, ReadStats(retries=1))
            data = self._get(wanted, start, end - start).data
            for i in run:
                chunks[i] = data[wanted.spans[i][0] - start : wanted.spans[i][1] - start]
        return chunks

    def _get(self, wanted: "_Wanted", start: int, length: int) -> Blob:
        shard = wanted.shard
        pinned = self._etags.get(shard.key)
        try:
            blob = self._fetcher.get(shard.key, start, length, if_match=pinned, source=wanted.source)
        except NotFoundInStore as error:
            raise self._error(wanted, "missing") from error
        except ObjectChanged as error:
            raise self._changed(wanted) from error
        except ObjectTooShort as error:
            found = self._store.head(shard.key)
            size = "missing" if found is None else f"{found.size} bytes long"
            raise self._error(wanted, f"truncated: it is {size}, expected {shard.size} bytes") from error
        if blob.size != shard.size:
            raise self._error(
                wanted, f"not the file that was written: it is {blob.size} bytes long, expected {shard.size}"
            )
        # Pinned at the first GET, not taken from the manifest: a copied data set has other ETags.
        if blob.etag is not None:
            with self._lock:
                first = self._etags.setdefault(shard.key, blob.etag)
            if first != blob.etag:
                raise self._changed(wanted)
        return blob

    def _damaged(self, wanted: "_Wanted", chunks: dict[int, memoryview]) -> list[int]:
        return [i for i in wanted.columns if crc32(chunks[i]) != wanted.crcs[i]] if self._verify else []

    def _decode(self, wanted: "_Wanted", order: Sequence[str], chunks: dict[int, memoryview]) -> pa.Table:
        parts = [ColumnChunk(wanted.names[i], wanted.names[i] not in HASH_COLUMNS, chunks[i]) for i in wanted.columns]
        try:
            with self._decoding:
                # The CRCs of the chunks were checked, so the page checksums need no check.
                table = decode(parts, wanted.rows, check_pages=False)
        except (pa.ArrowException, OSError) as error:
            raise self._error(wanted, f"not readable as Parquet ({error})") from error
        return table.select(list(order))

    def _changed(self, wanted: "_Wanted") -> DataError:
        return self._error(wanted, "overwritten during the read")

    def _error(self, wanted: "_Wanted", found: str) -> DataError:
        shard = f"shard {wanted.shard.key} at {self._store.uri}"
        before = int(self._manifest.row_groups(wanted.source).rows[: wanted.row_group].sum(dtype=np.int64))
        rows = f"rows {before} to {before + wanted.rows - 1}"
        return DataError(
            f"source {wanted.source!r}, row group {wanted.row_group} ({rows}): {shard} is {found}",
            remedy="run `f2llm data validate` to list all problems, then copy or prepare the data set again",
        )


@dataclass(frozen=True)
class _Wanted:
    """A resolved request. `columns` (increasing) indexes names, spans (first byte, end) and crcs of the row group."""

    source: str
    row_group: int
    shard: Shard
    rows: int
    columns: list[int]
    names: list[str]
    spans: list[tuple[int, int]]
    crcs: list[int]

    @property
    def content(self) -> str:
        """A key for the wanted bytes that does not depend on the path of the data set."""
        return f"{self.shard.sha256} {self.spans} {self.columns}"

    def size(self, column: int) -> int:
        start, end = self.spans[column]
        return end - start


def _runs(indices: Sequence[int], spans: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Split increasing indices if the gap between neighbors costs more than a separate request."""
    return split_runs(indices, lambda run, i: spans[i][0] - spans[run[-1]][1] < MERGE_GAP_BYTES)
