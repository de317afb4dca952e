"""Laws of the data order (docs/developers/design.md#data-order), for any sources, batch size and number of workers."""

import json
from collections import Counter
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_io.errors import DataError
from data_io.loading.order import PLANNER_VERSION, DataOrder, Part, SourceRows, StepSource, slots_of_worker

GOLDEN = Path(__file__).parents[3] / "golden" / "plan.json"

group_rows = st.lists(st.integers(1, 40), min_size=1, max_size=5)


@st.composite
def plans(draw: st.DrawFn) -> DataOrder:
    sources = draw(st.lists(group_rows, min_size=1, max_size=5))
    return DataOrder(
        [SourceRows(f"s{i}", np.array(rows, dtype=np.int32)) for i, rows in enumerate(sources)],
        micro_batch_size=draw(st.integers(1, 17)),
        micro_batches_per_step=draw(st.integers(1, 9)),
        seed=draw(st.integers(0, 2**63 - 1)),
        step_source=draw(st.sampled_from(["independent", "same", "mixed"])),
        source_sampling=draw(st.sampled_from(["proportional", "uniform"])),
    )


def _plan(sizes: list[int], *, b: int, g: int, seed: int = 0, step_source: StepSource = "independent") -> DataOrder:
    """Sources of `sizes` rows in row groups of 16."""
    sources = []
    for number, size in enumerate(sizes):
        groups = [16] * (size // 16) + ([size % 16] if size % 16 else [])
        sources.append(SourceRows(f"s{number}", np.array(groups, dtype=np.int32)))
    return DataOrder(sources, micro_batch_size=b, micro_batches_per_step=g, seed=seed, step_source=step_source)


def _rows_of(plan: DataOrder, epoch: int, part: Part) -> list[tuple[int, int, int]]:
    chosen = plan.select_rows(epoch=epoch, part=part)
    return [(part.source, selection.row_group, int(row)) for selection in chosen for row in selection.rows]


def _all_rows(plan: DataOrder) -> list[tuple[int, int, int]]:
    return [
        (number, group, row)
        for number, source in enumerate(plan.sources)
        for group, rows in enumerate(source.group_rows)
        for row in range(int(rows))
    ]


@given(plans(), st.integers(0, 3))
def test_an_epoch_visits_every_row_once(plan: DataOrder, epoch: int) -> None:
    steps = [plan.step(epoch * plan.steps_per_epoch + i) for i in range(plan.steps_per_epoch)]

    visited = [row for step in steps for part in step.parts for row in _rows_of(plan, epoch, part)]

    assert sorted(visited) == _all_rows(plan)


@given(plans())
def test_a_slot_has_the_number_of_rows_of_its_micro_batch(plan: DataOrder) -> None:
    for index in range(plan.steps_per_epoch):
        for slot in plan.step(index).slots:
            assert all(len(_rows_of(plan, 0, part)) == part.rows >= 1 for part in slot.parts)
            assert len({part.source for part in slot.parts}) == len(slot.parts)
            assert 1 <= slot.rows <= plan.micro_batch_size
            assert len(slot.parts) == 1 or plan.step_source == "mixed"


@given(plans())
def test_only_the_last_micro_batch_of_an_epoch_is_short_if_sources_are_mixed(plan: DataOrder) -> None:
    if plan.step_source != "mixed":
        return
    sizes = [slot.rows for index in range(plan.steps_per_epoch) for slot in plan.step(index).slots]

    assert set(sizes[:-1]) <= {plan.micro_batch_size}
    assert len(sizes) == plan.micro_batches_per_epoch


@given(plans(), st.data())
def test_only_the_given_slots_are_skipped(plan: DataOrder, data: st.DataObject) -> None:
    step = plan.step(data.draw(st.integers(0, 2 * plan.steps_per_epoch - 1)))
    slot = data.draw(st.sampled_from(step.slots))
    named = (step.epoch, None if plan.step_source == "mixed" else slot.parts[0].source, slot.occurrence)

    again = DataOrder(
        plan.sources,
        micro_batch_size=plan.micro_batch_size,
        micro_batches_per_step=plan.micro_batches_per_step,
        seed=plan.seed,
        step_source=plan.step_source,
        source_sampling=plan.source_sampling,
        skipped={named},
    )

    found = [(i, s) for i in range(2 * plan.steps_per_epoch) for s in again.step(i).slots if s.skipped]
    assert found == [(step.index, replace(slot, skipped=True))]


@given(plans(), st.integers(1, 8))
def test_the_union_over_workers_is_every_slot_once(plan: DataOrder, world_size: int) -> None:
    for index in range(plan.steps_per_epoch):
        slots = len(plan.step(index).slots)
        taken = [p for rank in range(world_size) for p in slots_of_worker(slots, rank=rank, world_size=world_size)]

        assert sorted(taken) == list(range(slots))


@given(plans())
def test_steps_follow_each_other_without_a_gap_over_epochs(plan: DataOrder) -> None:
    steps = [plan.step(index) for index in range(2 * plan.steps_per_epoch + 1)]

    assert all(before.first_slot + len(before.slots) == after.first_slot for before, after in pairwise(steps))
    assert [step.epoch for step in steps] == [index // plan.steps_per_epoch for index in range(len(steps))]


@given(plans())
def test_only_the_last_step_of_an_epoch_is_short_and_none_wraps(plan: DataOrder) -> None:
    if plan.step_source == "same":
        return
    sizes = [len(plan.step(index).slots) for index in range(plan.steps_per_epoch)]

    assert all(size == plan.micro_batches_per_step for size in sizes[:-1])
    assert 1 <= sizes[-1] <= plan.micro_batches_per_step


@given(plans())
def test_same_step_source_gives_each_step_one_source(plan: DataOrder) -> None:
    if plan.step_source != "same":
        return
    for index in range(plan.steps_per_epoch):
        slots = plan.step(index).slots

        assert len({part.source for slot in slots for part in slot.parts}) == 1
        assert 1 <= len(slots) <= plan.micro_batches_per_step


@given(plans())
def test_one_integer_finds_the_next_step_again(plan: DataOrder) -> None:
    for index in range(2 * plan.steps_per_epoch):
        step = plan.step(index)

        assert plan.step_after(step.first_slot) == index
        assert plan.step_after(step.first_slot + len(step.slots)) == index + 1


def test_a_number_between_two_steps_is_refused() -> None:
    plan = _plan([160], b=16, g=4)

    with pytest.raises(DataError, match=r"micro_batches_consumed=2 is not a boundary between steps of 4"):
        plan.step_after(2)


@given(plans())
def test_a_source_uses_its_rows_and_its_micro_batches_in_order(plan: DataOrder) -> None:
    slots = [slot for index in range(plan.steps_per_epoch) for slot in plan.step(index).slots]

    for number, source in enumerate(plan.sources):
        mine = [(slot.occurrence, part) for slot in slots for part in slot.parts if part.source == number]
        rows = [row for _, part in mine for row in range(part.first, part.first + part.rows)]
        assert rows == list(range(source.rows))
        if plan.step_source != "mixed":
            assert [occurrence for occurrence, _ in mine] == list(range(len(mine)))


def test_neighboring_micro_batches_share_row_groups() -> None:
    plan = _plan([16 * 50], b=4, g=1)

    entered = [
        part.row_group
        for first in range(0, 16 * 50, 4)
        for part in plan.select_rows(epoch=0, part=Part(source=0, first=first, rows=4))
    ]

    assert len([group for group, _ in groupby(entered)]) == 50  # each of the 50 row groups is entered exactly once


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    sizes = [320, 320]
    orders = {
        (seed, epoch): tuple(_plan(sizes, b=8, g=4, seed=seed).sources_of_epoch(epoch).tolist())
        for seed in (0, 1)
        for epoch in (0, 1)
    }

    assert len(set(orders.values())) == 4


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 6), st.integers(0, 400))
def test_each_sources_share_of_a_window_is_that_of_a_uniform_permutation(seed: int, parts: int, start: int) -> None:
    sizes = [16 * 40 * (part + 1) for part in range(parts)]
    plan = _plan(sizes, b=16, g=4, seed=seed)
    order = plan.sources_of_epoch(0)
    total, window = len(order), min(200, len(order))
    start = min(start, total - window)

    counts = Counter(order[start : start + window].tolist())

    for number, size in enumerate(sizes):
        share = (size // 16) / total
        expected = window * share
        # A draw without replacement: hypergeometric. Six standard deviations; one draw in 10^9 exceeds them.
        deviation = np.sqrt(expected * (1 - share) * (total - window) / (total - 1))
        assert abs(counts[number] - expected) <= 6 * deviation + 1


@pytest.mark.parametrize(("sizes", "mode"), [([32, 16, 16], "independent"), ([2, 1, 1], "mixed")])
def test_every_order_of_a_small_multiset_is_equally_likely(sizes: list[int], mode: StepSource) -> None:
    counts = Counter(
        tuple(_plan(sizes, b=16, g=1, seed=seed, step_source=mode).sources_of_epoch(0).tolist()) for seed in range(6000)
    )

    # 4! / 2! = 12 orders, 500 expected each; five standard deviations are 107.
    assert len(counts) == 12
    assert all(abs(count - 500) < 107 for count in counts.values())


@given(st.integers(0, 2**32), st.integers(0, 3), st.integers(1, 24), st.integers(0, 30))
def test_negatives_are_a_cyclic_window_of_the_stored_ones(seed: int, epoch: int, stored: int, used: int) -> None:
    plan = _plan([64], b=16, g=1, seed=seed)

    window = plan.select_negatives(epoch=epoch, source=0, row_group=2, stored=stored, used=used)

    assert len(window) == len(set(window.tolist())) == min(used, stored)
    assert all((after - before) % stored == 1 % stored for before, after in pairwise(window.tolist()))


def test_windows_start_at_every_column_equally_often() -> None:
    plan = _plan([64], b=16, g=1)

    starts = Counter(
        int(plan.select_negatives(epoch=0, source=0, row_group=group, stored=24, used=7)[0]) for group in range(12_000)
    )

    assert len(starts) == 24
    assert all(abs(count - 500) < 110 for count in starts.values())


@given(plans())
def test_uniform_sampling_takes_every_source_once_before_any_comes_again_while_it_has_rows(plan: DataOrder) -> None:
    if plan.source_sampling == "proportional" or plan.step_source == "same":
        return
    mixed = plan.step_source == "mixed"
    counts = np.array([source.rows for source in plan.sources] if mixed else plan.micro_batches_of_sources)
    order = plan.sources_of_epoch(0).tolist()

    begin = 0
    for number in range(int(counts.max())):
        left = np.flatnonzero(counts > number).tolist()
        assert sorted(order[begin : begin + len(left)]) == left
        begin += len(left)
    assert begin == len(order)


def test_every_order_of_a_round_is_equally_likely_with_uniform_sampling() -> None:
    sources = [SourceRows(f"s{number}", np.array([32], dtype=np.int32)) for number in range(3)]
    orders = Counter[tuple[int, ...]]()
    for seed in range(3000):
        plan = DataOrder(sources, micro_batch_size=16, micro_batches_per_step=1, seed=seed, source_sampling="uniform")
        order = plan.sources_of_epoch(0).tolist()
        orders.update([tuple(order[:3]), tuple(order[3:])])

    # 3! = 6 orders, 1000 expected each; five standard deviations are 144.
    assert len(orders) == 6
    assert all(abs(count - 1000) < 144 for count in orders.values())


def test_a_plan_needs_a_source() -> None:
    with pytest.raises(DataError, match="no source to train on"):
        DataOrder([], micro_batch_size=4, micro_batches_per_step=1, seed=0)


def test_an_empty_source_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="source 'void' has no rows"):
        DataOrder(
            [SourceRows("void", np.array([], dtype=np.int32))], micro_batch_size=4, micro_batches_per_step=1, seed=0
        )


