"""The learning rate: it rises linearly, then falls along a cosine, but not below its floor."""

from decimal import Decimal, getcontext
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.training.schedule import learning_rate

PEAK, FLOOR = 1e-5, 1e-7


@st.composite
def schedules(draw: st.DrawFn) -> dict[str, float | int]:
    total = draw(st.integers(1, 400))
    peak = draw(st.floats(1e-8, 1.0))
    return {
        "peak": peak,
        "floor": draw(st.floats(0.0, 1.0)) * peak,
        "warmup_steps": draw(st.integers(0, total)),
        "total_steps": total,
    }


def _rates(schedule: dict[str, float | int], *, first: int = 0, beyond: int = 0) -> list[float]:
    return [learning_rate(step, **schedule) for step in range(first, int(schedule["total_steps"]) + beyond)]  # type: ignore[arg-type]


@given(schedule=schedules())
def test_warm_up_rises_in_equal_steps_from_above_zero_to_the_peak(schedule: dict[str, float | int]) -> None:
    warmup = int(schedule["warmup_steps"])

    rates = _rates(schedule)[:warmup]

    step = schedule["peak"] / max(1, warmup)
    assert rates == pytest.approx([step * (i + 1) for i in range(warmup)], rel=1e-12)
    assert all(rate > 0 for rate in rates)


@given(schedule=schedules())
def test_the_step_after_warm_up_has_the_peak(schedule: dict[str, float | int]) -> None:
    warmup = int(schedule["warmup_steps"])

    rate = learning_rate(warmup, **(schedule | {"total_steps": max(warmup + 1, schedule["total_steps"])}))  # type: ignore[arg-type]

    assert rate == pytest.approx(schedule["peak"], rel=1e-12)


@given(schedule=schedules())
def test_the_rate_never_rises_after_warm_up(schedule: dict[str, float | int]) -> None:
    rates = _rates(schedule, first=int(schedule["warmup_steps"]), beyond=20)

    assert all(later <= earlier for earlier, later in pairwise(rates))


@given(schedule=schedules())
def test_the_floor_holds_after_warm_up_and_beyond_the_end(schedule: dict[str, float | int]) -> None:
    rates = _rates(schedule, first=int(schedule["warmup_steps"]), beyond=20)

    assert min(rates) >= schedule["floor"]
    assert rates[-1] == schedule["floor"]


def test_the_floor_does_not_apply_during_warm_up() -> None:
    rate = learning_rate(0, peak=PEAK, floor=FLOOR, warmup_steps=500, total_steps=1000)

    assert rate == pytest.approx(PEAK / 500)
    assert rate < FLOOR


def test_the_floor_clamps_the_cosine_and_does_not_stretch_it() -> None:
    """Half-way down the cosine the rate is half the peak, for any floor."""
    rates = [learning_rate(50, peak=1.0, floor=floor, warmup_steps=0, total_steps=100) for floor in (0.0, 0.25)]

    assert rates == pytest.approx([0.5, 0.5], rel=1e-12)


def test_a_schedule_without_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(0, peak=PEAK, floor=FLOOR, warmup_steps=0, total_steps=10) == PEAK


def test_a_run_that_ends_in_warm_up_never_reaches_the_cosine() -> None:
    rates = [learning_rate(step, peak=1.0, floor=0.1, warmup_steps=8, total_steps=4) for step in range(4)]

    assert rates == [0.125, 0.25, 0.375, 0.5]


@pytest.mark.parametrize(
    "step", [0, 1, 249, 498, 499, 500, 501, 1000, 5000, 12_500, 25_249, 40_000, 47_000, 49_998, 49_999, 50_000, 60_000]
)
def test_the_rate_is_the_formulas(step: int) -> None:
    """The recipe's 0.6B schedule over 50,000 steps, from the formula in exact arithmetic."""
    getcontext().prec = 40
    warmup, total = 500, 50_000
    if step < warmup:
        expected = Decimal("1e-5") * (step + 1) / warmup
    else:
        share = min(Decimal(1), Decimal(step - warmup) / (total - warmup))
        expected = max(Decimal("1e-7"), Decimal("1e-5") * (1 + _cosine_of_half_turns(share)) / 2)

    rate = learning_rate(step, peak=PEAK, floor=FLOOR, warmup_steps=warmup, total_steps=total)

    assert rate == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize(
    ("step", "rate"),
    # cos(0), cos(60 deg), cos(90 deg), cos(120 deg), cos(180 deg): 1, 1/2, 0, -1/2, -1
    [(0, 0.25), (3, 1.0), (4, 1.0), (8, 0.75), (10, 0.5), (12, 0.25), (16, 0.01), (17, 0.01)],
)
def test_golden_values(step: int, rate: float) -> None:
    assert learning_rate(step, peak=1.0, floor=0.01, warmup_steps=4, total_steps=16) == pytest.approx(rate, rel=1e-12)


def _cosine_of_half_turns(share: Decimal) -> Decimal:
    """cos(pi * share) by its power series."""
    x = Decimal("3.141592653589793238462643383279502884197") * share
    term = total = Decimal(1)
    for k in range(1, 40):
        term *= -x * x / ((2 * k - 1) * (2 * k))
        total += term
    return total
