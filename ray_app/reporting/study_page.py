"""The page of an ablation study: every variant compared with the base, the differences by seed, and the losses."""

import html
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import plotly.graph_objects as go

from data_io.wording import counted
from ray_app.reporting import charts
from ray_app.reporting import tables as view
from ray_app.reporting.charts import MOST_SOURCES, PALETTE
from ray_app.reporting.page import Chart, render_page
from ray_app.reporting.run_record import RunRecord
from ray_app.reporting.study_report import StudyResults, VariantResult, measure_words
from ray_app.run_directory.metrics import StepMetrics

_OWN_TERMS = "If a variant omits a term of the loss, its total is lower. Compare the terms, not the total."
_CLICK = "Click a name to hide its curve."


def render_study(found: StudyResults, records: Mapping[str, RunRecord]) -> str:
    """The whole page. `records` are the records of the runs, by name."""
    measures = list(dict.fromkeys(name for variant in found.variants for name in variant.spreads))
    return render_page(
        "study.html.j2",
        {"words": view.words, "measure": measure_words, "number": view.number, "signed": _signed, "value": _value},
        study=found,
        measures=[*(m for m in measures if m == found.metric), *(m for m in measures if m != found.metric)],
        plots=_plots(found, measures),
        curves=_curves(found, records),
        total=len(found.runs),
    )


def _plots(found: StudyResults, measures: Sequence[str]) -> list[Chart]:
    """Differences from the base with their intervals, and the values themselves, for the study's metric."""
    if found.metric not in measures:
        return []
    name = measure_words(found.metric)
    seeds = (
        f"{found.confidence:.0%} t-intervals of the mean over {counted(len(found.seeds), 'seed')}. Each dot is a seed."
    )
    plots = [Chart(name, _values_chart(found.variants, found.metric), "Each dot is a seed. The bar is their mean.")]
    others = [variant for variant in found.variants if found.metric in variant.differences]
    if others:
        plots.insert(0, Chart(f"Difference from the base in {name}", _differences_chart(found, others), seeds))
    return plots


def _differences_chart(found: StudyResults, variants: Sequence[VariantResult]) -> str:
    base = {run.seed: run.measures.get(found.metric) for run in found.variants[0].runs}
    figure = go.Figure()
    for variant in variants:
        each = [
            (run.seed, run.measures[found.metric] - its)
            for run in variant.runs
            if found.metric in run.measures and (its := base[run.seed]) is not None
        ]
        figure.add_trace(_seeds(variant.name, each, ".4f"))
    means = [variant.differences[found.metric] for variant in variants]
    figure.add_trace(
        go.Scatter(
            x=[each.mean for each in means],
            y=[html.escape(variant.name) for variant in variants],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [None if each.high is None else each.high - each.mean for each in means],
                "arrayminus": [None if each.low is None else each.mean - each.low for each in means],
                "thickness": 2,
                "width": 6,
                "color": PALETTE[0],
            },
            mode="markers",
            marker={"color": PALETTE[0], "size": 10, "symbol": "diamond"},
            hovertemplate="mean %{x:+.4f}<extra>%{y}</extra>",
        )
    )
    figure.add_vline(x=0, line={"color": "#8f98a5", "width": 1.2, "dash": "dot"})
    return _by_name(figure, variants)


def _values_chart(variants: Sequence[VariantResult], metric: str) -> str:
    figure = go.Figure()
    known = [variant for variant in variants if metric in variant.spreads]
    names = [html.escape(variant.name) for variant in known]
    means = [variant.spreads[metric].mean for variant in known]
    figure.add_trace(
        go.Bar(
            x=means, y=names, orientation="h", marker_color=PALETTE[0], opacity=0.55, width=0.55,
            hovertemplate="mean %{x:.4f}<extra>%{y}</extra>",
        )
    )  # fmt: skip
    for variant in known:
        each = [(run.seed, run.measures[metric]) for run in variant.runs if metric in run.measures]
        figure.add_trace(_seeds(variant.name, each, ".4f"))
    figure.update_xaxes(rangemode="tozero")
    return _by_name(figure, known)


def _seeds(name: str, values: Sequence[tuple[int, float]], digits: str) -> go.Scatter:
    return go.Scatter(
        x=[value for _, value in values],
        y=[html.escape(name)] * len(values),
        mode="markers",
        marker={"color": PALETTE[1], "size": 7},
        customdata=[seed for seed, _ in values],
        hovertemplate=f"seed %{{customdata}}: %{{x:{digits}}}<extra>{html.escape(name)}</extra>",
    )


def _by_name(figure: go.Figure, variants: Sequence[VariantResult]) -> str:
    names = [html.escape(variant.name) for variant in variants]
    figure.update_yaxes(
        showgrid=False, categoryorder="array", categoryarray=names, autorange="reversed", tickvals=names,
        ticktext=[html.escape(charts.short_label(variant.name)) for variant in variants],
    )  # fmt: skip
    return charts.figure_json(figure, height=80 + 34 * len(variants), x_title="", legend=False, right=24)


def _curves(found: StudyResults, records: Mapping[str, RunRecord]) -> list[Chart]:
    """Mean over the seeds, step by step, of the loss and of its two terms."""
    terms: list[tuple[str, charts.Pick, str]] = [
        ("Loss", lambda step: step.loss, _OWN_TERMS),
        ("Hard-negative loss", lambda step: step.hard_negative_loss or None, _CLICK),
        ("In-batch loss", lambda step: step.in_batch_loss, _CLICK),
    ]
    plots = []
    for title, pick, note in terms:
        curves = [(variant.name, _mean_curve(variant, records, pick)) for variant in found.variants]
        drawn = [(name, points) for name, points in curves if points]
        if drawn:
            hidden = len(drawn) - MOST_SOURCES
            said = f"{note} Only the first {MOST_SOURCES} variants are shown." if hidden > 0 else note
            plots.append(Chart(f"{title}, mean over the seeds", charts.curves_chart(drawn, x_title="step"), said))
    return plots


def _mean_curve(variant: VariantResult, records: Mapping[str, RunRecord], pick: charts.Pick) -> charts.Series:
    """Mean over the finished runs, or over the active runs if none is finished, of the steps that all runs have."""
    runs = [run for run in variant.runs if run.measures] or variant.runs
    steps: list[tuple[StepMetrics, ...]] = [
        records[run.name].steps for run in runs if run.name in records and records[run.name].steps
    ]
    found = []
    for together in zip_longest(*steps):
        values = [value for step in together if step is not None and (value := pick(step)) is not None]
        if len(values) == len(steps) and together[0] is not None:
            found.append((together[0].step, sum(values) / len(values)))
    return found


def _signed(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:+,.{digits}f}"


def _value(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
