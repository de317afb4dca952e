"""`f2llm data validate`: check every byte and row of a data set."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from data_io.wording import counted
from jobs.cli.options import DataUri, Debug, Json, Quiet, print_json, s3_options, takes
from jobs.cli.output.text import Percent, say, size_text
from jobs.extras import needs

if TYPE_CHECKING:
    from data_io.data_spec import S3Options
    from jobs.workflows.data import DataReport

_SHOWN_PROBLEMS = 20


@takes(s3_options)
def validate(s3: "S3Options", data: DataUri, quiet: Quiet = False, json: Json = False, debug: Debug = False) -> None:
    """Read a data set completely, and check every byte and row.

    Lists every problem with its position. Exit code 4 if there are problems.
    """
    on_bytes = (lambda done, total: None) if quiet else Percent("read")
    with needs("data"):
        from jobs.workflows.data import verify_data
    report = verify_data(data, s3, on_bytes=on_bytes)
    if json:
        print_json({"ok": not report.problems, **asdict(report)})
    else:
        _print_report(data, report)
    if report.problems:
        raise typer.Exit(4)


def _print_report(uri: str, report: "DataReport") -> None:
    looked_at = ", ".join(
        [
            counted(report.sources, "source"),
            counted(report.shards, "shard"),
            counted(report.rows, "row"),
            size_text(report.bytes),
        ]
    )
    if not report.problems:
        print(f"{uri}: no problems ({looked_at}), version {report.version}")
        return
    for problem in report.problems[:_SHOWN_PROBLEMS]:
        say(f"error: {problem}")
    if len(report.problems) > _SHOWN_PROBLEMS:
        say(f"... and {len(report.problems) - _SHOWN_PROBLEMS} more; --json lists all of them")
    if report.version is not None:  # without a manifest nothing else was checked
        say(f"{uri}: {counted(len(report.problems), 'problem')} in {looked_at}")
    say("  hint: prepare the data set again (`f2llm data prepare`), or copy these files from an undamaged copy")
