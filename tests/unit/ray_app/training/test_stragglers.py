"""A worker's slowness depends on its time per token compared with the others, not on its amount of work."""

import pytest
import torch

from ray_app.training.stragglers import LIMIT, WINDOW, ForwardTiming, Stopwatch, Stragglers


def watched(*speeds: float, tokens: tuple[int, ...] = (), steps: int = WINDOW) -> Stragglers:
    """Record steps in which each rank has the given seconds per token, after a first step."""
    stragglers = Stragglers()
    counts = tokens or (100,) * len(speeds)
    for step in range(steps + 1):
        warm_up = 100 if step == 0 else 1
        stragglers.add(
            [ForwardTiming(warm_up * speed * count, count) for speed, count in zip(speeds, counts, strict=True)]
        )
    return stragglers


def test_more_work_is_not_slowness() -> None:
    assert watched(0.1, 0.1, 0.1, tokens=(100, 900, 30)).slowness == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_slowness_is_relative_to_the_median_and_the_first_step_does_not_count(factor: float) -> None:
    assert watched(0.1, 0.1 * factor, 0.1).slowness == pytest.approx((1.0, factor, 1.0))


def test_a_straggler_is_reported_once_after_a_whole_window() -> None:
    early = watched(0.1, 0.1, 0.1 * LIMIT * 1.01, steps=WINDOW - 1)
    assert early.newly_found() == []
    late = watched(0.1, 0.1, 0.1 * LIMIT * 1.01)
    assert [rank for rank, _ in late.newly_found()] == [2]
    assert late.newly_found() == []
    assert watched(0.1, 0.1, 0.1 * LIMIT * 0.99).newly_found() == []


def test_one_worker_is_neither_slow_nor_fast() -> None:
    alone = watched(0.1)

    assert alone.slowness == ()
    assert alone.newly_found() == []


def test_if_a_worker_computed_nothing_there_is_no_slowness() -> None:
    assert watched(0.1, 0.1, tokens=(100, 0)).slowness == ()


def test_a_stopwatch_adds_up_until_it_is_read() -> None:
    stopwatch = Stopwatch(torch.device("cpu"))
    assert stopwatch.take() == 0
    with stopwatch:
        pass
    once = stopwatch.take()

    assert once > 0
    assert stopwatch.take() == 0
