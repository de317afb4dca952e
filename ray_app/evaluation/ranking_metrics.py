"""Ranking metrics as defined by trec_eval (and so by pytrec_eval and MTEB), and Spearman's correlation.

Shape letters: N documents, P pairs.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt


def trec_order(document_ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Positions [N] of the documents by id, last id first: trec_eval's order of documents with equal scores."""
    return np.array(sorted(range(len(document_ids)), key=document_ids.__getitem__, reverse=True), dtype=np.int64)


def top_k(scores_N: npt.NDArray[np.floating], k: int) -> npt.NDArray[np.int64]:
    """Positions of the min(k, N) highest scores, best first. Of equal scores the earlier position comes first."""
    total = scores_N.shape[0]
    if k >= total:
        return np.argsort(-scores_N, kind="stable")
    threshold = np.partition(scores_N, total - k)[total - k]
    above = np.flatnonzero(scores_N > threshold)
    at = np.flatnonzero(scores_N == threshold)[: k - above.size]
    return np.concatenate([above[np.argsort(-scores_N[above], kind="stable")], at])


def ndcg_at_k(ranking: Sequence[str], grades: Mapping[str, float], *, k: int = 10) -> float:
    """Normalized discounted cumulative gain of one query's ranking, best document first.

    The gain is the grade, the discount is log2(rank + 1). The ideal ranking uses all graded documents, retrieved or
    not. Grades of 0 and below, and documents without a grade, have no gain. Returns 0 if no document is relevant.
    """
    ideal = _discounted_gain(sorted(grades.values(), reverse=True)[:k])
    return _discounted_gain([grades.get(document, 0.0) for document in ranking[:k]]) / ideal if ideal > 0 else 0.0


def _discounted_gain(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1) if gain > 0)


def recall_at_k(ranking: Sequence[str], grades: Mapping[str, float], *, k: int = 10) -> float:
    """Share of the relevant documents (grade above 0) among the first k. Returns 0 if no document is relevant."""
    relevant = {document for document, grade in grades.items() if grade > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def spearman(predicted_P: npt.NDArray[np.floating], expected_P: npt.NDArray[np.floating]) -> float | None:
    """Spearman's rank correlation in -1..1. None if either side is constant or has fewer than two values."""
    if predicted_P.size < 2 or np.ptp(predicted_P) == 0 or np.ptp(expected_P) == 0:
        return None
    import scipy.stats  # slow to import, and `f2llm search`, which uses this file, must start quickly

    return float(scipy.stats.spearmanr(predicted_P, expected_P).statistic)
