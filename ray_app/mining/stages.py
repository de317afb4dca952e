"""The tasks of a mining job: read a range of rows, embed a block of documents, mine a share of the queries.

Each task writes objects and a mark under the job's work directory (data_io.storage.chunk_files). The id of a document
is its position among all documents of the source, sorted by key. N documents per block, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data_io.dataset.schema import text_key
from data_io.storage.chunk_files import Fetch, Mark, array_chunk, read_tables, table_chunks, write_mark, write_part
from data_io.storage.store import Store
from ray_app.inference.model_source import NamedModel, open_named
from ray_app.mining.inputs import RowRange, SourceRow, merge_documents, merge_rows, scan
from ray_app.mining.search import Query, Search, document_texts, group_rows, search
from ray_app.mining.selection import MiningRule, Scores, Selection, histogram, select

SAMPLES_A_SHARD = 20
_SAMPLE_CHARACTERS = 600
_SAMPLE_NEGATIVES = 3
MINED = pa.schema({"query": pa.large_string(), "positive": pa.large_string(), "negatives": pa.list_(pa.large_string())})


@dataclass(frozen=True)
class Sizes:
    """Approximate bytes and rows in memory at once. They decide the blocks, so other sizes make another job."""

    run_bytes: int = 64 * 2**20
    """Bytes of texts that a read task sorts at once."""
    chunk_bytes: int = 256 * 2**10
    """Smallest read of a run or of the texts of a block."""
    block_vector_bytes: int = 8 * 2**20
    block_text_bytes: int = 64 * 2**20
    """A block of documents ends at the first of these two limits."""
    query_rows: int = 4096
    output_bytes: int = 64 * 2**20
    """Bytes of the texts of a share of the queries, including mined negatives. `query_rows` also limits a share."""


@dataclass(frozen=True)
class Job:
    """The values that all tasks share."""

    work: Store
    model: NamedModel
    rule: MiningRule
    sizes: Sizes


@dataclass(frozen=True)
class ReadTask:
    name: str
    job: Job
    row_range: RowRange


@dataclass(frozen=True)
class ProbeTask:
    name: str
    job: Job


@dataclass(frozen=True)
class EmbedTask:
    """Documents with keys from `first` to `last`."""

    name: str
    job: Job
    first: int
    last: int
    runs: tuple[Fetch, ...]


@dataclass(frozen=True)
class QueryTask:
    """Rows with query keys from `first` to `last`, searched in all `blocks` (names of their embed tasks)."""

    name: str
    job: Job
    first: int
    last: int
    runs: tuple[Fetch, ...]
    blocks: tuple[str, ...]


def read_range(task: ReadTask) -> Mark:
    """Write the sorted runs of a range of a source or of a corpus file. Raises DataError as `inputs.scan` does."""
    sizes = task.job.sizes
    return scan(task.row_range, task.job.work, run_bytes=sizes.run_bytes, chunk_bytes=sizes.chunk_bytes)


def probe_model(task: ProbeTask) -> Mark:
    """Load the model on a worker before any data is read, and return its dimensions. Raises ModelError."""
    dimensions = open_named(task.job.model).dimensions
    return write_mark(task.job.work, task.name, Mark(counts={"dimensions": dimensions}))


def embed_block(task: EmbedTask) -> Mark:
    """Write keys [N], vectors (float32 [N, D]) and texts [N] of one block of documents."""
    work = task.job.work
    documents = merge_documents(read_tables(work, task.runs), task.first, task.last)
    parts = []
    if documents.num_rows:
        texts, model = documents.column("text").to_pylist(), task.job.model
        vectors = open_named(model).embed_documents(texts, batch_tokens=model.batch_tokens)
        chunks = [
            array_chunk("keys", documents.column("key").to_numpy()),
            array_chunk("vectors", vectors),
            *table_chunks("texts", documents, chunk_bytes=task.job.sizes.chunk_bytes),
        ]
        parts.append(write_part(work, f"{task.name}-block", chunks))
    return write_mark(work, task.name, Mark(parts=tuple(parts), counts={"documents": documents.num_rows}))


def mine_queries(task: QueryTask) -> Mark:
    """Search, select and write the rows of one share of the queries. Every block is read once."""
    job = task.job
    queries = group_rows(merge_rows(read_tables(job.work, task.runs), task.first, task.last))
    if not queries:
        return write_mark(job.work, task.name, Mark())
    model = open_named(job.model)
    vectors = model.embed_queries(
        [query.text for query in queries], batch_tokens=job.model.batch_tokens, prompt=job.model.query_prompt
    )
    found = search(queries, vectors, job.work, task.blocks, top_k=job.rule.top_k, device=model.device)
    selection = select(found.best_scores, found.positive_scores, job.rule)
    mined = _fill_rows(job, queries, found, selection)
    chunks = table_chunks(
        "rows", pa.Table.from_pylist(mined.rows, schema=MINED), chunk_bytes=job.sizes.chunk_bytes, key_column=None
    )
    mark = Mark(
        parts=(write_part(job.work, f"{task.name}-rows", chunks),) if chunks else (),
        counts={
            "rows": sum(len(query.rows) for query in queries),
            "queries": len(queries),
            "candidates": selection.candidates,
            "above_max_score": selection.above_max_score,
            "above_max_ratio": selection.above_max_ratio,
            **mined.counts,
        },
        histograms=_histograms(found, selection),
        samples=tuple(mined.samples),
    )
    return write_mark(job.work, task.name, mark)


@dataclass(frozen=True)
class _MinedRows:
    """The rows of a share of the queries that have enough negatives."""

    rows: list[dict[str, object]]
    samples: list[dict[str, object]]
    counts: dict[str, int]


def _fill_rows(job: Job, queries: Sequence[Query], found: Search, selection: Selection) -> _MinedRows:
    """Rows with their own and the selected negatives. A row with fewer negatives than the rule requires is dropped."""
    taken = [found.ids[q][selection.taken[q]] for q in range(len(queries))]
    documents = document_texts(job.work, found.blocks, np.unique(np.concatenate(taken)))
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
    return _MinedRows(rows, samples, counts)


def _histograms(found: Search, selection: Selection) -> dict[str, list[int]]:
    nearest = found.best_scores[:, 0]
    return {
        "positive": histogram(found.positive_scores),
        "nearest": histogram(nearest[np.isfinite(nearest)]),
        "negative": histogram(found.best_scores[selection.taken]),
    }


def fill(
    row: SourceRow, answers: frozenset[int], mined: Sequence[tuple[int, str]], *, negatives: int
) -> tuple[list[str], list[str]]:
    """A row's own negatives, then mined negatives (key and text), up to `negatives` in all. Answers and repeated texts
    are skipped.
    """
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
