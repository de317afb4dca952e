"""Reciprocal rank fusion, against its formula."""

from hypothesis import given
from hypothesis import strategies as st

from applications.fusion import fuse

RANKINGS = st.lists(st.lists(st.integers(0, 30), unique=True, max_size=20), max_size=4)


@given(RANKINGS)
def test_a_score_is_the_sum_of_reciprocal_ranks(rankings: list[list[int]]) -> None:
    found = dict(fuse(rankings))

    assert set(found) == {position for ranking in rankings for position in ranking}
    for position, score in found.items():
        assert abs(score - sum(1 / (61 + r.index(position)) for r in rankings if position in r)) < 1e-12


@given(RANKINGS)
def test_the_best_comes_first_and_of_equal_ones_the_smaller_position(rankings: list[list[int]]) -> None:
    found = fuse(rankings)

    assert found == sorted(found, key=lambda each: (-each[1], each[0]))


def test_what_both_rankings_have_comes_before_what_one_has_higher() -> None:
    assert [position for position, _ in fuse([[7, 1], [9, 1]])] == [1, 7, 9]
