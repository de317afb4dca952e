"""Batches by tokens: no text is lost or repeated, no batch is too large, and no request waits for a large one."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ray_app.serving.batcher import TokenBatcher

REQUESTS = st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=8), max_size=8)


def filled(requests: list[list[int]], *, batch_tokens: int = 60) -> TokenBatcher[int]:
    batcher = TokenBatcher[int](batch_tokens=batch_tokens, max_queued_tokens=10**6)
    for key, lengths in enumerate(requests):
        assert batcher.offer(key, lengths)
    return batcher


def batches(batcher: TokenBatcher[int]) -> list[list[tuple[int, int]]]:
    return list(iter(batcher.take, []))


@given(REQUESTS)
def test_every_text_is_taken_once_in_the_order_of_its_request(requests: list[list[int]]) -> None:
    batcher = filled(requests)

    taken = [text for batch in batches(batcher) for text in batch]

    for key, lengths in enumerate(requests):
        assert [place for of, place in taken if of == key] == list(range(len(lengths)))
    assert batcher.queued_tokens == 0


@given(REQUESTS, st.integers(1, 80))
def test_a_batch_has_at_most_its_tokens_or_is_one_text(requests: list[list[int]], batch_tokens: int) -> None:
    for batch in batches(filled(requests, batch_tokens=batch_tokens)):
        assert len(batch) == 1 or sum(requests[key][place] for key, place in batch) <= batch_tokens


@given(REQUESTS)
def test_a_batch_ends_only_if_the_next_text_does_not_fit(requests: list[list[int]]) -> None:
    made = batches(filled(requests))

    for batch, following in pairwise(made):
        key, place = following[0]
        assert sum(requests[k][p] for k, p in batch) + requests[key][place] > 60


@given(st.integers(100, 400), st.lists(st.integers(1, 5), min_size=1, max_size=9))
def test_a_short_request_shares_the_first_batch_with_a_large_one(large: int, short: list[int]) -> None:
    batcher = filled([[5] * large, *([length] for length in short)])

    first = batcher.take()

    assert {key for key, _ in first} == set(range(len(short) + 1))


@given(REQUESTS, st.data())
def test_withdrawn_texts_are_not_taken_and_all_others_are(requests: list[list[int]], data: st.DataObject) -> None:
    gone = data.draw(st.sets(st.integers(0, 8)))
    batcher = filled(requests)
    early = batcher.take()

    for key in gone:
        batcher.withdraw(key)

    later = [text for batch in batches(batcher) for text in batch]
    wanted = {(k, p) for k, lengths in enumerate(requests) for p in range(len(lengths)) if k not in gone}
    assert wanted - set(early) == set(later)
    assert batcher.queued_tokens == 0


@given(st.lists(st.integers(1, 30), max_size=20), st.integers(1, 100))
def test_the_queue_stays_below_its_limit_unless_it_holds_one_request(requests: list[int], limit: int) -> None:
    batcher = TokenBatcher[int](batch_tokens=10, max_queued_tokens=limit)
    accepted = [length for key, length in enumerate(requests) if batcher.offer(key, [length])]

    assert batcher.queued_tokens == sum(accepted)
    assert batcher.queued_tokens <= limit or len(accepted) == 1
    assert bool(accepted) == bool(requests)


def test_a_refused_request_is_not_queued() -> None:
    batcher = TokenBatcher[str](batch_tokens=10, max_queued_tokens=20)
    assert batcher.offer("first", [9, 9])

    assert not batcher.offer("second", [1, 2])

    assert [key for key, _ in [*batcher.take(), *batcher.take(), *batcher.take()]] == ["first", "first"]
    assert batcher.offer("second", [1, 2])
