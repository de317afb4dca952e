"""`f2llm runs`: all runs below a directory or bucket prefix, in one table."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.cli.options import Debug, Json, print_json, s3_options, takes
from jobs.cli.output.text import aligned
from jobs.extras import needs

if TYPE_CHECKING:
    from data_io.data_spec import S3Options
    from jobs.spec.job import EmbeddingJob
    from ray_app.reporting.runs_table import RunFigures

_NAMED = 10
"""Number of runs that a message lists."""


@takes(s3_options)
def runs(
    s3: "S3Options",
    uri: Annotated[
        str,
        typer.Argument(metavar="URI", help="Directory or s3://bucket/prefix that contains runs.", show_default=False),
    ],
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option("--compare", metavar="A B", help="Show how the job specs of two runs differ.", show_default=False),
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option("--prices", metavar="FILE", help="Prices per GPU hour, as for f2llm plan.", show_default=False),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", metavar="NAME", help="GPU of --prices that the runs used.", show_default=False),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Also write a page with this table and curves.", show_default=False
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List runs with their metrics, or compare two runs.

    Damaged runs are listed too, with a note.
    """
    price, price_text = (None, "") if prices is None else _price(prices, gpu)
    with needs("train"):
        from jobs.workflows.reports import runs_below, write_runs_page
    found = runs_below(uri, s3, gpu_price=price)
    figures = [each for each, _ in found]
    job_specs = {each.name: record.job_spec for each, record in found}
    if html is not None:
        write_runs_page(uri, found, _differences(job_specs), str(html), price=price_text)
    pair = None if compare is None else _compared(uri, job_specs, compare)
    if json:
        answer: dict[str, Any] = {"uri": uri, "runs": [each.to_dict() for each in figures]}
        if compare is not None and pair is not None:
            answer["compare"] = {"runs": list(compare), "differences": dict(pair)}
        print_json(answer)
        return
    if compare is not None and pair is not None:
        figures = [each for name in compare for each in figures if each.name == name]
    for line in table(figures):
        print(line)
    if pair is not None:
        print()
        for line in _difference_lines(pair):
            print(line)
    if html is not None:
        print(html)


def table(figures: "Sequence[RunFigures]") -> Iterator[str]:
    """A table with one line per run, then one line per problem of a run."""
    head = ["RUN", "PHASE", "STEPS", "LOSS", "NDCG@10", "EXAMPLES/S", "GOODPUT", "HOURS", "COST", "UPDATED"]
    yield from aligned([head, *map(_row, figures)])
    for each in figures:
        for note in each.notes:
            yield f"{each.name or '.'}: {note}"


def _row(run: "RunFigures") -> list[str]:
    from jobs.formatting import short_number

    before, after = (
        None if value is None else f"{value:.3f}" for value in (run.ndcg_at_10_before, run.ndcg_at_10_after)
    )
    hours = "-"
    if run.gpu_hours is not None:
        hours = f"{run.gpu_hours:,.2f} GPU"
    elif run.worker_hours is not None:
        hours = f"{run.worker_hours:,.2f} worker"
    return [
        run.name or ".",
        (run.phase or "unknown") + (" (lost contact)" if run.stale_seconds is not None else ""),
        f"{run.step}/{run.total_steps}" if run.total_steps else str(run.step or "-"),
        "-" if run.loss is None else f"{run.loss:.3f}",
        f"{before or '?'} -> {after or '?'}" if before or after else "-",
        "-" if run.examples_per_second is None else short_number(run.examples_per_second),
        "-" if run.goodput is None else f"{run.goodput:.0%}",
        hours,
        "-" if run.cost is None else f"{run.cost:,.2f}",
        "-" if run.updated is None else f"{run.updated:%Y-%m-%d %H:%M} UTC",
    ]


def _difference_lines(pair: Iterable[tuple[str, Sequence[Any]]]) -> Iterator[str]:
    from jobs.spec.diff import value_text

    lines = [f"spec.{path}: {value_text(first)} -> {value_text(second)}" for path, (first, second) in pair]
    yield from lines or ["the job specs are equal"]


def _compared(uri: str, job_specs: dict[str, str], names: tuple[str, str]) -> list[tuple[str, list[Any]]]:
    """The differences between two runs. Raises UsageError for an unknown name, ConfigError for a damaged job spec."""
    from jobs.errors import UsageError
    from jobs.spec.diff import compare
    from jobs.spec.validation import close_names

    for name in names:
        if name not in job_specs:
            remedy = close_names(name, job_specs, otherwise=f"the runs are {_listed(list(job_specs))}")
            raise UsageError(f"--compare {name}: no such run below {uri}", remedy=remedy)
    return compare([_parsed(name, job_specs[name]) for name in names])


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _differences(job_specs: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    """The fields whose values differ between the job specs. Unreadable job specs are left out."""
    from jobs.errors import ConfigError
    from jobs.spec.diff import compare, value_text

    parsed = {}
    for name, text in job_specs.items():
        try:
            parsed[name] = _parsed(name, text)
        except ConfigError:
            continue
    return [
        (path, dict(zip(parsed, map(value_text, values), strict=True)))
        for path, values in (compare(list(parsed.values())) if len(parsed) > 1 else [])
    ]


def _parsed(name: str, text: str) -> "EmbeddingJob":
    from jobs.spec.job import parse_job_spec
    from jobs.spec.yaml12 import read_yaml

    return parse_job_spec(read_yaml(text, f"{name}/job.yaml"))


def _price(path: Path, gpu: str | None) -> tuple[float, str]:
    """The price of one GPU hour, and its description. Raises UsageError if the GPU is ambiguous or unknown."""
    from jobs.errors import UsageError
    from jobs.planning.cost import load_prices

    table = load_prices(str(path))
    chosen = gpu or (next(iter(table)) if len(table) == 1 else None)
    if chosen not in table:
        found = (
            f"--gpu {gpu}: not in {path}" if gpu else f"{path} has {len(table)} GPUs, and runs do not record their GPU"
        )
        raise UsageError(found, remedy=f"add --gpu NAME, one of {', '.join(table)}")
    return table[chosen].price, f"{table[chosen].price:g} per hour of one {chosen}"
