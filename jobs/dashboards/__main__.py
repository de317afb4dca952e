"""Writes the dashboards into the chart: `python -m jobs.dashboards`. A test fails where they are out of date."""

from pathlib import Path

from jobs.dashboards.fleet import FLEET
from jobs.dashboards.job import JOB
from jobs.dashboards.panels import write

FOLDER = Path(__file__).parents[2] / "helm" / "f2llm-platform" / "files" / "dashboards"
DASHBOARDS = {"fleet.json": FLEET, "job.json": JOB}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, board in DASHBOARDS.items():
        (FOLDER / name).write_text(write(board), encoding="utf-8")


if __name__ == "__main__":
    main()
