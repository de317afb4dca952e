"""Laws of token deletion: seed, epoch and text decide which tokens are deleted, and every text keeps at least one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_io.dataset.tokenizer import TokenTexts
from data_io.loading.token_deletion import delete_tokens

EOS = 0
texts = st.lists(st.text("abc", min_size=1, max_size=30), min_size=1, max_size=8)
shares = st.floats(0, 0.99)


def _tokens(strings: list[str]) -> TokenTexts:
    """One token per letter, and an EOS."""
    rows = [[*map(ord, string), EOS] for string in strings]
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    return TokenTexts(np.array([token for row in rows for token in row], dtype=np.int32), lengths)


def _delete(strings: list[str], *, share: float, seed: int = 0, epoch: int = 0) -> list[list[int]]:
    found = delete_tokens(_tokens(strings), strings, share=share, seed=seed, epoch=epoch)
    assert found.ids.dtype == found.lengths.dtype == np.int32
    return [part.tolist() for part in np.split(found.ids, np.cumsum(found.lengths)[:-1])]


@given(texts, shares, st.integers(0, 2**63 - 1))
def test_a_text_keeps_its_eos_and_something_before_it_in_its_order(strings: list[str], share: float, seed: int) -> None:
    for string, kept in zip(strings, _delete(strings, share=share, seed=seed), strict=True):
        *tokens, last = kept
        assert last == EOS
        assert tokens
        letters = iter(map(ord, string))
        assert all(token in letters for token in tokens)  # a subsequence


@given(texts, shares, st.integers(0, 2**63 - 1), st.integers(0, 3))
def test_deleted_tokens_do_not_depend_on_other_texts(strings: list[str], share: float, seed: int, epoch: int) -> None:
    together = _delete(strings, share=share, seed=seed, epoch=epoch)

    assert together == [_delete([string], share=share, seed=seed, epoch=epoch)[0] for string in strings]


@given(texts)
def test_a_share_of_0_leaves_texts_as_they_are(strings: list[str]) -> None:
    assert _delete(strings, share=0.0) == [[*map(ord, string), EOS] for string in strings]


def test_the_share_is_met_at_every_place_and_epochs_and_seeds_lose_others() -> None:
    strings = [f"{number:05d}" + "x" * 15 for number in range(4000)]

    first, again, next_epoch, other_seed = (
        _delete(strings, share=0.25, seed=seed, epoch=epoch) for seed, epoch in ((7, 0), (7, 0), (7, 1), (8, 0))
    )

    kept = sum(len(text) - 1 for text in first) / (20 * len(strings))
    assert abs(kept - 0.75) < 0.01  # 6 standard deviations of 80,000 draws
    assert first == again
    assert first != next_epoch
    assert first != other_seed


def test_an_empty_text_is_its_eos_alone() -> None:
    assert _delete(["", "a"], share=0.9) == [[EOS], [ord("a"), EOS]]
