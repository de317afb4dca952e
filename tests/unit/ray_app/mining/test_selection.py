"""The selection of hard negatives: laws of the rule and of the blocked search, compared with slow references."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ray_app.inference.sentence_transformer import batches
from ray_app.mining.scores import BlockScores
from ray_app.mining.selection import NO_ID, BestCandidates, Hits, MiningRule, histogram, select

# Few distinct values, so that ties are frequent.
coarse = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 0.8, 1.0])
rules = st.builds(
    lambda negatives, skip, extra, max_score, max_ratio, among: MiningRule(
        negatives=negatives, skip=skip, top_k=negatives + skip + extra, max_score=max_score, max_ratio=max_ratio,
        skip_among=among,
    ),
    st.integers(1, 4), st.integers(0, 3), st.integers(0, 5), st.sampled_from([0.25, 0.8, 2.0]),
    st.sampled_from([0.5, 0.95, 1.0]), st.sampled_from(["allowed", "all"]),
)  # fmt: skip


def blocked(scores: np.ndarray, k: int, block: int) -> BestCandidates:
    """The best of a score matrix [Q, N], given in blocks of columns."""
    best = BestCandidates(len(scores), k)
    for first in range(0, scores.shape[1], block):
        part = scores[:, first : first + block]
        # With the identity as documents the product is the part itself.
        found = BlockScores(np.ascontiguousarray(part), np.eye(part.shape[1], dtype=np.float32))
        best.add(found.hits(best.least, k), first)
    return best


@given(
    scores=st.integers(1, 4).flatmap(
        lambda q: st.integers(1, 30).flatmap(
            lambda n: st.lists(st.lists(coarse, min_size=n, max_size=n), min_size=q, max_size=q)
        )
    ),
    k=st.integers(1, 12),
    block=st.integers(1, 31),
)
def test_the_blocked_search_is_a_full_sort_by_score_and_then_by_id(
    scores: list[list[float]], k: int, block: int
) -> None:
    matrix = np.array(scores, dtype=np.float32)

    best = blocked(matrix, k, block)

    for q, row in enumerate(matrix):
        order = sorted(range(len(row)), key=lambda i, row=row: (-row[i], i))[:k]
        assert best.ids[q].tolist() == order + [NO_ID] * (k - len(order))
        assert best.scores[q, : len(order)].tolist() == row[order].tolist()


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_the_block_size_does_not_change_the_result(block: int) -> None:
    scores = np.random.default_rng(0).standard_normal((5, 1000)).astype(np.float32).round(2)

    best = blocked(scores, 100, block)

    expected = np.stack([np.lexsort((np.arange(1000), -row))[:100] for row in scores])
    assert (best.ids == expected).all()


def test_a_forbidden_text_is_not_a_hit_even_among_too_few_others() -> None:
    scores = BlockScores(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    best = BestCandidates(2, 2)

    assert scores.at(np.array([0]), np.array([0])).tolist() == [1.0]
    scores.forbid(np.array([0, 1]), np.array([0, 1]))
    best.add(scores.hits(best.least, 2), 0)

    assert best.ids.tolist() == [[1, NO_ID], [0, NO_ID]]


def test_hits_of_later_blocks_do_not_displace_an_equal_score() -> None:
    best = BestCandidates(1, 1)
    hit = Hits(np.array([0]), np.array([0]), np.array([0.5], dtype=np.float32))

    best.add(hit, 3)
    best.add(hit, 9)

    assert best.ids.tolist() == [[3]]


@given(
    rows=st.lists(st.tuples(st.lists(coarse, max_size=12), coarse), min_size=1, max_size=6),
    rule=rules,
)
def test_the_rule_selects_the_same_as_a_slow_reference(rows: list[tuple[list[float], float]], rule: MiningRule) -> None:
    k = rule.top_k
    scores = np.full((len(rows), k), -np.inf, dtype=np.float32)
    for q, (found, _) in enumerate(rows):
        ranked = sorted(found, reverse=True)[:k]
        scores[q, : len(ranked)] = ranked
    positives = np.array([positive for _, positive in rows], dtype=np.float32)

    taken = select(scores, positives, rule).taken

    for q in range(len(rows)):
        assert np.flatnonzero(taken[q]).tolist() == _slowly(scores[q], positives[q], rule)


def _slowly(scores: np.ndarray, positive: np.float32, rule: MiningRule) -> list[int]:
    limit = positive - abs(positive) * np.float32(1.0 - rule.max_ratio)
    there = [i for i in range(len(scores)) if scores[i] > -np.inf]
    if rule.skip_among == "all":
        there = there[rule.skip :]
    allowed = [i for i in there if scores[i] < np.float32(rule.max_score) and scores[i] < limit]
    if rule.skip_among == "allowed":
        allowed = allowed[rule.skip :]
    return allowed[: rule.negatives]


def test_the_recipe_skips_five_and_takes_the_next_24_below_both_limits() -> None:
    scores = np.linspace(0.9, 0.0, 100, dtype=np.float32)[None]

    selection = select(scores, np.array([0.7], dtype=np.float32), MiningRule())

    allowed = np.flatnonzero(scores[0] < 0.7 * 0.95)
    assert np.flatnonzero(selection.taken[0]).tolist() == allowed[5:29].tolist()
    assert selection.candidates == 100
    assert selection.above_max_score == int((scores >= 0.8).sum())
    assert selection.above_max_ratio == int(((scores < 0.8) & (scores >= 0.665)).sum())


def test_a_positive_below_zero_still_bounds_its_negatives_from_above() -> None:
    scores = np.array([[-0.1, -0.2, -0.22]], dtype=np.float32)
    rule = MiningRule(negatives=1, skip=0, top_k=3)

    taken = select(scores, np.array([-0.2], dtype=np.float32), rule).taken

    assert taken.tolist() == [[False, False, True]]


def test_a_rule_that_leaves_too_few_candidates_is_refused_with_its_numbers() -> None:
    with pytest.raises(ValidationError, match="top_k=20 minus skip=5 leaves 15 candidates, fewer than negatives=24"):
        MiningRule(top_k=20)


def test_a_histogram_counts_every_score() -> None:
    assert sum(histogram([-1.0, 0.0, 0.99, 1.0, 1.0000001])) == 5


@given(
    lengths=st.lists(st.integers(0, 5000), max_size=60),
    limit=st.none() | st.integers(8, 512),
    tokens=st.integers(8, 4096),
)
def test_batches_hold_every_text_once_and_at_most_the_given_tokens(
    lengths: list[int], limit: int | None, tokens: int
) -> None:
    found = batches(lengths, limit=limit, batch_tokens=tokens)

    assert sorted(i for batch in found for i in batch.tolist()) == list(range(len(lengths)))
    for batch in found:
        longest = max(min(lengths[i] // 4 + 2, limit or 10**9) for i in batch)
        assert len(batch) == 1 or longest * len(batch) <= tokens
