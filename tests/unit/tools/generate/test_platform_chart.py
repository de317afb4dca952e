"""The platform chart beside the operator and the pages that describe it."""

import json
import re
from pathlib import Path

from jobs.spec.yaml12 import read_yaml
from tools.generate.chart_readme import CHART, leaves, readme

ALERT = re.compile(r'"name" "(F2LLM\w+)"')
RULES = (CHART / "templates" / "_alert-rules.tpl").read_text()


def test_the_readme_of_the_chart_is_up_to_date() -> None:
    assert (CHART / "README.md").read_text() == readme(), "run `make generate`"


def test_every_value_is_described_and_every_default_is_a_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = read_yaml((CHART / "values.yaml").read_text(), "values.yaml", holds="values").value

    described = list(leaves(schema, values))

    assert [path for path, _, words in described if not words.endswith(".")] == []
    assert [path for path, default, _ in described if default is None and "[]" not in path] == []


def test_every_alert_has_its_chapter_in_the_runbook_and_every_chapter_its_alert(project_root: Path) -> None:
    page = (project_root / "docs" / "cluster" / "alerts.md").read_text()

    alerts = ALERT.findall(RULES)

    assert len(alerts) == 9
    assert re.findall(r"^## (F2LLM\w+)$", page, re.MULTILINE) == alerts
