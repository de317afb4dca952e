"""Converts panels (plain values) to Grafana's JSON. The only module that imports its library."""

import json
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard as boards
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard

_SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="$datasource")


@dataclass(frozen=True)
class Query:
    """PromQL, and the names of its series: text with {{label}}."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One chart: series over time, or with `number` the newest value. `unit` is Grafana's name of the unit, `width` is
    in columns of 24.
    """

    title: str
    words: str
    queries: tuple[Query, ...]
    unit: str = "short"
    width: int = 8
    number: bool = False
    lowest: float | None = 0


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Choice:
    """A variable of a dashboard: the label values from a PromQL `query`, or fixed `values` by name."""

    name: str
    words: str
    query: str = ""
    values: tuple[tuple[str, str], ...] = ()
    several: bool = False


@dataclass(frozen=True)
class Dashboard:
    """A page. `uid` is part of its URL and must never change."""

    uid: str
    title: str
    words: str
    choices: tuple[Choice, ...]
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)


def write(board: Dashboard) -> str:
    """JSON for Grafana 11.6 and newer."""
    builder = (
        boards.Dashboard(board.title)
        .uid(board.uid)
        .description(board.words)
        .tags(["f2llm"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .with_variable(boards.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for choice in board.choices:
        builder.with_variable(_variable(choice))
    for row in board.rows:
        builder.with_row(boards.Row(row.title))
        for panel in row.panels:
            builder.with_panel(_panel(panel))
    content = json.loads(json.dumps(builder.build(), cls=JSONEncoder))
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _panel(panel: Panel) -> Any:
    made: Any = _number(panel) if panel.number else _series(panel)
    made = made.title(panel.title).description(panel.words).unit(panel.unit).span(panel.width).datasource(_SOURCE)
    for letter, query in zip("ABCDEF", panel.queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter)
        made = made.with_target(target.instant() if panel.number else target)
    return made


def _number(panel: Panel) -> Any:
    newest = ReduceDataOptions().calcs(["lastNotNull"])
    made = stat.Panel().height(4).reduce_options(newest).graph_mode(common.BigValueGraphMode.NONE)
    # Show the name of a named series, because its value is always 1.
    return made.text_mode(common.BigValueTextMode.NAME) if panel.queries[0].legend else made


def _series(panel: Panel) -> Any:
    legend = VizLegendOptions().show_legend(True).display_mode(common.LegendDisplayMode.LIST)
    made = timeseries.Panel().height(8).fill_opacity(8).legend(legend.placement(common.LegendPlacement.BOTTOM))
    return made if panel.lowest is None else made.min(panel.lowest)


def _variable(choice: Choice) -> Any:
    if choice.values:
        made = boards.CustomVariable(choice.name).label(choice.words)
        return made.values(", ".join(f"{name} : {value}" for name, value in choice.values))
    query = boards.QueryVariable(choice.name).label(choice.words).datasource(_SOURCE).query(choice.query)
    query = query.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    return query.multi(True).include_all(True).all_value(".*") if choice.several else query


def row(title: str, *panels: Panel) -> Row:
    return Row(title, panels)


def panel(title: str, words: str, *queries: Query | tuple[str, str], **options: Any) -> Panel:
    given = tuple(each if isinstance(each, Query) else Query(*each) for each in queries)
    return Panel(title, words, given, **options)
