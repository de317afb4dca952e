"""`f2llm report`: the HTML report of a run."""

from typing import TYPE_CHECKING

from jobs.cli.options import Debug, RunUri, s3_options, takes
from jobs.extras import needs

if TYPE_CHECKING:
    from data_io.data_spec import S3Options


@takes(s3_options)
def report(s3: "S3Options", run: RunUri, debug: Debug = False) -> None:
    """Write report.html of a run again, and print its path."""
    with needs("train"):
        from jobs.workflows.reports import report_run
    print(report_run(run, s3))
