"""Dashboards and alerts ask for what somebody exports."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from jobs.controller.metrics import FAMILIES
from tools.generate.dashboards.__main__ import DASHBOARDS, FOLDER
from tools.generate.dashboards.grafana_json import Dashboard, write

RULES = Path("helm/f2llm-platform/templates/_alert-rules.tpl")
METRIC = re.compile(r"\b(?:f2llm|ray)[_:][a-zA-Z0-9_:]+")
BOARDS = pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)


def of_ray() -> set[str]:
    """What Ray's agent on each node exports, read off the wheel that is pinned."""
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent / "dashboard" / "modules" / "reporter" / "reporter_agent.py"
    return {f"ray_{name}" for name in re.findall(r'"(\w+)": Gauge\(', source.read_text())}


def exported() -> set[str]:
    histograms = {f"{each.name}_bucket" for each in FAMILIES if each.type == "histogram"}
    recorded = set(re.findall(r"record: (\S+)", RULES.read_text()))
    return {each.name for each in FAMILIES if each.type != "histogram"} | histograms | recorded | of_ray()


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_of_the_chart_is_up_to_date(name: str) -> None:
    assert (FOLDER / name).read_text() == write(DASHBOARDS[name]), "run `make generate`"
    assert {path.name for path in FOLDER.iterdir()} == set(DASHBOARDS)


@BOARDS
def test_every_panel_asks_for_metrics_that_are_exported(board: Dashboard) -> None:
    for panel in board.panels:
        asked = {name for query in panel.queries for name in METRIC.findall(query.expr)}

        assert asked, panel.title
        assert asked <= exported(), panel.title


def test_every_rule_asks_for_metrics_that_are_exported() -> None:
    asked = {name for name in METRIC.findall(RULES.read_text()) if not name.startswith("f2llm_dev")}

    assert len(asked) > 15
    assert asked <= exported()


def test_every_metric_of_a_job_is_on_a_dashboard_or_in_a_rule() -> None:
    shown = {name for board in DASHBOARDS.values() for panel in board.panels for query in panel.queries
             for name in METRIC.findall(query.expr)}  # fmt: skip

    assert {each.name for each in FAMILIES if each.type == "gauge"} <= shown | set(METRIC.findall(RULES.read_text()))


@BOARDS
def test_a_row_of_panels_leaves_no_gap(board: Dashboard) -> None:
    for row in board.rows:
        assert sum(panel.width for panel in row.panels) % 24 == 0, row.title


@BOARDS
def test_grafana_finds_everything_that_a_panel_needs(board: Dashboard) -> None:
    written = json.loads(write(board))

    panels = [panel for panel in written["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in panels] == [panel.title for panel in board.panels]
    assert written["uid"] == board.uid
    assert {panel["datasource"]["uid"] for panel in panels} == {"$datasource"}
    assert {each["name"] for each in written["templating"]["list"]} == {
        "datasource",
        *(choice.name for choice in board.choices),
    }
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
