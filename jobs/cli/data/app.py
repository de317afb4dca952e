"""`f2llm data`: make, check and describe data sets."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.data import contamination, mine, prepare, sources
from jobs.cli.options import AllowHttp, DataUri, Debug, EndpointUrl, Json, Quiet, Region, print_json, s3_options
from jobs.cli.output.text import Percent, say, say_nothing, size_text
from jobs.extras import needs

if TYPE_CHECKING:
    from jobs.workflows.data import DataReport

app = typer.Typer(help="Make, check and describe data sets.", no_args_is_help=True, rich_markup_mode=None)
app.command("prepare")(prepare.prepare)
app.command("sources")(sources.sources)
app.command("mine")(mine.mine)
app.command("contamination")(contamination.contamination)
_SHOWN_PROBLEMS = 20


@app.command()
def validate(
    data: DataUri,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    allow_http: AllowHttp = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Read a whole data set and check every byte and row.

    Exit code 4 where anything is wrong; every problem is listed with its place.
    """
    on_bytes = (lambda done, total: None) if quiet else Percent("read")
    with needs("data"):
        from jobs.workflows.data import verify_data
    report = verify_data(data, s3_options(endpoint_url, region, allow_http), on_bytes=on_bytes)
    if json:
        print_json({"ok": not report.problems, **asdict(report)})
    else:
        _print_report(data, report)
    if report.problems:
        raise typer.Exit(4)


@app.command()
def stats(
    data: DataUri,
    everything: Annotated[
        bool, typer.Option("--all", help="Measure every row, not a sample of up to 64 row groups a source.")
    ] = False,
    page: Annotated[
        str | None,
        typer.Option("--page", metavar="FILE.html", help="Also write a page with charts.", show_default=False),
    ] = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    allow_http: AllowHttp = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print what a data set holds: rows, lengths of its texts, repeated texts and licenses.

    Lengths are in characters, and in tokens where the data set has a tokenizer.
    """
    from jobs.cli.output.statistics import print_statistics

    s3, tell = s3_options(endpoint_url, region, allow_http), say_nothing if quiet else say
    with needs("data"):
        from jobs.workflows.data import data_statistics
    found = data_statistics(data, s3, everything=everything, say=tell)
    if page is not None:
        with needs("train"):
            from jobs.workflows.reports import write_dataset_page
        write_dataset_page(found, page)
        tell(f"written to {page}")
    if json:
        print_json(found.to_dict())
    else:
        print_statistics(found)


def _print_report(uri: str, report: "DataReport") -> None:
    looked_at = f"{report.sources} sources, {report.shards} shards, {report.rows:,} rows, {size_text(report.bytes)}"
    if not report.problems:
        print(f"{uri}: whole ({looked_at}), version {report.version}")
        return
    for problem in report.problems[:_SHOWN_PROBLEMS]:
        say(f"error: {problem}")
    if len(report.problems) > _SHOWN_PROBLEMS:
        say(f"... and {len(report.problems) - _SHOWN_PROBLEMS} more; --json lists all")
    if report.version is not None:  # else there is no manifest, and nothing else was looked at
        say(f"{uri}: {len(report.problems)} problem{'s' * (len(report.problems) > 1)} in {looked_at}")
    say("  to mend it: prepare the data set again (`f2llm data prepare`), or copy these objects from a whole one")
