"""The pieces of a mining job, each one task: read a stretch, embed a block of documents, mine a share of the queries.

Each leaves objects and a mark under the job's work folder (data_io.storage.chunk_files). A document's id is its place
among all documents of the source, sorted by key. Q queries, N documents of a block, K candidates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from data_io.dataset.schema import text_key
from data_io.storage.chunk_files import (
    Fetch,
    Mark,
    array_chunk,
    fetches,
    read_chunks,
    read_mark,
    read_tables,
    table_chunks,
    write_mark,
    write_part,
)
from data_io.storage.store import Store
from ray_app.inference.model_source import NamedModel, open_named
from ray_app.mining.inputs import DOCUMENTS, RowRange, SourceRow, merge_documents, merge_rows, scan
from ray_app.mining.scores import QUERIES_AT_ONCE, BlockScores
from ray_app.mining.selection import NO_ID, BestCandidates, Ids, MiningRule, Scores, histogram, select

SAMPLES_A_SHARD = 20
_SAMPLE_CHARACTERS = 600
_SAMPLE_NEGATIVES = 3
MINED = pa.schema({"query": pa.large_string(), "positive": pa.large_string(), "negatives": pa.list_(pa.large_string())})


@dataclass(frozen=True)
class Sizes:
    """What is in memory at once, about. They decide where blocks end, so another size is another job."""

    run_bytes: int = 64 * 2**20
    """Texts that a reading task sorts at once."""
    chunk_bytes: int = 256 * 2**10
    """The least that is read of a run or of a block's texts."""
    block_vector_bytes: int = 8 * 2**20
    block_text_bytes: int = 64 * 2**20
    """A block of documents ends at whichever of the two comes first."""
    query_rows: int = 4096
    output_bytes: int = 64 * 2**20
    """Texts of a share of the queries with their mined negatives; a share has at most `query_rows` rows."""


@dataclass(frozen=True)
class Job:
    """What all pieces share."""

    work: Store
    model: NamedModel
    rule: MiningRule
    sizes: Sizes


@dataclass(frozen=True)
class ReadTask:
    piece: str
    job: Job
    stretch: RowRange


@dataclass(frozen=True)
class ProbeTask:
    piece: str
    job: Job


@dataclass(frozen=True)
class EmbedTask:
    """Documents whose keys are from `first` to `last`."""

    piece: str
    job: Job
    first: int
    last: int
    runs: tuple[Fetch, ...]


@dataclass(frozen=True)
class QueryTask:
    """Rows whose queries' keys are from `first` to `last`, against all `blocks` (names of their pieces)."""

    piece: str
    job: Job
    first: int
    last: int
    runs: tuple[Fetch, ...]
    blocks: tuple[str, ...]


def read_stretch(piece: ReadTask) -> Mark:
    """Sorted runs of a stretch of a source or of a corpus file."""
    sizes = piece.job.sizes
    return scan(piece.stretch, piece.job.work, run_bytes=sizes.run_bytes, chunk_bytes=sizes.chunk_bytes)


def probe_model(piece: ProbeTask) -> Mark:
    """Load the model where it will be used, before anything is read; counts its dimensions."""
    dimensions = open_named(piece.job.model).dimensions
    return write_mark(piece.job.work, piece.piece, Mark(counts={"dimensions": dimensions}))


def embed_block(piece: EmbedTask) -> Mark:
    """Keys, vectors (float32 [N, D]) and texts of one block of documents."""
    work = piece.job.work
    documents = merge_documents(read_tables(work, piece.runs), piece.first, piece.last)
    parts = []
    if documents.num_rows:
        texts, model = documents.column("text").to_pylist(), piece.job.model
        vectors = open_named(model).embed_documents(texts, batch_tokens=model.batch_tokens)
        chunks = [
            array_chunk("keys", documents.column("key").to_numpy()),
            array_chunk("vectors", vectors),
            *table_chunks("texts", documents, chunk_bytes=piece.job.sizes.chunk_bytes),
        ]
        parts.append(write_part(work, f"{piece.piece}-block", chunks))
    return write_mark(work, piece.piece, Mark(parts=tuple(parts), counts={"documents": documents.num_rows}))


