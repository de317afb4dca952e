"""The recipe's choice of hard negatives (arXiv 2510.02294, section 2), without models, stores or Ray.

Q queries, N documents of a block, K the number of candidates that are kept. Documents come in blocks of rising ids, so
that of two equal scores the one seen first wins: the result is that of sorting everything by falling score, then by id,
whatever the blocks.
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
"""Of scores, which are cosines: bins of 0.05."""


class MiningRule(BaseModel):
    """Which of a query's candidates become its hard negatives. The defaults are the recipe's.

    Candidates are the `top_k` highest scores among the texts that are no answer. Allowed is a candidate that scores
    below `max_score` and below the positive's score less (1 - `max_ratio`) of its size: 0.95 of it where it is above 0.
    With several positives the lowest score counts. `skip` is dropped from the front: of the allowed ones, as
    sentence-transformers does it, or of all candidates before any is refused. The next `negatives` are taken; a row
    with fewer, its own included, is dropped.
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
                f"top_k={self.top_k} less skip={self.skip} leaves {self.top_k - self.skip} candidates, and "
                f"negatives={self.negatives} are wanted"
            )
        return self


@dataclass(frozen=True)
class Hits:
    """Entries of a score matrix: rows, columns and scores, all [H], by row and then by column."""

    rows: Ids
    columns: Ids
    scores: Scores


class BestCandidates:
    """The K best documents of each of Q queries seen so far; scores [Q, K] falling, ids [Q, K]."""

    def __init__(self, queries: int, k: int) -> None:
        self.scores: Scores = np.full((queries, k), -np.inf, dtype=np.float32)
        self.ids: Ids = np.full((queries, k), NO_ID, dtype=np.int64)
        self._k = k

    @property
    def least(self) -> Scores:
        """What a later document has to exceed, [Q]; minus infinity while there are fewer than K."""
        return self.scores[:, -1].copy()

    def add(self, hits: Hits, first_id: int) -> None:
        """Take documents whose ids are `first_id` + column, all above every id seen before."""
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
    """What the rule took of Q queries' candidates: `taken` [Q, K] in rank order, at most `negatives` a query; and how
    many candidates there were, were refused for `max_score`, and for `max_ratio` alone.
    """

    taken: npt.NDArray[np.bool_]
    candidates: int
    above_max_score: int
    above_max_ratio: int


def select(scores: Scores, positive_scores: Scores, rule: MiningRule) -> Selection:
    """Choose among candidates, scores [Q, K] falling with minus infinity for none; positive_scores [Q]."""
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
    """Counts of scores in bins of 0.05 from -1 to 1; rounding errors beyond are counted in the last."""
    counts, _ = np.histogram(np.clip(scores, -1.0, 1.0), HISTOGRAM_EDGES)
    return [int(count) for count in counts]
