"""`f2llm data stats`: statistics of a data set."""

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.options import DataUri, Debug, Json, Quiet, print_json, s3_options, takes
from jobs.cli.output.text import say, say_nothing
from jobs.extras import needs

if TYPE_CHECKING:
    from data_io.data_spec import S3Options


@takes(s3_options)
def stats(
    s3: "S3Options",
    data: DataUri,
    everything: Annotated[
        bool, typer.Option("--all", help="Read all rows. Default: a sample of up to 64 row groups per source.")
    ] = False,
    page: Annotated[
        str | None,
        typer.Option("--page", metavar="FILE.html", help="Also write a page with charts.", show_default=False),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print rows, text lengths, repeated texts and licenses.

    Lengths are in characters, and also in tokens if the data set has a tokenizer.
    """
    from jobs.cli.output.statistics import print_statistics

    tell = say_nothing if quiet else say
    with needs("data"):
        from jobs.workflows.data import data_statistics
    found = data_statistics(data, s3, everything=everything, say=tell)
    if page is not None:
        with needs("train"):
            from jobs.workflows.reports import write_dataset_page
        write_dataset_page(found, page)
        tell(f"page: {page}")
    if json:
        print_json(found.to_dict())
    else:
        print_statistics(found)
