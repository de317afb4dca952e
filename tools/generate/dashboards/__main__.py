"""Writes the dashboards into the chart: `python -m tools.generate.dashboards`. A test fails if they are out of date."""

from pathlib import Path

from tools.generate.dashboards.fleet import FLEET
from tools.generate.dashboards.grafana_json import write
from tools.generate.dashboards.job import JOB

FOLDER = Path(__file__).parents[3] / "helm" / "f2llm-platform" / "files" / "dashboards"
DASHBOARDS = {"fleet.json": FLEET, "job.json": JOB}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, board in DASHBOARDS.items():
        (FOLDER / name).write_text(write(board), encoding="utf-8")


if __name__ == "__main__":
    main()
