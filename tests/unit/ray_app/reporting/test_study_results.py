"""The results of a study: differences by seed with their intervals, and the page."""

import math
from pathlib import Path
from typing import Any

import pytest

from data_io.storage.store import Store, open_store
from ray_app.reporting.run_record import RunRecord, read_run
from ray_app.reporting.study_page import render_study
from ray_app.reporting.study_report import StudyResults
from ray_app.reporting.study_results import VariantFacts, paired_difference, save_results, study_results
from ray_app.run_directory.status import Phase
from tests.support.written_runs import write_run

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def place(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "study"))


def written(place: Store, ndcg: dict[str, float | None]) -> dict[str, RunRecord]:
    """Records of runs by name. None is an active run."""
    for name, value in ndcg.items():
        done: dict[str, Any] = {"ndcg": (0.0, value)} if value is not None else {"ndcg": None, "phase": Phase.TRAINING}
        write_run(place.child(name), **done)
    return {name: read_run(place.child(name)) for name in ndcg}


def results(records: dict[str, RunRecord], *, name: str = "study", problems: Any = None) -> StudyResults:
    variants = [
        VariantFacts("base", (), ("base-0", "base-1", "base-2")),
        VariantFacts("off", (("train.in_batch", "step", "off"),), ("off-0", "off-1", "off-2")),
    ]
    return study_results(name, "s3://b/study", "ndcg_at_10", (0, 1, 2), variants, records, problems or {})


def test_a_difference_has_students_interval_of_the_pairs() -> None:
    found = paired_difference([0.31, 0.35, 0.38], [0.30, 0.32, 0.33])

    # Differences 0.01, 0.03, 0.05: mean 0.03, sd 0.02; t(0.975, 2 degrees of freedom) = 4.302653.
    half = 4.302653 * 0.02 / math.sqrt(3)
    assert found.mean == pytest.approx(0.03)
    assert (found.low, found.high) == pytest.approx((0.03 - half, 0.03 + half), abs=1e-6)
    t = 0.03 / (0.02 / math.sqrt(3))
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t))  # in closed form for 2 degrees of freedom


def test_one_seed_has_a_difference_and_no_interval() -> None:
    found = paired_difference([0.5], [0.25])

    assert (found.mean, found.low, found.high, found.p) == (0.25, None, None, None)


def test_equal_differences_have_an_interval_without_width_and_no_test() -> None:
    found = paired_difference([0.5, 0.75], [0.25, 0.5])

    assert (found.low, found.high, found.p) == (0.25, 0.25, None)


def test_only_seeds_finished_on_both_sides_are_compared(place: Store) -> None:
    records = written(place, {"base-0": 0.30, "base-1": 0.32, "off-0": 0.20, "off-1": None, "off-2": 0.99})

    found = results(records, problems={"base-2": "the data are away"})

    base, off = found.variants
    assert (base.spreads["ndcg_at_10"].seeds, off.spreads["ndcg_at_10"].seeds) == (2, 2)
    assert off.differences["ndcg_at_10"].seeds == 1
    assert off.differences["ndcg_at_10"].mean == pytest.approx(-0.10)
    assert base.differences == {}
    assert [run.phase for run in off.runs] == ["Succeeded", "Training", "Succeeded"]
    assert (base.runs[2].phase, base.runs[2].problem) == (None, "the data are away")
    assert (found.finished, len(found.runs)) == (4, 6)


def test_results_are_read_back_as_they_were_written(place: Store) -> None:
    found = results(written(place, {"base-0": 0.30, "off-0": 0.20}))

    save_results(place, found)

    assert StudyResults.model_validate_json(place.get("results.json")) == found


@pytest.mark.parametrize("runs", [{}, {"base-0": 0.3}, {"base-0": 0.3, "base-1": 0.4, "off-0": 0.2, "off-1": 0.1}])
def test_the_page_shows_partial_results_and_fetches_nothing(place: Store, runs: dict[str, float | None]) -> None:
    records = written(place, runs)

    page = render_study(results(records, name=HOSTILE, problems={"off-2": HOSTILE}), records)

    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "train.in_batch: step → off" in page
    assert f"{len(runs)} of 6 runs are finished" in page
    assert ("Difference from the base in nDCG@10" in page) == ("off-0" in runs)
