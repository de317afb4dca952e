"""Searches an index by meaning, by words or by both, and finds texts similar to an item. Q queries, D dimensions."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from applications.index_files import BM25, MANIFEST, ROWS, VECTORS, IndexManifest, read_manifest
from applications.vectors import Vectors
from data_io.errors import ConfigError, DataError
from data_io.storage.folder_copy import local_copy
from data_io.storage.store import Store
from ray_app.evaluation.bm25 import Bm25

Method = Literal["dense", "bm25", "hybrid"]
Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Queries to vectors float32 [Q, D]. Called only if vectors are compared."""

_FUSED = 100
"""Hits of each ranking that the hybrid search uses."""
RRF_K = 60
"""The constant of the paper cited in `fuse`. The paper found that its value is not critical."""


@dataclass(frozen=True)
class Hit:
    """A text that was found. The score is a cosine (dense), a BM25 score, or a fusion score (hybrid)."""

    rank: int
    score: float
    id: str
    text: str
    columns: dict[str, Any]
    ranks: dict[str, int]
    """Its rank in each method that found it."""


@dataclass(frozen=True)
class SearchIndex:
    """An open index of N texts."""

    manifest: IndexManifest
    vectors: Vectors
    bm25: Bm25
    rows: pq.ParquetFile

    def search(self, queries: Sequence[str], encode: Encode, *, method: Method, k: int) -> Iterator[list[Hit]]:
        """At most k hits per query, best first."""
        depth = max(k, _FUSED) if method == "hybrid" else k
        dense: Iterator[dict[int, float]] = (
            self._dense(encode(queries), depth) if method != "bm25" else iter([{}] * len(queries))
        )
        words: Iterator[dict[int, float]] = (
            self._words(queries, depth) if method != "dense" else iter([{}] * len(queries))
        )
        for by_meaning, by_words in zip(dense, words, strict=True):
            if method == "hybrid":
                found = fuse([list(by_meaning), list(by_words)])[:k]
                yield self._hits(found, {"dense": by_meaning, "bm25": by_words})
            else:
                scores = by_meaning or by_words
                yield self._hits(list(scores.items()), {method: scores})

    def like(self, ids: Sequence[str], *, k: int) -> list[Hit]:
        """At most k texts whose vectors are nearest to an item, or to the mean of several items, without the items.

        Raises DataError for an id that no text has.
        """
        places = self._places(ids)
        wanted = self.vectors.at(places).mean(axis=0, keepdims=True)
        wanted /= np.linalg.norm(wanted)
        (near,) = self._dense(wanted, k + len(places))
        scores = {place: score for place, score in near.items() if place not in places}
        found = list(scores.items())[:k]
        return self._hits(found, {"dense": scores})

    def _dense(self, queries_QD: npt.NDArray[np.float32], depth: int) -> Iterator[dict[int, float]]:
        for positions, scores in zip(*self.vectors.nearest(queries_QD, depth), strict=True):
            yield {int(p): float(s) for p, s in zip(positions, scores, strict=True) if p >= 0}

    def _words(self, queries: Sequence[str], depth: int) -> Iterator[dict[int, float]]:
        for positions, scores in self.bm25.rank(queries, depth=depth):
            yield dict(zip(positions.tolist(), scores.tolist(), strict=True))

    def _places(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        known = {found: place for place, found in enumerate(self.rows.read(["id"]).column("id").to_pylist())}
        for wanted in ids:
            if wanted not in known:
                raise DataError(f"no text has the id {wanted!r}", remedy="`f2llm search --json` shows ids")
        return np.array([known[wanted] for wanted in ids], dtype=np.int64)

    def _hits(self, found: Sequence[tuple[int, float]], rankings: dict[str, dict[int, float]]) -> list[Hit]:
        ranks = {
            name: {place: rank for rank, place in enumerate(ranking, start=1)} for name, ranking in rankings.items()
        }
        rows = self._rows([place for place, _ in found])
        return [
            Hit(
                rank, score, row["id"], row["text"], row.get("columns") or {},
                {name: ranking[place] for name, ranking in ranks.items() if place in ranking},
            )
            for rank, ((place, score), row) in enumerate(zip(found, rows, strict=True), start=1)
        ]  # fmt: skip

    def _rows(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Rows at these positions. Each row group is read once."""
        sizes = [self.rows.metadata.row_group(group).num_rows for group in range(self.rows.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = np.searchsorted(ends, np.asarray(places, dtype=np.int64), side="right")
        tables = {int(group): self.rows.read_row_group(int(group)) for group in set(groups.tolist())}
        rows = []
        for place, group in zip(places, groups.tolist(), strict=True):
            (row,) = tables[group].slice(place - int(ends[group] - sizes[group]), 1).to_pylist()
            rows.append(row)
        return rows


@contextmanager
def open_index(place: Store) -> Iterator[SearchIndex]:
    """The index in a directory, open for as long as the block runs. An index in an object store is copied here first.

    Raises ConfigError if the directory has no complete index, DataError if the index is damaged.
    """
    manifest = read_manifest(place)
    if manifest is None:
        raise ConfigError(
            f"{place.uri} has no complete index: {MANIFEST} is missing", remedy="make or resume it: `f2llm index`"
        )
    with local_copy(place) as folder, _open_rows(folder / ROWS, manifest.texts) as rows:
        vectors = Vectors.load(folder / VECTORS, manifest.vectors, count=manifest.texts, dimensions=manifest.dimensions)
        yield SearchIndex(manifest, vectors, Bm25.load(folder / BM25, documents=manifest.texts), rows)


def _open_rows(path: Path, count: int) -> pq.ParquetFile:
    try:
        rows = pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file", remedy="index the texts again") from error
    if rows.metadata.num_rows != count:
        raise DataError(
            f"{path} has {rows.metadata.num_rows:,} rows, expected {count:,}", remedy="index the texts again"
        )
    return rows


def fuse(rankings: Sequence[Sequence[int]], *, k: int = RRF_K) -> list[tuple[int, float]]:
    """Positions with their scores, best first, by reciprocal rank fusion.

    The score is the sum of 1 / (k + rank) over the rankings that contain the position, ranks counted from 1 (Cormack,
    Clarke, Büttcher: Reciprocal Rank Fusion Outperforms Condorcet and Individual Rank Learning Methods, SIGIR 2009). Of
    equal scores the smaller position comes first.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, position in enumerate(ranking, start=1):
            scores[position] = scores.get(position, 0.0) + 1 / (k + rank)
    return sorted(scores.items(), key=lambda found: (-found[1], found[0]))
