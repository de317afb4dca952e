"""`report.html`: shows a run with its charts, in one file that needs no network."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_io.storage.store import Store, open_store
from ray_app.reporting import charts as figures
from ray_app.reporting import tables as view
from ray_app.reporting import worker_history as workers
from ray_app.reporting.page import Chart, render_page
from ray_app.reporting.run_record import RunRecord, read_run
from ray_app.run_directory.evaluation_curve import best_of
from ray_app.run_directory.metrics import StepMetrics

KEY = "report.html"
_MOST_EVENTS = 200


def write_report(run: Store | Path, out: Path | None = None) -> None:
    """Write the report of a run directory to the file `out`, or as report.html into the run directory itself.

    No file of the run directory is required. Each section of the report names its missing files.
    """
    store = run if isinstance(run, Store) else open_store(str(run))
    page = render_report(read_run(store))
    if out is None:
        store.put(KEY, page.encode())
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")


def render_report(record: RunRecord) -> str:
    """The whole page. Every text from the run is escaped. The page loads no external resources."""
    return render_page(
        "report.html.j2",
        {"fraction": _fraction, "duration": view.duration, "plain": _plain, "words": view.words},
        record=record,
        facts=view.facts_of(record),
        tiles=view.tiles_of(record),
        evaluation_charts=_evaluation_charts(record),
        checkpoint_charts=_checkpoint_charts(record),
        evaluation_rows=view.retrieval_rows(record),
        sts_rows=view.sts_rows(record),
        comparisons=view.comparisons_of(record.before, record.after),
        loss_charts=_loss_charts(record.steps),
        speed_charts=_speed_charts(record.steps),
        groups=workers.groups_of(record.events),
        worker_facts=workers.facts_of_workers(record),
        worker_charts=_worker_charts(record),
        optimizer_charts=_optimizer_charts(record.steps),
        sources=view.source_rows(record),
        events=record.events[-_MOST_EVENTS:],
        events_hidden=max(0, len(record.events) - _MOST_EVENTS),
    )


def _evaluation_charts(record: RunRecord) -> list[Chart]:
    if not any(report and report.retrieval for report in (record.before, record.after)):
        return []
    return [
        Chart("nDCG@10", figures.evaluation_chart(record.before, record.after, "ndcg_at_10")),
        Chart("recall@10", figures.evaluation_chart(record.before, record.after, "recall_at_10")),
    ]


def _checkpoint_charts(record: RunRecord) -> list[Chart]:
    best = best_of(record.measured)
    if best is None:
        return []
    note = f"Best: step {best.step} with {best.score:.4f}, kept as the model best/."
    return [Chart("Checkpoints, evaluated during training", figures.checkpoints_chart(record.measured), note)]


def _loss_charts(steps: Sequence[StepMetrics]) -> list[Chart]:
    if not steps:
        return []
    hidden = len(figures.largest_sources(steps)) - figures.MOST_SOURCES
    note = (
        f"The {figures.MOST_SOURCES} sources with the most examples. The table below has {hidden} more."
        if hidden > 0
        else ""
    )
    return [
        Chart("All sources", figures.loss_chart(steps), "Thin: each step. Thick: running mean."),
        Chart("By source", figures.source_loss_chart(steps), note or "Total loss. Click a name to hide its curve."),
    ]


def _speed_charts(steps: Sequence[StepMetrics]) -> list[Chart]:
    if not steps:
        return []

    def rate(amount: float, step: StepMetrics) -> float | None:
        return amount / step.seconds if step.seconds > 0 else None

    return [
        Chart(
            "Examples per second",
            figures.single_chart(steps, lambda s: rate(s.examples, s), color=0, rangemode="tozero"),
        ),
        Chart(
            "Tokens per second",
            figures.single_chart(steps, lambda s: rate(s.tokens, s), color=5, rangemode="tozero"),
        ),
        Chart(
            "Share of time spent waiting for data",
            figures.single_chart(
                steps, lambda s: rate(s.data_wait_seconds, s), color=1, tickformat=".1%", rangemode="tozero"
            ),
        ),
    ]


def _worker_charts(record: RunRecord) -> list[Chart]:
    charts = []
    if record.steps:
        spread = max(s.workers for s in record.steps)
        by_step = figures.single_chart(
            record.steps, lambda s: s.workers, color=3, smoothed=False, rangemode="tozero", dtick=-(-spread // 5)
        )
        charts.append(Chart("Workers by step", by_step))
    groups = workers.groups_of(record.events)
    if groups:
        until = record.status.updated if record.status else groups[-1].started
        points = workers.workers_over_time(groups, until)
        charts.append(Chart("Workers over time", workers.workers_chart(points), "Zero: no workers were running."))
    return charts


def _optimizer_charts(steps: Sequence[StepMetrics]) -> list[Chart]:
    if not steps:
        return []
    rate = figures.single_chart(
        steps, lambda s: s.learning_rate, color=2, smoothed=False, rangemode="tozero", tickformat="~e"
    )
    return [
        Chart("Learning rate", rate),
        Chart("Gradient norm", figures.single_chart(steps, lambda s: s.grad_norm, color=4, rangemode="tozero")),
    ]


def _fraction(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _plain(value: Any) -> str:
    """A value of an event: text without quotes, other values as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
