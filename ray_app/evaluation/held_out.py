"""Retrieval quality of a model: exact search of held-out queries over their whole corpus, compared with BM25.

Shape letters: Q queries, N documents, D embedding size, K documents kept per query, P pairs.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from data_io.dataset.evaluation_sets import RetrievalSet, StsSet, load_evaluation
from data_io.dataset.manifest import Manifest
from data_io.errors import DataError
from data_io.storage.store import Store
from data_io.wording import counted
from ray_app.errors import ModelError
from ray_app.evaluation.bm25 import bm25_rankings
from ray_app.evaluation.ranking_metrics import ndcg_at_k, recall_at_k, spearman, top_k, trec_order
from ray_app.job_spec import EvaluationSpec
from ray_app.run_directory.evaluation_report import (
    EvaluationReport,
    QueryExample,
    RankingMetrics,
    RelevantDocument,
    RetrievalResult,
    RetrievedDocument,
    StsResult,
)

EXAMPLES_PER_SET = 8
_SHOWN_DOCUMENTS = 3
_SHOWN_CHARACTERS = 600
_DEPTH = 100
# A block of scores has at most 2048 x 8192 fp32 values, 64 MB, for any size of corpus.
_QUERY_BLOCK = 2048
_DOCUMENT_BLOCK = 8192

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]
# (name of the set, texts embedded so far, all texts)
OnTexts = Callable[[str, int, int], None]


class Encode(Protocol):
    """Embeds texts as float32 [n, D], L2-normalized. The instruction is put before each text, as by format_query."""

    def __call__(self, texts: Sequence[str], *, instruction: str = "") -> Floats: ...


def evaluate(
    encode: Encode,
    store: Store,
    manifest: Manifest,
    spec: EvaluationSpec,
    *,
    dims: Sequence[int] = (),
    with_bm25: bool = True,
    progress: OnTexts | None = None,
) -> EvaluationReport:
    """Evaluate the model on every evaluation set of a data set. Only one set at a time is in memory."""
    sets = (load_evaluation(store, entry) for entry in manifest.evaluations)
    return evaluate_sets(encode, sets, max_queries=spec.max_queries, dims=dims, with_bm25=with_bm25, progress=progress)


def evaluate_sets(
    encode: Encode,
    sets: Iterable[RetrievalSet | StsSet],
    *,
    max_queries: int | None = None,
    dims: Sequence[int] = (),
    with_bm25: bool = True,
    progress: OnTexts | None = None,
) -> EvaluationReport:
    """nDCG@10 and recall@10 of retrieval sets, and Spearman's correlation of scored pairs.

    The same metrics are computed for each d of `dims` with the first d values of the embeddings, L2-normalized again.
    `max_queries` keeps the queries whose ids have the lowest hashes, so every model gets the same queries. The corpus
    is never reduced. Raises DataError if no query of a set has a relevant document, ModelError if an embedding is not
    finite.
    """
    report = progress or (lambda name, done, total: None)
    return EvaluationReport(
        sets=tuple(
            _evaluate_retrieval(encode, each, max_queries, dims, with_bm25, report)
            if isinstance(each, RetrievalSet)
            else _evaluate_sts(encode, each, dims, report)
            for each in sets
        )
    )


@dataclass(frozen=True)
class _Queries:
    """The evaluated queries in the order of their hash, and the corpus in trec_eval's order for equal scores."""

    ids: list[str]
    texts: list[str]
    corpus_ids: list[str]
    corpus: list[str]


def _select(each: RetrievalSet, max_queries: int | None) -> _Queries:
    # As in MTEB, queries without a relevant document are left out.
    asked = [i for i, query in enumerate(each.query_ids) if any(g > 0 for g in each.qrels.get(query, {}).values())]
    if not asked:
        raise DataError(
            f"evaluation set {each.name!r}: no query has a relevant document ({counted(len(each.query_ids), 'query')})",
            remedy="give at least one query a document with a score above 0 in qrels.parquet",
        )
    asked.sort(key=lambda i: hashlib.blake2b(each.query_ids[i].encode(), digest_size=8).digest())
    asked = asked[:max_queries]
    order = trec_order(each.corpus_ids)
    return _Queries(
        ids=[each.query_ids[i] for i in asked],
        texts=[each.queries[i] for i in asked],
        corpus_ids=[each.corpus_ids[i] for i in order],
        corpus=[each.corpus[i] for i in order],
    )