def mine_queries(piece: QueryTask) -> Mark:
    """Candidates, choice and finished rows of one share of the queries. Every block is read once."""
    job = piece.job
    queries = group_rows(merge_rows(read_tables(job.work, piece.runs), piece.first, piece.last))
    if not queries:
        return write_mark(job.work, piece.piece, Mark())
    model = open_named(job.model)
    vectors = model.embed_queries(
        [query.text for query in queries], batch_tokens=job.model.batch_tokens, prompt=job.model.query_prompt
    )
    found = search(job, queries, vectors, piece.blocks, device=model.device)
    selection = select(found.best_scores, found.positive_scores, job.rule)
    taken = [found.ids[q][selection.taken[q]] for q in range(len(queries))]
    documents = _texts(job.work, found.blocks, np.unique(np.concatenate(taken)))
    rows: list[dict[str, object]] = []
    samples: list[dict[str, object]] = []
    counts = dict.fromkeys(("kept_rows", "dropped_rows", "dropped_queries", "own_negatives", "mined_negatives"), 0)
    for q, query in enumerate(queries):
        mined = [documents[i] for i in taken[q].tolist()]
        before = len(rows)
        for row in query.rows:
            own, added = fill(row, query.answers, mined, negatives=job.rule.negatives)
            if len(own) + len(added) < job.rule.negatives:
                counts["dropped_rows"] += 1
                continue
            counts["kept_rows"] += 1
            counts["own_negatives"] += len(own)
            counts["mined_negatives"] += len(added)
            rows.append({"query": row.query, "positive": row.positive, "negatives": [*own, *added]})
        counts["dropped_queries"] += len(rows) == before
        if len(rows) > before and mined and len(samples) < SAMPLES_A_SHARD:
            scores = found.best_scores[q][selection.taken[q]]
            samples.append(_sample(query.rows[0], float(found.positive_scores[q]), mined, scores))
    chunks = table_chunks(
        "rows", pa.Table.from_pylist(rows, schema=MINED), chunk_bytes=job.sizes.chunk_bytes, key_column=None
    )
    parts = (write_part(job.work, f"{piece.piece}-rows", chunks),) if chunks else ()
    there = np.isfinite(found.best_scores)
    mark = Mark(
        parts=parts,
        counts={
            "rows": sum(len(query.rows) for query in queries),
            "queries": len(queries),
            "candidates": selection.candidates,
            "above_max_score": selection.above_max_score,
            "above_max_ratio": selection.above_max_ratio,
            **counts,
        },
        histograms={
            "positive": histogram(found.positive_scores),
            "nearest": histogram(found.best_scores[:, 0][there[:, 0]]),
            "negative": histogram(found.best_scores[selection.taken]),
        },
        samples=tuple(samples),
    )
    return write_mark(job.work, piece.piece, mark)


def fill(
    row: SourceRow, answers: frozenset[int], mined: Sequence[tuple[int, str]], *, negatives: int
) -> tuple[list[str], list[str]]:
    """A row's own negatives, then mined ones (key and text) up to `negatives` in all: no answer, and no text twice."""
    taken = set(answers)
    own: list[str] = []
    added: list[str] = []
    for text in row.negatives:
        key = text_key(text)
        if key not in taken and len(own) < negatives:
            taken.add(key)
            own.append(text)
    for key, text in mined:
        if key not in taken and len(own) + len(added) < negatives:
            taken.add(key)
            added.append(text)
    return own, added


@dataclass(frozen=True)
class Query:
    """All rows of one query; `answers` holds the keys of its positives and its own: these are never negatives."""

    key: int
    text: str
    rows: tuple[SourceRow, ...]
    positives: frozenset[int]
    answers: frozenset[int]


@dataclass(frozen=True)
class _Block:
    mark: Mark
    first_id: int
    documents: int


