"""`f2llm export`: the model directory of a run."""

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.options import Data, Debug, RunUri, s3_options, takes
from jobs.extras import needs

if TYPE_CHECKING:
    from data_io.data_spec import S3Options


@takes(s3_options)
def export(
    s3: "S3Options",
    run: RunUri,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="URI",
            help="Directory or s3:// prefix for the model: empty, or an earlier export. Default: RUN/model.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    debug: Debug = False,
) -> None:
    """Write the newest checkpoint of a run as a model directory.

    sentence-transformers and transformers can load it.
    """
    with needs("train"):
        from jobs.workflows.models import export_run
        from jobs.workflows.runs import job_spec_of
    job = job_spec_of(run, data, s3)
    print(export_run(job, run, out=out))