def _evaluate_retrieval(
    encode: Encode,
    each: RetrievalSet,
    max_queries: int | None,
    dims: Sequence[int],
    with_bm25: bool,
    progress: OnTexts,
) -> RetrievalResult:
    start = time.perf_counter()
    asked = _select(each, max_queries)
    (positions_QK, scores_QK), *shorter = _rank(encode, asked, each, (None, *dims), progress)
    rankings = _named(positions_QK, asked)
    grades = [each.qrels[query] for query in asked.ids]
    text_of = dict(zip(asked.corpus_ids, asked.corpus, strict=True))
    examples = tuple(
        _example(asked.ids[i], asked.texts[i], rankings[i], scores_QK[i], grades[i], text_of)
        for i in range(min(EXAMPLES_PER_SET, len(asked.ids)))
    )
    seconds = time.perf_counter() - start
    bm25 = None
    if with_bm25:
        found = bm25_rankings(asked.corpus, asked.texts, depth=_DEPTH)
        bm25 = _metrics([[asked.corpus_ids[position] for position in row] for row in found], grades)
    return RetrievalResult(
        name=each.name,
        instruction=each.instruction,
        queries=len(asked.ids),
        documents=len(asked.corpus_ids),
        model=_metrics(rankings, grades),
        bm25=bm25,
        by_dims={
            d: _metrics(_named(positions, asked), grades) for d, (positions, _) in zip(dims, shorter, strict=True)
        },
        examples=examples,
        seconds=seconds,
    )


def _named(positions_QK: Positions, asked: _Queries) -> list[list[str]]:
    return [[asked.corpus_ids[position] for position in row] for row in positions_QK]


def _metrics(rankings: Sequence[Sequence[str]], grades: Sequence[Mapping[str, float]]) -> RankingMetrics:
    pairs = list(zip(rankings, grades, strict=True))
    return RankingMetrics(
        ndcg_at_10=sum(ndcg_at_k(ranking, grade) for ranking, grade in pairs) / len(pairs),
        recall_at_10=sum(recall_at_k(ranking, grade) for ranking, grade in pairs) / len(pairs),
    )


def _rank(
    encode: Encode, asked: _Queries, each: RetrievalSet, dims: Sequence[int | None], progress: OnTexts
) -> list[tuple[Positions, Floats]]:
    """Positions in the corpus and scores [Q, K] of every query's best documents, best first, for each d of `dims`.

    d is the number of first values of the embeddings that are compared; None compares all. The corpus is embedded once
    and scored block by block. Memory holds the queries and one block.
    """
    count, documents = len(asked.texts), len(asked.corpus)
    total = count + documents
    queries_QD = _finite(encode(asked.texts, instruction=each.instruction), asked.ids, each.name, "query")
    progress(each.name, count, total)
    best = [(np.empty((count, 0), dtype=np.int64), np.empty((count, 0), dtype=np.float32)) for _ in dims]
    for first in range(0, documents, _DOCUMENT_BLOCK):
        block = slice(first, min(first + _DOCUMENT_BLOCK, documents))
        block_ND = _finite(encode(asked.corpus[block]), asked.corpus_ids[block], each.name, "document")
        best = [
            _with_block(kept, cut(queries_QD, d), cut(block_ND, d), block) for kept, d in zip(best, dims, strict=True)
        ]
        progress(each.name, count + block.stop, total)
    return best


