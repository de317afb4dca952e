"""The recipe's choice of hard negatives (arXiv 2510.02294, section 2), without models, stores or Ray.

Q queries, N documents per block, K kept candidates. Documents arrive in blocks with ascending ids, and of two equal
scores the first one wins. Therefore the result does not depend on the blocks: it equals a full sort by descending score
and then by id.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

Scores = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

NO_ID = -1
HISTOGRAM_EDGES = np.linspace(-1.0, 1.0, 41)
"""Bins of 0.05 for scores, which are cosines."""


class MiningRule(BaseModel):
    """The rule that selects a query's hard negatives from its candidates. The defaults are the recipe's.

    1. Candidates are the `top_k` texts with the highest scores that are not answers.
    2. A candidate is allowed if its score is below two limits. The first limit is `max_score`. The second limit is the
       positive's score s minus (1 - `max_ratio`) * |s|, which is `max_ratio` * s if s is above 0. If a query has
       several positives, the lowest score counts.
    3. The first `skip` are dropped: of the allowed candidates, as in sentence-transformers, or of all candidates before
       any is refused (`skip_among`).
    4. The next `negatives` are selected. A row with fewer negatives, its own included, is dropped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    negatives: Annotated[int, Field(ge=1, le=128)] = 24
    top_k: Annotated[int, Field(ge=1, le=10_000)] = 100
    skip: Annotated[int, Field(ge=0)] = 5
    max_score: Annotated[float, Field(gt=-1.0)] = 0.8
    max_ratio: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    skip_among: Literal["allowed", "all"] = "allowed"

    @model_validator(mode="after")
    def _enough(self) -> "MiningRule":
        if self.top_k - self.skip < self.negatives:
            raise ValueError(
                f"top_k={self.top_k} minus skip={self.skip} leaves {self.top_k - self.skip} candidates, fewer than "
                f"negatives={self.negatives}"
            )
        return self


@dataclass(frozen=True)
class Hits:
    """Entries of a score matrix: rows, columns and scores, all [H], by row and then by column."""

    rows: Ids
    columns: Ids
    scores: Scores


class BestCandidates:
    """The K best documents so far of each of Q queries. scores [Q, K] are descending, ids are [Q, K]."""

    def __init__(self, queries: int, k: int) -> None:
        self.scores: Scores = np.full((queries, k), -np.inf, dtype=np.float32)
        self.ids: Ids = np.full((queries, k), NO_ID, dtype=np.int64)
        self._k = k

    @property
    def least(self) -> Scores:
        """The score that a later document must exceed, [Q]. Minus infinity for fewer than K documents."""
        return self.scores[:, -1].copy()

    def add(self, hits: Hits, first_id: int) -> None:
        """Add documents with the ids `first_id` + column, which must be larger than all earlier ids."""
        queries = len(self.scores)
        kept_rows = np.repeat(np.arange(queries), self._k)
        known = self.ids.ravel() != NO_ID
        rows = np.concatenate([kept_rows[known], hits.rows])
        ids = np.concatenate([self.ids.ravel()[known], hits.columns + first_id])
        scores = np.concatenate([self.scores.ravel()[known], hits.scores])
        order = np.lexsort((ids, -scores, rows))
        rows, ids, scores = rows[order], ids[order], scores[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        within = rank < self._k
        self.scores.fill(-np.inf)
        self.ids.fill(NO_ID)
        self.scores[rows[within], rank[within]] = scores[within]
        self.ids[rows[within], rank[within]] = ids[within]


@dataclass(frozen=True)
class Selection:
    """The candidates of Q queries that the rule selected: `taken` [Q, K] in rank order, at most `negatives` per query.

    `candidates` counts all candidates. `above_max_score` were refused because of `max_score`, and `above_max_ratio`
    because of `max_ratio` alone.
    """

    taken: npt.NDArray[np.bool_]
    candidates: int
    above_max_score: int
    above_max_ratio: int


def select(scores: Scores, positive_scores: Scores, rule: MiningRule) -> Selection:
    """Select among candidates. scores [Q, K] are descending, minus infinity means no candidate; positive_scores [Q]."""
    there = np.isfinite(scores)
    limit = positive_scores - np.abs(positive_scores) * np.float32(1.0 - rule.max_ratio)
    low_enough = scores < np.float32(rule.max_score)
    allowed = there & low_enough & (scores < limit[:, None])
    if rule.skip_among == "all":
        allowed[:, : rule.skip] = False
        taken = allowed & (np.cumsum(allowed, axis=1) <= rule.negatives)
    else:
        rank = np.cumsum(allowed, axis=1)
        taken = allowed & (rank > rule.skip) & (rank <= rule.skip + rule.negatives)
    return Selection(
        taken=taken,
        candidates=int(there.sum()),
        above_max_score=int((there & ~low_enough).sum()),
        above_max_ratio=int((there & low_enough & (scores >= limit[:, None])).sum()),
    )


def histogram(scores: npt.ArrayLike) -> list[int]:
    """Counts of scores in bins of 0.05 from -1 to 1. The outer bins include rounding errors beyond these limits."""
    counts, _ = np.histogram(np.clip(scores, -1.0, 1.0), HISTOGRAM_EDGES)
    return [int(count) for count in counts]
