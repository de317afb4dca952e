"""F2LLM-shaped data, generated once: three retrieval sources with 60, 30 and 10% of the rows and 24 hard negatives.

Word frequencies follow Zipf's law. Queries have about 100 characters, documents about 795. Positives and negatives are
drawn from a pool of five documents per row, because real hard negatives are shared by queries.
"""

from collections.abc import Iterator
from time import perf_counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_io.dataset.manifest import Manifest, RowGroups, SourceData, SourceEntry, SourceInfo, save_manifest
from data_io.dataset.shards import GROUPS_PER_SHARD, ROWS_PER_GROUP
from data_io.dataset.writer import Row, write_source
from data_io.storage.store import Store
from data_io.task import Kind

VERSION = 4
"""Increased when other rows are generated."""
SOURCES = {"large": 0.6, "middle": 0.3, "small": 0.1}
NEGATIVES = 24
DOCUMENTS_PER_ROW = 5
QUERY_WORDS, DOCUMENT_WORDS = (9, 19), (80, 141)  # fewest, most
_SLICE_ROWS = ROWS_PER_GROUP * GROUPS_PER_SHARD


def write_rows(store: Store, rows: int) -> Manifest:
    """Write the data set in slices of one shard: only the texts of one shard are in memory."""
    began = perf_counter()
    words = _Words()
    written = []
    for number, (name, share) in enumerate(SOURCES.items()):
        info = SourceInfo(name=name, kind=Kind.RETRIEVAL, negatives=NEGATIVES)
        total = round(rows * share)
        parts = []
        for first in range(0, total, _SLICE_ROWS):
            count = min(_SLICE_ROWS, total - first)
            parts.append(write_source(store, info, _rows(words, np.random.default_rng([number, first]), count)))
            print(f"generating: source {name}, {first + count:,} of {total:,} rows, {perf_counter() - began:.0f} s")
        written.append(_joined(info, parts))
    manifest = Manifest(written)
    save_manifest(store, manifest)
    return manifest


class _Words:
    """A vocabulary, and texts with words drawn with frequency 1 / rank."""

    def __init__(self, size: int = 50_000) -> None:
        random = np.random.default_rng(0)
        lengths = random.integers(2, 11, size)
        self._letters = random.choice(np.frombuffer(b"etaoinshrdlucmfwypvbgkqjxz", np.uint8), int(lengths.sum()))
        self._starts = np.cumsum(lengths) - lengths
        self._lengths = lengths
        shares = 1 / np.arange(1, size + 1)
        # Inverse of the cumulative distribution on a grid: a draw is one lookup.
        self._inverse = np.searchsorted(np.cumsum(shares / shares.sum()), np.arange(2**20) / 2**20)

    def texts(self, random: np.random.Generator, count: int, words: tuple[int, int]) -> pa.StringArray:
        words_N = random.integers(words[0], words[1] + 1, count)
        chosen = self._inverse[random.integers(0, 2**20, int(words_N.sum()), dtype=np.int32)]
        sizes = self._lengths[chosen] + 1  # the space after it
        ends = np.cumsum(sizes)
        places = np.arange(int(ends[-1])) - np.repeat(ends - sizes - self._starts[chosen], sizes)
        letters = self._letters[np.minimum(places, len(self._letters) - 1)]
        letters[ends - 1] = ord(" ")
        offsets = np.concatenate([[0], ends[np.cumsum(words_N) - 1]]).astype(np.int32)
        return pa.StringArray.from_buffers(count, pa.py_buffer(offsets.tobytes()), pa.py_buffer(letters.tobytes()))


def _rows(words: _Words, random: np.random.Generator, count: int) -> Iterator[Row]:
    queries = words.texts(random, count, QUERY_WORDS).to_pylist()
    documents = words.texts(random, count * DOCUMENTS_PER_ROW, DOCUMENT_WORDS).to_pylist()
    for query, chosen in zip(queries, _distinct(random, count, len(documents)), strict=True):
        positive, *negatives = [documents[i] for i in chosen]
        yield Row(query, positive, negatives)


def _distinct(random: np.random.Generator, count: int, documents: int) -> npt.NDArray[np.int64]:
    """[count, 1 + NEGATIVES] numbers below `documents`, distinct within a row."""
    first = random.integers(0, documents, (count, 1))
    strides = random.integers(1, documents // (1 + NEGATIVES), (count, 1))
    return (first + strides * np.arange(1 + NEGATIVES)) % documents


def _joined(info: SourceInfo, parts: list[SourceData]) -> SourceData:
    groups = [part.row_groups for part in parts]
    shard, before = [], 0
    for part in parts:
        shard.append(part.row_groups.shard + np.int32(before))
        before += len(part.shards)
    return SourceData(
        entry=SourceEntry(**info.model_dump(), rows=sum(part.entry.rows for part in parts)),
        shards=tuple(found for part in parts for found in part.shards),
        row_groups=RowGroups(
            shard=np.concatenate(shard),
            rows=np.concatenate([g.rows for g in groups]),
            offset=np.concatenate([g.offset for g in groups]),
            chunk_bytes=np.concatenate([g.chunk_bytes for g in groups]),
            chunk_crc=np.concatenate([g.chunk_crc for g in groups]),
        ),
    )