def _with_block(
    best: tuple[Positions, Floats], queries_QD: Floats, block_ND: Floats, block: slice
) -> tuple[Positions, Floats]:
    """Merge the best documents so far with the next block of the corpus, and keep the best."""
    positions_QK, scores_QK = best
    count, kept = len(queries_QD), min(_DEPTH, block.stop)
    next_positions = np.empty((count, kept), dtype=np.int64)
    next_scores = np.empty((count, kept), dtype=np.float32)
    block_positions = np.arange(block.start, block.stop)
    for begin in range(0, count, _QUERY_BLOCK):
        block_scores = queries_QD[begin : begin + _QUERY_BLOCK] @ block_ND.T
        for row, new_scores in enumerate(block_scores, start=begin):
            # The kept documents have earlier positions, so equal scores stay in the order of the corpus.
            candidate_scores = np.concatenate([scores_QK[row], new_scores])
            candidate_positions = np.concatenate([positions_QK[row], block_positions])
            chosen = top_k(candidate_scores, kept)
            next_scores[row], next_positions[row] = candidate_scores[chosen], candidate_positions[chosen]
    return next_positions, next_scores


def cut(embeddings_ND: Floats, dims: int | None) -> Floats:
    """The first `dims` values, L2-normalized again. None keeps all, unchanged. Raises ModelError if D < `dims`."""
    if dims is None:
        return embeddings_ND
    if dims > embeddings_ND.shape[1]:
        raise ModelError(
            f"{dims} dimensions are requested, but the model's embeddings have {embeddings_ND.shape[1]}",
            remedy=f"request at most {embeddings_ND.shape[1]}",
        )
    kept = embeddings_ND[:, :dims]
    shortened: Floats = kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), np.float32(1e-12))
    return shortened


def _finite(embeddings: Floats, ids: Sequence[str], name: str, what: str) -> Floats:
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if bad.size:
        raise ModelError(
            f"evaluation set {name!r}: the embedding of {what} {ids[int(bad[0])]!r} has values that are not finite "
            f"({bad.size} of {len(ids)} texts)",
            remedy="the weights are damaged or the training diverged: evaluate an earlier checkpoint",
        )
    return np.ascontiguousarray(embeddings, dtype=np.float32)


def _example(
    query_id: str,
    query: str,
    ranking: Sequence[str],
    scores_K: Floats,
    grades: Mapping[str, float],
    text_of: Mapping[str, str],
) -> QueryExample:
    relevant = sorted((d for d, grade in grades.items() if grade > 0), key=lambda d: (-grades[d], d))
    shown = list(zip(ranking, scores_K, strict=True))[:_SHOWN_DOCUMENTS]
    return QueryExample(
        query_id=query_id,
        query=query[:_SHOWN_CHARACTERS],
        relevant=tuple(
            RelevantDocument(document_id=d, text=text_of.get(d, "")[:_SHOWN_CHARACTERS], grade=grades[d])
            for d in relevant[:_SHOWN_DOCUMENTS]
        ),
        retrieved=tuple(
            RetrievedDocument(
                document_id=d,
                text=text_of[d][:_SHOWN_CHARACTERS],
                score=float(score),
                grade=max(0.0, grades.get(d, 0.0)),
            )
            for d, score in shown
        ),
        first_relevant_rank=next((rank for rank, d in enumerate(ranking, start=1) if grades.get(d, 0.0) > 0), None),
    )


def _evaluate_sts(encode: Encode, each: StsSet, dims: Sequence[int], progress: OnTexts) -> StsResult:
    """Both texts get the instruction, as in MTEB's symmetric tasks."""
    start = time.perf_counter()
    pairs = len(each.text_a)
    places = [str(row) for row in range(pairs)]
    a_PD = _finite(encode(each.text_a, instruction=each.instruction), places, each.name, "text_a of pair")
    progress(each.name, pairs, 2 * pairs)
    b_PD = _finite(encode(each.text_b, instruction=each.instruction), places, each.name, "text_b of pair")
    progress(each.name, 2 * pairs, 2 * pairs)
    scores = np.asarray(each.scores, dtype=np.float64)
    by_dims = {d: spearman(np.einsum("pd,pd->p", cut(a_PD, d), cut(b_PD, d)), scores) for d in (None, *dims)}
    return StsResult(
        name=each.name,
        instruction=each.instruction,
        pairs=pairs,
        spearman=by_dims[None],
        by_dims={d: by_dims[d] for d in dims},
        seconds=time.perf_counter() - start,
    )
