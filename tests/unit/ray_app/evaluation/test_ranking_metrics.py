"""Laws of the ranking metrics, compared with a slow reference written from the definition."""

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.evaluation.ranking_metrics import ndcg_at_k, recall_at_k, spearman, top_k, trec_order

DOCUMENTS = [f"d{i}" for i in range(12)]
grades = st.dictionaries(st.sampled_from(DOCUMENTS), st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0]), max_size=12)
rankings = st.permutations(DOCUMENTS)
depths = st.integers(1, 14)


def slow_ndcg(ranking: list[str], graded: dict[str, float], k: int) -> float:
    """The best reachable gain is searched over every choice of k documents; gains are added one rank at a time."""

    def gain(documents: tuple[str, ...]) -> float:
        total = 0.0
        for index in range(len(documents)):
            value = graded.get(documents[index], 0.0)
            total += max(value, 0.0) * math.log(2) / math.log(index + 2)
        return total

    best = max(gain(choice) for choice in itertools.permutations(graded, min(k, len(graded))))
    return gain(tuple(ranking[:k])) / best if best else 0.0


@given(rankings, st.dictionaries(st.sampled_from(DOCUMENTS), st.sampled_from([0.0, 1.0, 2.0, 3.0]), max_size=5), depths)
def test_ndcg_equals_the_slow_reference(ranking: list[str], graded: dict[str, float], k: int) -> None:
    assert ndcg_at_k(ranking, graded, k=k) == pytest.approx(slow_ndcg(ranking, graded, k), abs=1e-12)


def test_ndcg_equals_trec_evals_figure_for_a_graded_ranking() -> None:
    graded = {"a": 3.0, "b": 2.0, "c": 1.0, "never retrieved": 2.0}

    value = ndcg_at_k(["x", "b", "a", "y", "c"], graded, k=10)

    # The result of pytrec_eval: gains 0, 2, 3, 0, 1 at log2(2..6) over 3, 2, 2, 1 at log2(2..5), 3.14871 / 5.69254.
    assert value == pytest.approx(0.5531300, abs=1e-6)


@given(rankings, grades, depths)
def test_metrics_lie_between_0_and_1(ranking: list[str], graded: dict[str, float], k: int) -> None:
    for metric in (ndcg_at_k, recall_at_k):
        assert 0.0 <= metric(ranking, graded, k=k) <= 1.0


@given(grades.filter(lambda graded: any(grade > 0 for grade in graded.values())), depths)
def test_the_perfect_ranking_has_ndcg_1(graded: dict[str, float], k: int) -> None:
    perfect = sorted(graded, key=lambda document: -graded[document])

    assert ndcg_at_k(perfect, graded, k=k) == pytest.approx(1.0)
    assert recall_at_k(perfect, graded, k=len(DOCUMENTS)) == 1.0


@given(rankings, grades, depths)
def test_an_irrelevant_document_at_the_end_changes_nothing(
    ranking: list[str], graded: dict[str, float], k: int
) -> None:
    longer = [*ranking, "irrelevant"]

    assert ndcg_at_k(longer, graded, k=k) == ndcg_at_k(ranking, graded, k=k)
    assert recall_at_k(longer, graded, k=k) == recall_at_k(ranking, graded, k=k)


@given(rankings, grades, st.integers(0, 10), depths)
def test_moving_a_better_document_up_never_lowers_ndcg(
    ranking: list[str], graded: dict[str, float], place: int, k: int
) -> None:
    above, below = ranking[place], ranking[place + 1]
    if graded.get(above, 0.0) > graded.get(below, 0.0):
        above, below = below, above
    worse = [*ranking[:place], above, below, *ranking[place + 2 :]]
    better = [*ranking[:place], below, above, *ranking[place + 2 :]]

    assert ndcg_at_k(better, graded, k=k) >= ndcg_at_k(worse, graded, k=k) - 1e-12


def test_recall_counts_relevant_documents_that_were_not_retrieved() -> None:
    assert recall_at_k(["a", "x", "b"], {"a": 1.0, "b": 1.0, "c": 2.0, "x": 0.0}, k=2) == pytest.approx(1 / 3)


def test_a_query_without_relevant_documents_scores_0() -> None:
    assert ndcg_at_k(["a"], {"a": 0.0}) == 0.0
    assert recall_at_k(["a"], {}) == 0.0


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=40), st.integers(1, 45))
def test_top_k_is_the_head_of_a_stable_sort(scores: list[float], k: int) -> None:
    expected = sorted(range(len(scores)), key=lambda position: (-scores[position], position))[:k]

    assert top_k(np.array(scores, dtype=np.float32), k).tolist() == expected


@given(st.dictionaries(st.text(max_size=3), st.sampled_from([0.0, 0.5, 1.0]), min_size=1), st.randoms(), depths)
def test_permuting_the_documents_does_not_change_the_ranking(
    scores: dict[str, float], chance: random.Random, k: int
) -> None:
    ids = list(scores)
    shuffled = chance.sample(ids, len(ids))

    def ranking(documents: list[str]) -> list[str]:
        order = trec_order(documents)
        ordered = np.array([scores[documents[position]] for position in order])
        return [documents[order[position]] for position in top_k(ordered, k)]

    assert ranking(shuffled) == ranking(ids)


def test_equal_scores_are_ordered_by_id_last_first_as_in_trec_eval() -> None:
    assert trec_order(["b", "d10", "a", "d9"]).tolist() == [3, 1, 0, 2]


def test_spearman_sees_order_only_and_ties_share_their_rank() -> None:
    expected = np.array([0.0, 1.0, 2.0, 3.0])

    assert spearman(np.array([0.1, 0.2, 0.4, 0.9]), expected) == pytest.approx(1.0)
    assert spearman(np.array([4.0, 3.0, -1.0, -7.0]), expected) == pytest.approx(-1.0)
    assert spearman(np.array([0.1, 0.1, 0.4, 0.9]), expected) == pytest.approx(0.9486833)


def test_spearman_of_a_constant_side_is_none() -> None:
    assert spearman(np.array([0.5, 0.5]), np.array([1.0, 2.0])) is None
    assert spearman(np.array([0.5, 0.6]), np.array([1.0, 1.0])) is None
    assert spearman(np.array([0.5]), np.array([1.0])) is None
