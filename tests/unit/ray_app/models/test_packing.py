"""For any texts, packing keeps every token, keeps texts separate and wastes little."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ray_app.models.packing import Layout, PackedBatch, block_causal_mask, pack

LAYOUTS: tuple[Layout, ...] = ("sequence", "rows", "padded")


def _lengths(longest: int, texts: int) -> st.SearchStrategy[npt.NDArray[np.int32]]:
    return st.lists(st.integers(1, longest), min_size=1, max_size=texts).map(lambda n: np.array(n, dtype=np.int32))


lengths_of_texts = _lengths(24, 40)
lengths_of_few_short_texts = _lengths(7, 8)


def _pack(lengths: npt.NDArray[np.int32], layout: Layout) -> PackedBatch:
    """Every token has its own id, starting at 1; padding has the id 0."""
    return pack(np.arange(1, lengths.sum() + 1, dtype=np.int32), lengths, layout=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(lengths=lengths_of_texts)
def test_every_token_is_placed_exactly_once(layout: Layout, lengths: npt.NDArray[np.int32]) -> None:
    tokens = int(lengths.sum())

    batch = _pack(lengths, layout)

    ids = batch.input_ids.flatten().tolist()
    assert sorted(token for token in ids if token) == list(range(1, tokens + 1))
    assert (batch.tokens, batch.slots) == (tokens, len(ids))


@pytest.mark.parametrize("layout", LAYOUTS)
@given(lengths=lengths_of_texts)
def test_a_text_lies_in_one_piece_before_its_last_token_with_positions_from_zero(
    layout: Layout, lengths: npt.NDArray[np.int32]
) -> None:
    ends = np.cumsum(lengths)

    batch = _pack(lengths, layout)

    ids = batch.input_ids.flatten().numpy()
    positions = batch.position_ids.expand_as(batch.input_ids).flatten().numpy()
    for text, last in enumerate(batch.last_N.tolist()):
        here = slice(last + 1 - lengths[text], last + 1)
        np.testing.assert_array_equal(ids[here], np.arange(ends[text] - lengths[text], ends[text]) + 1)
        np.testing.assert_array_equal(positions[here], np.arange(lengths[text]))


@given(lengths=lengths_of_texts)
def test_the_sequence_layout_has_no_padding_and_its_boundaries_are_the_cumulative_lengths(
    lengths: npt.NDArray[np.int32],
) -> None:
    batch = _pack(lengths, "sequence")

    assert batch.cu_seqlens is not None
    assert batch.cu_seqlens.dtype == torch.int32
    assert batch.cu_seqlens.tolist() == [0, *np.cumsum(lengths).tolist()]
    # For a token beyond the last boundary, the kernels return NaN gradients without an error.
    assert batch.input_ids.shape == (1, batch.tokens)
    assert int(batch.cu_seqlens[-1]) == batch.tokens
    assert batch.max_length == lengths.max()
    assert isinstance(batch.max_length, int)
    assert batch.segment_RL is None


@given(lengths=lengths_of_texts)
def test_rows_are_as_wide_as_the_longest_text(lengths: npt.NDArray[np.int32]) -> None:
    batch = _pack(lengths, "rows")

    assert batch.segment_RL is not None
    assert batch.input_ids.shape == batch.position_ids.shape == batch.segment_RL.shape
    assert batch.input_ids.shape[1] == lengths.max()
    assert batch.cu_seqlens is None


@given(lengths=lengths_of_texts)
def test_a_padded_text_begins_its_row_and_padding_comes_after_it(lengths: npt.NDArray[np.int32]) -> None:
    batch = _pack(lengths, "padded")

    assert (batch.input_ids != 0).tolist() == [[i < length for i in range(lengths.max())] for length in lengths]
    assert batch.segment_RL is None
    assert batch.cu_seqlens is None


@given(lengths=lengths_of_texts)
def test_segments_name_the_text_of_each_token_and_nothing_else(lengths: npt.NDArray[np.int32]) -> None:
    text_of_token = np.concatenate([[-1], np.repeat(np.arange(len(lengths)), lengths)])

    batch = _pack(lengths, "rows")

    assert batch.segment_RL is not None
    np.testing.assert_array_equal(batch.segment_RL.numpy(), text_of_token[batch.input_ids.numpy()])


@given(lengths=lengths_of_texts)
def test_longest_first_each_text_goes_into_the_fullest_row_that_still_has_room(lengths: npt.NDArray[np.int32]) -> None:
    width = int(lengths.max())
    expected: list[tuple[int, int]] = []
    rooms: list[int] = []
    for length in sorted(lengths.tolist(), reverse=True):
        room = min((room for room in rooms if room >= length), default=None)
        if room is not None:
            rooms.remove(room)
        # No new row is started if a text still fits into an existing one.
        expected.append((length, 0 if room is None else width - room))
        rooms.append((width if room is None else room) - length)

    batch = _pack(lengths, "rows")

    columns = batch.last_N.numpy() % width - lengths + 1
    assert sorted(zip(lengths.tolist(), columns.tolist(), strict=True)) == sorted(expected)
    assert batch.input_ids.shape[0] == len(rooms)


@given(lengths=lengths_of_texts)
def test_no_two_rows_could_be_one(lengths: npt.NDArray[np.int32]) -> None:
    batch = _pack(lengths, "rows")

    assert batch.segment_RL is not None
    used = sorted((batch.segment_RL >= 0).sum(1).tolist())
    assert len(used) == 1 or used[0] + used[1] > batch.segment_RL.shape[1]


@given(lengths=lengths_of_few_short_texts)
def test_the_mask_allows_exactly_the_earlier_tokens_of_the_same_text(lengths: npt.NDArray[np.int32]) -> None:
    """Padding attends to itself: a softmax over nothing is NaN, and multiplying NaN by zero does not remove it."""
    batch = _pack(lengths, "rows")
    assert batch.segment_RL is not None
    segment = batch.segment_RL.tolist()

    mask = block_causal_mask(batch.segment_RL)

    rows, width = batch.segment_RL.shape
    assert mask.shape == (rows, 1, width, width)
    expected = [
        [[segment[r][i] == segment[r][j] and j <= i for j in range(width)] for i in range(width)] for r in range(rows)
    ]
    assert mask[:, 0].tolist() == expected


@pytest.mark.parametrize("layout", LAYOUTS)
@given(lengths=lengths_of_texts)
def test_last_tokens_come_in_the_order_the_texts_were_given(layout: Layout, lengths: npt.NDArray[np.int32]) -> None:
    closing = np.cumsum(lengths)  # with ids 1..T, the id of each text's last token

    batch = _pack(lengths, layout)

    np.testing.assert_array_equal(batch.input_ids.flatten()[batch.last_N].numpy(), closing)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_single_token_is_a_pack(layout: Layout) -> None:
    batch = pack(np.array([7], dtype=np.int32), np.array([1], dtype=np.int32), layout=layout)

    assert batch.input_ids.tolist() == [[7]]
    assert batch.last_N.tolist() == [0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pack_does_not_share_memory_with_what_it_was_made_of(layout: Layout) -> None:
    ids, lengths = np.array([3, 4, 5], dtype=np.int32), np.array([2, 1], dtype=np.int32)
    batch = pack(ids, lengths, layout=layout)
    before = batch.input_ids.clone()

    ids[:] = 9

    assert torch.equal(batch.input_ids, before)
