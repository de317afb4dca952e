"""The page of `f2llm runs --html`: a table of all runs, their curves in common charts, cost, and differing settings."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_io.errors import ConfigError
from ray_app.reporting import charts
from ray_app.reporting import tables as view
from ray_app.reporting.charts import AFTER_COLOR, BEFORE_COLOR, MOST_SOURCES, PALETTE
from ray_app.reporting.page import Chart, render_page
from ray_app.reporting.run_record import RunRecord
from ray_app.reporting.runs_table import RunFigures

_CLICK, _FAIR = "Click a name to hide its curve.", "A fair comparison if batch sizes differ."

Differences = Sequence[tuple[str, Mapping[str, str]]]
"""(path of a field, its values by name of the run)."""


def write_runs_page(
    uri: str, runs: Sequence[tuple[RunFigures, RunRecord]], differences: Differences, out: Path, *, price: str
) -> None:
    """Raises ConfigError if the file cannot be written."""
    page = render_runs(uri, runs, differences, price=price)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{out} cannot be written: {error.strerror}", remedy="give a file in a directory with write permission"
        ) from error


def render_runs(uri: str, runs: Sequence[tuple[RunFigures, RunRecord]], differences: Differences, *, price: str) -> str:
    """The whole page. `price` describes the price that the cost is computed with. Empty if no cost is computed."""
    newest = sorted(runs, key=lambda run: (run[0].updated is not None, run[0].updated), reverse=True)
    found = [figures for figures, _ in newest]
    return render_page(
        "runs.html.j2",
        {"words": view.words, "number": view.number},
        uri=uri,
        runs=found,
        price=price,
        hours=sum(each.gpu_hours or 0 for each in found),
        worker_hours=sum(each.worker_hours or 0 for each in found),
        cost=sum(each.cost or 0 for each in found),
        best=max((each.ndcg_at_10_after for each in found if each.ndcg_at_10_after is not None), default=None),
        curves=_curves([(figures.name, record) for figures, record in newest if record.steps]),
        bars=_bars(found),
        differences=[(path, values, _usual(values)) for path, values in differences],
        compared=list(dict.fromkeys(name for _, values in differences for name in values)),
    )


def _curves(runs: Sequence[tuple[str, RunRecord]]) -> list[Chart]:
    if not runs:
        return []
    hidden = len(runs) - MOST_SOURCES
    note = f"The {MOST_SOURCES} newest runs. The table has {hidden} more." if hidden > 0 else _CLICK
    newest = runs[:MOST_SOURCES]
    shown = [(name, record, charts.series(record.steps, lambda step: step.loss)) for name, record in newest]
    by_step = [(name, points) for name, _, points in shown]
    by_example = [(name, _by_example(record, points)) for name, record, points in shown]
    return [
        Chart("Loss by step", charts.curves_chart(by_step, x_title="step"), note),
        Chart("Loss by examples seen", charts.curves_chart(by_example, x_title="examples"), _FAIR),
    ]


def _by_example(record: RunRecord, points: charts.Series) -> charts.Series:
    seen, total = {}, 0
    for step in record.steps:
        total += step.examples
        seen[step.step] = total
    return [(seen[step], loss) for step, loss in points]


def _bars(runs: Sequence[RunFigures]) -> list[Chart]:
    found = []
    measured = [each for each in runs if each.ndcg_at_10_after is not None or each.ndcg_at_10_before is not None]
    if measured:
        bars = [
            ("before", BEFORE_COLOR, [each.ndcg_at_10_before for each in measured]),
            ("after", AFTER_COLOR, [each.ndcg_at_10_after for each in measured]),
        ]
        found.append(Chart("nDCG@10", charts.bars_chart([each.name for each in measured], bars, digits=3)))
    for title, field, color, digits in (
        ("Cost", "cost", PALETTE[1], 2),
        ("GPU hours", "gpu_hours", PALETTE[3], 1),
        ("Worker hours without GPUs", "worker_hours", PALETTE[2], 2),
    ):
        known = [each for each in runs if getattr(each, field) is not None]
        if field == "worker_hours":  # for runs with GPUs, GPU hours are shown instead
            known = [each for each in known if each.gpu_hours is None]
        if known:
            heights = [getattr(each, field) for each in known]
            found.append(
                Chart(title, charts.bars_chart([each.name for each in known], [("", color, heights)], digits=digits))
            )
    return found


def _usual(values: Mapping[str, str]) -> str:
    """The most frequent value."""
    return Counter(values.values()).most_common(1)[0][0]
