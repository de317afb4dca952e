"""`f2llm data contamination`: evaluation texts in the training data."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from data_io.inspection.contamination_report import PERMUTATIONS, SHINGLE, THRESHOLD
from jobs.cli.options import DataUri, Debug, Json, Quiet, print_json, s3_options, takes
from jobs.cli.output.text import aligned, say, say_nothing
from jobs.extras import needs

if TYPE_CHECKING:
    from data_io.data_spec import S3Options
    from data_io.inspection.contamination_report import ContaminationReport, Match, Overlap

_SHOWN_CHARACTERS = 150


@takes(s3_options)
def contamination(
    s3: "S3Options",
    data: DataUri,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar="NAME|NAME:KIND=FILE",
            help="mteb task or benchmark, your own file, or `held-out` for the held-out sets. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option(
            "--texts",
            metavar="FILE",
            help="All texts of a file (JSONL, CSV, Parquet, .txt) or of a data set's held-out sets. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option("--threshold", min=0.1, max=1, metavar="X", help="Lowest Jaccard similarity of a near copy."),
    ] = THRESHOLD,
    shingle: Annotated[int, typer.Option("--shingle", min=1, metavar="N", help="Characters per shingle.")] = SHINGLE,
    permutations: Annotated[
        int, typer.Option("--permutations", min=16, metavar="N", help="Hash functions per MinHash.")
    ] = PERMUTATIONS,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows",
            min=1,
            metavar="N",
            help="Read about N evenly spread rows per source. Default: all.",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Find copies of evaluation texts in a data set.

    Looks for exact and near copies in the queries and positives of each source.

    Default: the texts of the held-out sets of the data set. Exact copies ignore case and white space, like
    --exclude-benchmark of `f2llm data prepare`. Near copies are found with MinHash. For a retrieval task, the queries
    and their relevant documents are compared.
    """
    wanted = task or ([] if texts else ["held-out"])
    with needs("data"):
        from jobs.workflows.data import find_contamination
    report = find_contamination(
        data, s3, tasks=wanted, texts=texts or (), threshold=threshold, shingle=shingle, permutations=permutations,
        rows_per_source=rows, say=say_nothing if quiet else say,
    )  # fmt: skip
    if json:
        print_json(report.to_dict())
        return
    for line in report_lines(report):
        print(line)


def report_lines(report: "ContaminationReport") -> Iterator[str]:
    """A table of the sources, a table of the evaluations, and sample pairs."""
    if report.overlaps:
        head = ["SOURCE", "EVALUATION", "ROWS", "SHARE", "EXACT QUERY", "EXACT POSITIVE", "NEAR QUERY", "NEAR POSITIVE"]
        read = {source.name: source.rows_read for source in report.sources}
        yield from aligned([head, *(_overlap_cells(each, read[each.source]) for each in report.overlaps)])
        yield ""
    met = [
        [each.name, f"{each.texts:,}", f"{each.exact:,}", f"{each.near:,}", _share(each.exact + each.near, each.texts)]
        for each in report.evaluations
    ]
    yield from aligned([["EVALUATION", "TEXTS", "EXACT COPIES", "NEAR COPIES", "SHARE"], *met])
    yield ""
    for overlap, match in report.samples():
        yield from _sample_lines(overlap, match)
    rows, rows_read = (sum(getattr(each, what) for each in report.sources) for what in ("rows", "rows_read"))
    found = sum(each.rows_met for each in report.sources)
    part = "" if rows_read == rows else f" of {rows:,}"
    yield (
        f"{found:,} of {rows_read:,} rows read{part} contain an exact or near copy of an evaluation text "
        f"({_share(found, rows_read)})"
    )
    rule = report.rule
    yield (
        f"near copy: Jaccard similarity of {rule.shingle}-character shingles of at least {rule.threshold:g}; "
        f"a pair at this limit is found with probability {rule.recall:.3f}"
    )


def _overlap_cells(overlap: "Overlap", rows_read: int) -> list[str]:
    counts = overlap.counts
    numbers = (counts.exact_query, counts.exact_positive, counts.near_query, counts.near_positive)
    return [
        overlap.source, overlap.evaluation, f"{counts.rows:,}", _share(counts.rows, rows_read),
        *(f"{number:,}" for number in numbers),
    ]  # fmt: skip


def _sample_lines(overlap: "Overlap", match: "Match") -> Iterator[str]:
    how = "exact" if match.exact else f"near, {match.similarity:.2f}"
    place = f"row {match.row} of row group {match.row_group}"
    yield f"{overlap.source} in {overlap.evaluation} ({how}): {match.role}, {place}"
    yield f"  training:   {_line(match.text)}"
    if not match.exact:
        yield f"  evaluation: {_line(match.evaluation_text)}"
    yield ""


def _line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "-"
