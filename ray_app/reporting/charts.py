"""The report's charts. Pure: numbers in, Plotly figures as JSON out. The page sets the colors of text and grid."""

import html
import math
from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from ray_app.run_directory.evaluation_curve import MeasuredCheckpoint
from ray_app.run_directory.evaluation_report import EvaluationReport
from ray_app.run_directory.metrics import StepMetrics

# Mid tones that are distinguishable on a light and on a dark page.
PALETTE = (
    "#3b82d6", "#e07b39", "#2f9e6e", "#9a6bd8", "#d9534f", "#1f9fb3",
    "#c95f9e", "#8f8f2a", "#a06d4b", "#7d8794", "#5b6ee1", "#4f9a2f",
)  # fmt: skip
BEFORE_COLOR, AFTER_COLOR, BM25_COLOR = "#9aa3af", "#3b82d6", "#e0a039"
MOST_SOURCES = len(PALETTE)
_MOST_POINTS = 1200
_LONGEST_LABEL = 26

Series = list[tuple[int, float]]
Pick = Callable[[StepMetrics], float | None]


def series(steps: Sequence[StepMetrics], pick: Pick) -> Series:
    """(step, value) of the steps with a finite value, at most 1200 points. Longer runs become means of equal ranges."""
    points = [(s.step, float(v)) for s in steps if (v := pick(s)) is not None and math.isfinite(v)]
    stride = -(-len(points) // _MOST_POINTS)
    if stride <= 1:
        return points
    stretches = [points[i : i + stride] for i in range(0, len(points), stride)]
    return [(part[-1][0], math.fsum(value for _, value in part) / len(part)) for part in stretches]


def smooth(points: Series) -> Series:
    """Centered running mean over about a twentieth of the points, one-sided at the ends."""
    half = len(points) // 40
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    smoothed = []
    for i, (step, _) in enumerate(points):
        first, end = max(0, i - half), min(len(points), i + half + 1)
        smoothed.append((step, (sums[end] - sums[first]) / (end - first)))
    return smoothed


def loss_chart(steps: Sequence[StepMetrics]) -> str:
    """Total, hard-negative and in-batch loss, and the distance to the teacher."""
    curves: list[tuple[str, Pick]] = [
        ("total", lambda s: s.loss),
        ("hard negatives", lambda s: s.hard_negative_loss),
        ("in-batch", lambda s: s.in_batch_loss),
        ("teacher", lambda s: s.distillation_loss),
    ]
    figure = _lines([(name, series(steps, pick)) for name, pick in curves])
    return figure_json(figure, y_title="loss", height=360)


def curves_chart(curves: Sequence[tuple[str, Series]], *, x_title: str) -> str:
    """Losses of up to 12 runs, each smoothed over its own points."""
    return figure_json(_lines(curves[:MOST_SOURCES]), y_title="loss", height=380, x_title=x_title)


def bars_chart(names: Sequence[str], bars: Sequence[tuple[str, str, Sequence[float | None]]], *, digits: int) -> str:
    """Groups of bars, one group per name. Each of `bars` is a label, a color and the heights for all names."""
    figure = go.Figure()
    for label, color, heights in bars:
        figure.add_trace(
            go.Bar(
                name=label,
                orientation="h",
                x=heights,
                y=[html.escape(name) for name in names],
                text=["" if value is None else f"{value:,.{digits}f}" for value in heights],
                textposition="outside",
                cliponaxis=False,
                marker_color=color,
                hovertemplate=f"%{{y}}: %{{x:,.{digits}f}}<extra>{label}</extra>",
            )
        )
    figure.update_layout(barmode="group", bargap=0.3, bargroupgap=0.06)
    labels = [html.escape(short_label(name)) for name in names]
    ticks = [html.escape(name) for name in names]
    figure.update_yaxes(autorange="reversed", showgrid=False, tickvals=ticks, ticktext=labels)
    figure.update_xaxes(rangemode="tozero")
    height = 70 + (14 + 20 * len(bars)) * len(names)
    return figure_json(figure, height=height, x_title="", legend=len(bars) > 1, right=70)


def short_label(name: str) -> str:
    """The name, shortened so that the chart next to it has enough room."""
    return name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}…"


def largest_sources(steps: Sequence[StepMetrics]) -> list[str]:
    """Sources by the number of examples used, largest first."""
    examples: dict[str, int] = {}
    for step in steps:
        for name, source in step.sources.items():
            examples[name] = examples.get(name, 0) + source.examples
    return sorted(examples, key=lambda name: (-examples[name], name))


def source_loss_chart(steps: Sequence[StepMetrics]) -> str:
    """Total loss of each source, for the 12 sources with the most examples."""

    def loss_of(name: str) -> Pick:
        return lambda step: step.sources[name].loss if name in step.sources else None

    names = largest_sources(steps)[:MOST_SOURCES]
    return figure_json(_lines([(name, series(steps, loss_of(name))) for name in names]), y_title="loss", height=400)


