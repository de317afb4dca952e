"""Computes the results of an ablation study: the metrics of its runs, and each variant compared with the base by seed.

A variant and the base are trained with the same seeds. The result is the mean of their differences by seed, with
Student's t-interval (a paired t-test). An effect of a seed on both cancels out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import scipy.stats

from data_io.storage.store import Store
from ray_app.reporting.run_record import RunRecord
from ray_app.reporting.study_report import (
    CONFIDENCE,
    Difference,
    FieldChange,
    RunResult,
    Spread,
    StudyResults,
    VariantResult,
)
from ray_app.run_directory.status import Phase

RESULTS = "results.json"


@dataclass(frozen=True)
class VariantFacts:
    """A variant: its name, its changed fields (path, value in the base, own value), its runs' names."""

    name: str
    changes: Sequence[tuple[str, Any, Any]]
    runs: Sequence[str]


def study_results(
    name: str,
    uri: str,
    metric: str,
    seeds: Sequence[int],
    variants: Sequence[VariantFacts],
    records: Mapping[str, RunRecord],
    problems: Mapping[str, str],
) -> StudyResults:
    """Compute the results from the runs' records. The first variant is the base. `problems` has the reasons of failed
    runs, by name.
    """
    made: list[VariantResult] = []
    for each in variants:
        runs = tuple(
            _run(run, seed, records.get(run), problems.get(run)) for run, seed in zip(each.runs, seeds, strict=True)
        )
        made.append(
            VariantResult(
                name=each.name,
                changes=tuple(FieldChange(path=path, base=base, value=own) for path, base, own in each.changes),
                runs=runs,
                spreads={measure: _spread(values) for measure, values in _by_measure(runs).items()},
                differences=_differences(runs, made[0].runs) if made else {},
            )
        )
    versions = sorted({record.data.version for record in records.values() if record.data is not None})
    return StudyResults(
        name=name,
        uri=uri,
        data_version=versions[0] if len(versions) == 1 else None,
        metric=metric,
        seeds=tuple(seeds),
        variants=tuple(made),
    )


def measures_of(record: RunRecord) -> dict[str, float]:
    """The metrics of a succeeded run after training. Empty for any other run."""
    if record.status is None or record.status.phase != Phase.SUCCEEDED or record.after is None:
        return {}
    found: dict[str, float] = {}
    if record.after.mean_model is not None:
        found |= {
            "ndcg_at_10": record.after.mean_model.ndcg_at_10,
            "recall_at_10": record.after.mean_model.recall_at_10,
        }
    correlations = [each.spearman for each in record.after.sts if each.spearman is not None]
    if correlations:
        found["spearman"] = fmean(correlations)
    return found | {f"ndcg_at_10/{each.name}": each.model.ndcg_at_10 for each in record.after.retrieval}


def paired_difference(values: Sequence[float], base: Sequence[float]) -> Difference:
    """Mean of values - base, pair by pair, with Student's t-interval. Needs at least one pair."""
    each = [a - b for a, b in zip(values, base, strict=True)]
    mean = fmean(each)
    if len(each) < 2:
        return Difference(seeds=1, mean=mean, low=None, high=None, p=None)
    if max(each) == min(each):
        return Difference(seeds=len(each), mean=mean, low=mean, high=mean, p=None)
    test = scipy.stats.ttest_rel(values, base)
    interval = test.confidence_interval(CONFIDENCE)
    return Difference(
        seeds=len(each), mean=mean, low=float(interval.low), high=float(interval.high), p=float(test.pvalue)
    )


def save_results(study: Store, found: StudyResults) -> None:
    """Write results.json atomically: a concurrent reader gets the old or the new content."""
    study.put(RESULTS, found.model_dump_json(indent=1).encode() + b"\n")


def _run(name: str, seed: int, record: RunRecord | None, problem: str | None) -> RunResult:
    if record is None:
        return RunResult(name=name, seed=seed, phase=None, problem=problem)
    status, steps = record.status, record.steps
    tail = [each.loss for each in steps[-max(1, len(steps) // 20) :] if each.loss is not None]
    return RunResult(
        name=name,
        seed=seed,
        phase=None if status is None else status.phase.value,
        step=steps[-1].step if steps else 0,
        total_steps=0 if status is None else status.total_steps,
        loss=math.fsum(tail) / len(tail) if tail else None,
        measures=measures_of(record),
        training_seconds=math.fsum(each.seconds for each in steps),
        problem=problem,
    )


def _by_measure(runs: Sequence[RunResult]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for run in runs:
        for measure, value in run.measures.items():
            found.setdefault(measure, []).append(value)
    return found


def _spread(values: Sequence[float]) -> Spread:
    return Spread(seeds=len(values), mean=fmean(values), sd=stdev(values) if len(values) > 1 else None)


def _differences(runs: Sequence[RunResult], base: Sequence[RunResult]) -> dict[str, Difference]:
    found = {}
    for measure in _by_measure(runs):
        pairs = [
            (mine.measures[measure], its.measures[measure])
            for mine, its in zip(runs, base, strict=True)
            if measure in mine.measures and measure in its.measures
        ]
        if pairs:
            found[measure] = paired_difference([a for a, _ in pairs], [b for _, b in pairs])
    return found
