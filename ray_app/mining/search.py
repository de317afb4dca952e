"""Exact search of queries in embedded blocks of documents.

Q queries, N documents per block, K candidates, D dimensions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from data_io.dataset.schema import text_key
from data_io.storage.chunk_files import Fetch, Mark, fetches, read_chunks, read_mark, read_tables
from data_io.storage.store import Store
from ray_app.mining.inputs import DOCUMENTS, SourceRow
from ray_app.mining.scores import QUERIES_AT_ONCE, BlockScores
from ray_app.mining.selection import NO_ID, BestCandidates, Ids, Scores


@dataclass(frozen=True)
class Query:
    """All rows of one query. `answers` holds the keys of its positives and of the query; these are never negatives."""

    key: int
    text: str
    rows: tuple[SourceRow, ...]
    positives: frozenset[int]
    answers: frozenset[int]


@dataclass(frozen=True)
class Block:
    """An embedded block. The ids of its documents start at `first_id`."""

    mark: Mark
    first_id: int
    documents: int


@dataclass(frozen=True)
class Search:
    """The candidates of each query, and the blocks that were searched."""

    best_scores: Scores  # [Q, K], descending
    ids: Ids  # [Q, K]
    positive_scores: Scores  # [Q]: the lowest score of a query's positives
    blocks: tuple[Block, ...]


def group_rows(rows: Sequence[SourceRow]) -> list[Query]:
    """Queries with all their rows. The rows of one query must be consecutive."""
    found = []
    for key, group in groupby(rows, key=lambda row: row.key):
        mine = tuple(group)
        positives = frozenset(text_key(row.positive) for row in mine)
        found.append(Query(key, mine[0].query, mine, positives, positives | {key}))
    return found


def search(
    queries: Sequence[Query],
    vectors: Scores,
    work: Store,
    names: Sequence[str],
    *,
    top_k: int,
    device: str | torch.device,
) -> Search:
    """The `top_k` nearest documents of queries with vectors [Q, D], without answers. Exact; each block is read once.

    `names` are the embed tasks of the blocks in `work`. Raises DataError for a block that is missing or damaged.
    """
    starts = range(0, len(queries), QUERIES_AT_ONCE)
    best = [BestCandidates(min(QUERIES_AT_ONCE, len(queries) - start), top_k) for start in starts]
    positive_scores = np.full(len(queries), np.inf, dtype=np.float32)
    positives = _Pairs([query.positives for query in queries])
    answers = _Pairs([query.answers for query in queries])
    blocks = []
    first_id = 0
    for block, keys, documents in _blocks(work, names, vectors.shape[1]):
        blocks.append(Block(block, first_id, len(keys)))
        of_positives, of_answers = positives.within(keys), answers.within(keys)
        for start, candidates in zip(starts, best, strict=True):
            end = start + len(candidates.scores)
            scores = BlockScores(vectors[start:end], documents, device=device)
            rows, columns = _between(of_positives, start, end)
            np.minimum.at(positive_scores, rows + start, scores.at(rows, columns))
            scores.forbid(*_between(of_answers, start, end))
            candidates.add(scores.hits(candidates.least, top_k), first_id)
        first_id += len(keys)
    assert np.isfinite(positive_scores).all(), "every positive is a document"
    return Search(
        best_scores=np.concatenate([each.scores for each in best]),
        ids=np.concatenate([each.ids for each in best]),
        positive_scores=positive_scores,
        blocks=tuple(blocks),
    )


class _Pairs:
    """Pairs of a query and the key of a text, sorted by key, for lookups in blocks."""

    def __init__(self, keys_of_queries: Sequence[frozenset[int]]) -> None:
        pairs = sorted((key, q) for q, keys in enumerate(keys_of_queries) for key in keys)
        self._keys = np.array([key for key, _ in pairs], dtype=np.uint64)
        self._queries = np.array([q for _, q in pairs], dtype=np.int64)

    def within(self, keys: npt.NDArray[np.uint64]) -> tuple[Ids, Ids]:
        """Queries and columns of the pairs whose text is in the block with these ascending keys."""
        low, high = np.searchsorted(self._keys, keys[0]), np.searchsorted(self._keys, keys[-1], side="right")
        columns = np.searchsorted(keys, self._keys[low:high])
        there = keys[columns] == self._keys[low:high]
        return self._queries[low:high][there], columns[there].astype(np.int64)


def _between(pairs: tuple[Ids, Ids], start: int, end: int) -> tuple[Ids, Ids]:
    queries, columns = pairs
    mine = (queries >= start) & (queries < end)
    return queries[mine] - start, columns[mine]


def _blocks(
    work: Store, names: Sequence[str], dimensions: int
) -> Iterator[tuple[Mark, npt.NDArray[np.uint64], Scores]]:
    for name in names:
        mark = read_mark(work, name)
        assert mark is not None, f"{name} was embedded before queries are mined"
        if mark.counts["documents"]:
            (keys,) = read_chunks(work, fetches([mark], "keys"))
            (vectors,) = read_chunks(work, fetches([mark], "vectors"))
            # A copy, because torch requires writable memory.
            documents = np.frombuffer(vectors, dtype="<f4").reshape(-1, dimensions).astype(np.float32)
            yield mark, np.frombuffer(keys, dtype="<u8").astype(np.uint64), documents


def document_texts(work: Store, blocks: Sequence[Block], ids: Ids) -> dict[int, tuple[int, str]]:
    """Key and text of the documents with these ascending ids. Reads only chunks that contain one of them."""
    found: dict[int, tuple[int, str]] = {}
    for block in blocks:
        for fetch in fetches([block.mark], "texts"):
            first = block.first_id
            for chunk in fetch.chunks:
                wanted = ids[np.searchsorted(ids, first) : np.searchsorted(ids, first + chunk.rows)]
                if len(wanted):
                    (table,) = read_tables(work, [Fetch(fetch.key, (chunk,))])
                    picked = table.cast(DOCUMENTS).take(pa.array(wanted - first))
                    keys, texts = picked.column("key").to_pylist(), picked.column("text").to_pylist()
                    found |= dict(zip(wanted.tolist(), zip(keys, texts, strict=True), strict=True))
                first += chunk.rows
    assert NO_ID not in found
    return found