def golden_vectors() -> dict[str, object]:
    """Values that must not change while PLANNER_VERSION stays the same. Run this file to write them."""
    cases: list[dict[str, object]] = []
    modes: tuple[StepSource, ...] = ("independent", "same", "mixed")
    for mode in modes:
        plan = _plan([70, 33, 9], b=8, g=3, seed=20251002, step_source=mode)
        cases.append(
            {
                "step_source": mode,
                "sources": [plan.sources_of_epoch(epoch).tolist() for epoch in (0, 1)],
                "rows": [
                    _rows_of(plan, 1, Part(0, 24, 8)),
                    _rows_of(plan, 1, Part(0, 64, 6)),
                    _rows_of(plan, 0, Part(2, 8, 1)),
                ],
                "negatives": plan.select_negatives(epoch=1, source=1, row_group=2, stored=24, used=7).tolist(),
                "steps": [
                    [[part.source, slot.occurrence, part.rows] for slot in plan.step(i).slots for part in slot.parts]
                    for i in (0, 4, 5, 9)
                ],
            }
        )
    return {"planner_version": PLANNER_VERSION, "cases": cases}


def test_the_order_is_the_one_that_checkpoints_were_written_with() -> None:
    assert json.loads(json.dumps(golden_vectors())) == json.loads(GOLDEN.read_text(encoding="utf-8"))


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden_vectors(), indent=1) + "\n", encoding="utf-8")