def single_chart(steps: Sequence[StepMetrics], pick: Pick, *, color: int, smoothed: bool = True, **axis: Any) -> str:
    """One curve on a small chart. `axis` are options of the y axis."""
    points = series(steps, pick)
    figure = go.Figure()
    if smoothed and len(points) > 2:
        figure.add_trace(_trace("", points, PALETTE[color], faint=True))
        points = smooth(points)
    figure.add_trace(_trace("", points, PALETTE[color]))
    figure.update_yaxes(**axis)
    return figure_json(figure, height=220, legend=False)


def checkpoints_chart(measured: Sequence[MeasuredCheckpoint]) -> str:
    """nDCG@10 or Spearman's correlation of each held-out set by step, and their mean if there are several sets."""
    sets = list(dict.fromkeys(name for each in measured for name in each.sets))[: MOST_SOURCES - 1]
    curves = [(name, [(each.step, each.sets[name]) for each in measured if name in each.sets]) for name in sets]
    if len(sets) > 1:
        curves.insert(0, ("mean", [(each.step, each.score) for each in measured]))
    figure = go.Figure()
    for color, (name, points) in enumerate(curves):
        figure.add_trace(_trace(name, points, PALETTE[color]).update(mode="lines+markers"))
    return figure_json(figure, y_title="score", height=320)


def evaluation_chart(before: EvaluationReport | None, after: EvaluationReport | None, metric: str) -> str:
    """Bars per retrieval set: before, after and BM25. `metric` is a field of RankingMetrics."""
    results = (after or before or EvaluationReport(sets=())).retrieval
    figures = {
        "before": {r.name: getattr(r.model, metric) for r in before.retrieval} if before else {},
        "after": {r.name: getattr(r.model, metric) for r in after.retrieval} if after else {},
        "BM25": {r.name: getattr(r.bm25, metric) for r in results if r.bm25 is not None},
    }
    colors = {"before": BEFORE_COLOR, "after": AFTER_COLOR, "BM25": BM25_COLOR}
    figure = go.Figure()
    for label, values in figures.items():
        if values:
            heights = [values.get(r.name) for r in results]
            figure.add_trace(
                go.Bar(
                    name=label,
                    x=[html.escape(r.name) for r in results],
                    y=heights,
                    text=["" if value is None else f"{value:.3f}" for value in heights],
                    textposition="outside",
                    cliponaxis=False,
                    marker_color=colors[label],
                    hovertemplate="%{y:.4f}<extra>" + label + "</extra>",
                )
            )
    figure.update_layout(barmode="group", bargap=0.35, bargroupgap=0.08)
    figure.update_yaxes(range=[0, 1.08], tickvals=[0, 0.25, 0.5, 0.75, 1])
    return figure_json(figure, height=300, x_title=None)


def _lines(curves: Sequence[tuple[str, Series]]) -> go.Figure:
    """Each curve twice: raw and faint, and smoothed on top. A click on its name in the legend hides both."""
    figure = go.Figure()
    drawn = [(name, points, PALETTE[i]) for i, (name, points) in enumerate(curves) if points]
    for name, points, color in drawn:
        if len(points) > 2:
            figure.add_trace(_trace(name, points, color, faint=True))
    for name, points, color in drawn:
        figure.add_trace(_trace(name, smooth(points), color))
    return figure


def _trace(name: str, points: Series, color: str, *, faint: bool = False) -> go.Scatter:
    # Plotly interprets some HTML in names.
    label = html.escape(name)
    return go.Scatter(
        x=[step for step, _ in points],
        y=[float(f"{value:.6g}") for _, value in points],
        name=label,
        legendgroup=label,
        showlegend=not faint,
        mode="lines" if len(points) > 1 else "markers",
        line={"color": color, "width": 1 if faint else 2.2},
        marker={"color": color, "size": 8},
        opacity=0.28 if faint else 1.0,
        hoverinfo="skip" if faint else None,
        hovertemplate=None if faint else "%{y:.5g}<extra>" + label + "</extra>",
    )


def figure_json(
    figure: go.Figure,
    *,
    height: int,
    y_title: str | None = None,
    x_title: str | None = "step",
    legend: bool = True,
    right: int = 14,
) -> str:
    """The figure with the layout of the page, as JSON. `right` is the right margin."""
    figure.update_layout(
        template=None,
        height=height,
        margin={"l": 52, "r": right, "t": 34 if legend else 12, "b": 42 if x_title else 30},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hovermode="x unified" if x_title else "closest",
        font={"size": 12},
    )
    figure.update_xaxes(title_text=x_title, zeroline=False, showgrid=x_title is not None)
    figure.update_yaxes(title_text=y_title, zeroline=False)
    text: str = figure.to_json()
    return text