@dataclass(frozen=True)
class Search:
    """What a search found, and the blocks it looked in."""

    best_scores: Scores  # [Q, K] falling
    ids: Ids  # [Q, K]
    positive_scores: Scores  # [Q]: the lowest of a query's positives
    blocks: tuple[_Block, ...]


def group_rows(rows: Sequence[SourceRow]) -> list[Query]:
    """Queries with all their rows; rows of one query lie side by side."""
    found = []
    for key, group in groupby(rows, key=lambda row: row.key):
        mine = tuple(group)
        positives = frozenset(text_key(row.positive) for row in mine)
        found.append(Query(key, mine[0].query, mine, positives, positives | {key}))
    return found


def search(
    job: Job, queries: Sequence[Query], vectors: Scores, names: Sequence[str], *, device: str | torch.device
) -> Search:
    """Candidates of queries with vectors [Q, D] among the documents of the blocks `names`, each block read once."""
    starts = range(0, len(queries), QUERIES_AT_ONCE)
    best = [BestCandidates(min(QUERIES_AT_ONCE, len(queries) - start), job.rule.top_k) for start in starts]
    positive_scores = np.full(len(queries), np.inf, dtype=np.float32)
    positives = _Pairs([query.positives for query in queries])
    answers = _Pairs([query.answers for query in queries])
    blocks = []
    first_id = 0
    for block, keys, documents in _blocks(job.work, names, vectors.shape[1]):
        blocks.append(_Block(block, first_id, len(keys)))
        of_positives, of_answers = positives.within(keys), answers.within(keys)
        for start, candidates in zip(starts, best, strict=True):
            end = start + len(candidates.scores)
            scores = BlockScores(vectors[start:end], documents, device=device)
            rows, columns = _between(of_positives, start, end)
            np.minimum.at(positive_scores, rows + start, scores.at(rows, columns))
            scores.forbid(*_between(of_answers, start, end))
            candidates.add(scores.hits(candidates.least, job.rule.top_k), first_id)
        first_id += len(keys)
    assert np.isfinite(positive_scores).all(), "every positive is a document"
    return Search(
        best_scores=np.concatenate([each.scores for each in best]),
        ids=np.concatenate([each.ids for each in best]),
        positive_scores=positive_scores,
        blocks=tuple(blocks),
    )


class _Pairs:
    """(query, key of a text), to be found in blocks: sorted by key."""

    def __init__(self, keys_of_queries: Sequence[frozenset[int]]) -> None:
        pairs = sorted((key, q) for q, keys in enumerate(keys_of_queries) for key in keys)
        self._keys = np.array([key for key, _ in pairs], dtype=np.uint64)
        self._queries = np.array([q for _, q in pairs], dtype=np.int64)

    def within(self, keys: npt.NDArray[np.uint64]) -> tuple[Ids, Ids]:
        """Queries and columns of the pairs whose text is in the block with these rising keys."""
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
            # Copied: torch wants memory that it may write to.
            documents = np.frombuffer(vectors, dtype="<f4").reshape(-1, dimensions).astype(np.float32)
            yield mark, np.frombuffer(keys, dtype="<u8").astype(np.uint64), documents


def _texts(work: Store, blocks: Sequence[_Block], ids: Ids) -> dict[int, tuple[int, str]]:
    """Key and text of documents by id; only the chunks that hold one are read."""
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


def _sample(
    row: SourceRow, positive_score: float, mined: Sequence[tuple[int, str]], scores: Scores
) -> dict[str, object]:
    return {
        "query": row.query[:_SAMPLE_CHARACTERS],
        "positive": row.positive[:_SAMPLE_CHARACTERS],
        "positive_score": round(positive_score, 4),
        "negatives": [
            {"text": text[:_SAMPLE_CHARACTERS], "score": round(float(score), 4)}
            for (_, text), score in zip(mined[:_SAMPLE_NEGATIVES], scores, strict=False)
        ],
    }
