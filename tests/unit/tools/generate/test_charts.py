"""The charts' READMEs and values, and the platform chart's alerts next to the page about them."""

import re
from pathlib import Path

import pytest

from tools.generate.chart_readme import CHARTS, HEADS, described_values, readme

ALERT = re.compile(r'"name" "(F2LLM\w+)"')
RULES = (CHARTS / "f2llm-platform" / "templates" / "_alert-rules.tpl").read_text()


@pytest.mark.parametrize("chart", HEADS)
def test_the_readme_of_a_chart_is_up_to_date(chart: str) -> None:
    assert (CHARTS / chart / "README.md").read_text() == readme(chart), "run `make generate`"


@pytest.mark.parametrize("chart", HEADS)
def test_every_value_is_described_and_every_default_is_a_value(chart: str) -> None:
    described = list(described_values(chart))

    assert [path for path, _, words in described if not re.search(r"\.\)?$", words)] == []
    assert [path for path, default, _ in described if default is None and "[]" not in path] == []


def test_every_alert_has_its_chapter_in_the_runbook_and_every_chapter_its_alert(project_root: Path) -> None:
    page = (project_root / "docs" / "cluster" / "alerts.md").read_text()

    alerts = ALERT.findall(RULES)

    assert len(alerts) == 9
    assert re.findall(r"^## (F2LLM\w+)$", page, re.MULTILINE) == alerts


def test_alerts_link_to_the_runbook(project_root: Path) -> None:
    (link,) = [default for path, default, _ in described_values("f2llm-platform") if path == "alerts.runbooks"]

    assert (project_root / link.partition("/blob/main/")[2]).is_file()
