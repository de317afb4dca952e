"""One ranking out of several. Pure."""

from collections.abc import Sequence

RRF_K = 60
"""The constant of the paper below, which found it uncritical."""


def fuse(rankings: Sequence[Sequence[int]], *, k: int = RRF_K) -> list[tuple[int, float]]:
    """Positions with their scores, best first, by reciprocal rank fusion: the sum of 1 / (k + rank) over the rankings
    that have a position, ranks counted from 1 (Cormack, Clarke, Büttcher: Reciprocal Rank Fusion Outperforms Condorcet
    and Individual Rank Learning Methods, SIGIR 2009). Of equal scores the smaller position comes first.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, position in enumerate(ranking, start=1):
            scores[position] = scores.get(position, 0.0) + 1 / (k + rank)
    return sorted(scores.items(), key=lambda found: (-found[1], found[0]))
