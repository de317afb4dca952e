"""The page of `f2llm data stats --page`: the sources of a data set with charts, in one file that needs no network."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from data_io.errors import ConfigError
from data_io.inspection.statistics import DatasetStatistics, SourceStatistics
from ray_app.reporting.charts import PALETTE, figure_json
from ray_app.reporting.page import Chart, render_page

_MOST_ROWS_OF_A_CHART = 80
_ROLE_COLORS = {"query": PALETTE[0], "positive": PALETTE[2], "negative": PALETTE[1]}
_KIND_COLORS = {"retrieval": PALETTE[0], "clustering": PALETTE[2], "classification": PALETTE[3]}


@dataclass(frozen=True)
class _Histogram:
    source: SourceStatistics
    chart: Chart


def write_data_report(found: DatasetStatistics, out: Path) -> None:
    """Raises ConfigError if the file cannot be written."""
    page = render_data_report(found)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{out} cannot be written: {error.strerror}", remedy="give a file in a directory with write permission"
        ) from error


def render_data_report(found: DatasetStatistics) -> str:
    """The whole page with the numbers of `found`. Every text from the data set is escaped."""
    largest = sorted(found.sources, key=lambda source: (-source.rows, source.name))
    in_tokens = any(source.tokens for source in found.sources)
    return render_page(
        "data_report.html.j2",
        found=found,
        sources=largest,
        unit="tokens" if in_tokens else "characters",
        licenses=_by_license(found),
        kinds=_by_kind(found),
        measured=sum(source.rows_read for source in found.sources),
        removed=sum(source.prepared.get("repeated", 0) for source in found.sources),
        row_chart=Chart("Rows per source", _row_chart(largest[:_MOST_ROWS_OF_A_CHART])),
        histograms=[
            _Histogram(source, Chart(source.name, _length_chart(source, found.histogram_edges))) for source in largest
        ],
        lengths=lambda source: source.tokens if in_tokens else source.characters,
    )


def _by_license(found: DatasetStatistics) -> list[tuple[str, int, int]]:
    """Licenses with their numbers of sources and rows, most rows first."""
    return _summed([(source.license or "not recorded", source.rows) for source in found.sources])


def _by_kind(found: DatasetStatistics) -> list[tuple[str, int, int]]:
    return _summed([(source.kind, source.rows) for source in found.sources])


def _summed(named: Sequence[tuple[str, int]]) -> list[tuple[str, int, int]]:
    rows: dict[str, list[int]] = {}
    for name, count in named:
        rows.setdefault(name, []).append(count)
    return sorted(
        ((name, len(each), sum(each)) for name, each in rows.items()), key=lambda entry: (-entry[2], entry[0])
    )


def _row_chart(sources: Sequence[SourceStatistics]) -> str:
    """One bar per source, the largest on top, colored by task type."""
    figure = go.Figure()
    for kind in dict.fromkeys(source.kind for source in sources):
        mine = [source for source in sources if source.kind == kind]
        figure.add_trace(
            go.Bar(
                name=html.escape(kind),
                orientation="h",
                x=[source.rows for source in mine],
                y=[html.escape(source.name) for source in mine],
                text=[f"{source.rows:,}" for source in mine],
                textposition="outside",
                cliponaxis=False,
                marker_color=_KIND_COLORS.get(kind, PALETTE[4]),
                hovertemplate="%{y}: %{x:,} rows<extra></extra>",
            )
        )
    names = [html.escape(source.name) for source in reversed(sources)]
    figure.update_yaxes(categoryorder="array", categoryarray=names, showgrid=False)
    figure.update_xaxes(rangemode="tozero")
    figure.update_layout(bargap=0.25, barmode="overlay")
    return figure_json(figure, height=110 + 26 * len(sources), x_title="rows", right=70)


def _length_chart(source: SourceStatistics, edges: Sequence[int]) -> str:
    """Share of the texts of each role by length. Empty bins at both ends are left out."""
    lower = (0, *edges[:-1])
    filled = [i for i in range(len(edges)) if any(counts[i] for counts in source.histograms.values())]
    shown = range(filled[0], filled[-1] + 1) if filled else range(0)
    labels = [f"{lower[i]:,}" for i in shown]
    figure = go.Figure()
    for role, counts in source.histograms.items():
        total = sum(counts)
        figure.add_trace(
            go.Bar(
                name=role,
                x=labels,
                y=[round(counts[i] / total, 4) for i in shown],
                customdata=[[counts[i], _interval(lower[i], edges[i])] for i in shown],
                marker_color=_ROLE_COLORS[role],
                hovertemplate="%{y:.1%}, %{customdata[0]:,} texts of %{customdata[1]}<extra>" + role + "</extra>",
            )
        )
    figure.update_layout(barmode="group", bargap=0.15, bargroupgap=0.05)
    figure.update_xaxes(type="category")
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return figure_json(figure, height=260, x_title="tokens, from" if source.tokens else "characters, from")


def _interval(lower: int, upper: int) -> str:
    """The lengths from `lower` to below `upper`, as a label."""
    if upper >= 2**62:
        return f"{lower:,} and more"
    return f"{lower:,}" if upper - lower == 1 else f"{lower:,}-{upper - 1:,}"
