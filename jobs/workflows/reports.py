"""Pages about runs and data sets. Needs the extras `data` and `eval`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from data_io.data_spec import S3Options
from data_io.errors import NotFoundInStore
from data_io.inspection.statistics import DatasetStatistics
from data_io.storage.store import open_store
from jobs.workflows.runs import RUN_HINT
from ray_app.reporting import dataset_page, runs_page
from ray_app.reporting.run_record import RunRecord
from ray_app.reporting.run_report import write_report
from ray_app.reporting.runs_table import RunFigures, figures_of, read_runs


def report_run(run_uri: str, s3: S3Options) -> str:
    """Write report.html of a run and return its path. Raises NotFoundInStore if there is no run."""
    run = open_store(run_uri, s3)
    if not run.exists("job.yaml"):
        raise NotFoundInStore(f"no run at {run_uri}: it has no job.yaml", remedy=RUN_HINT)
    write_report(run)
    return f"{run.uri}/report.html"


def runs_below(uri: str, s3: S3Options, *, gpu_price: float | None) -> list[tuple[RunFigures, RunRecord]]:
    """Every run at `uri` or below it. Raises NotFoundInStore if there are no runs."""
    found = read_runs(open_store(uri, s3))
    if not found:
        raise NotFoundInStore(f"no run at {uri} or below it", remedy="pass storage.uri of your job specs")
    now = datetime.now(UTC)
    return [(figures_of(name, record, gpu_price=gpu_price, now=now), record) for name, record in found]


def write_runs_page(
    uri: str,
    runs: Sequence[tuple[RunFigures, RunRecord]],
    differences: Sequence[tuple[str, Mapping[str, str]]],
    page: str,
    *,
    price: str,
) -> None:
    """Write a page that shows runs side by side to the local file `page`."""
    runs_page.write_runs_page(uri, runs, differences, Path(page), price=price)


def write_dataset_page(found: DatasetStatistics, page: str) -> None:
    """Write a page that shows a data set's statistics to the local file `page`."""
    dataset_page.write_data_report(found, Path(page))
