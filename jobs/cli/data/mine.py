"""`f2llm data mine`: mine hard negatives for a prepared data set."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from data_io.wording import counted
from jobs.cli.options import BatchTokens, DataUri, Debug, Json, Quiet, print_json, s3_options, takes
from jobs.cli.output.text import EveryFewSeconds, say, say_nothing
from jobs.errors import UsageError
from jobs.extras import needs
from jobs.formatting import duration

if TYPE_CHECKING:
    from data_io.data_spec import S3Options
    from ray_app.mining.report import MiningReport, Sample, SourceReport
    from ray_app.mining.stage_runner import MiningProgress

_SHOWN_CHARACTERS = 160


@takes(s3_options)
def mine(
    s3: "S3Options",
    data: DataUri,
    out: Annotated[
        str,
        typer.Argument(metavar="OUT", help="Empty directory or prefix for the mined data set.", show_default=False),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="sentence-transformers model: a directory, or a Hugging Face Hub id (ORG/NAME or ORG/NAME@REVISION).",
            show_default=False,
        ),
    ],
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            metavar="NAME",
            help="Source to mine. Default: all retrieval sources. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    negatives: Annotated[
        int, typer.Option("--negatives", min=1, max=128, metavar="N", help="Hard negatives per row.")
    ] = 24,
    top_k: Annotated[int, typer.Option("--top-k", min=1, max=10_000, metavar="N", help="Candidates per query.")] = 100,
    skip: Annotated[int, typer.Option("--skip", min=0, metavar="N", help="Drop the N highest-scoring candidates.")] = 5,
    skip_among: Annotated[
        Literal["allowed", "all"],
        typer.Option("--skip-among", help="Apply --skip after the score limits (allowed), or before them (all)."),
    ] = "allowed",
    max_score: Annotated[float, typer.Option("--max-score", metavar="X", help="Negatives must score below X.")] = 0.8,
    max_ratio: Annotated[
        float,
        typer.Option("--max-ratio", metavar="X", help="Negatives must score below X times the score of the positive."),
    ] = 0.95,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            "--corpus",
            metavar="NAME=FILE",
            help="More documents for source NAME: JSON Lines, CSV, Parquet, or one text per line. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    query_prompt: Annotated[
        str | None,
        typer.Option(
            "--query-prompt",
            metavar="TEXT",
            help="Text to put before queries. Default: the query prompt of the model.",
            show_default=False,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            min=8,
            metavar="N",
            help="Cut texts to N tokens. Default: the limit of the model.",
            show_default=False,
        ),
    ] = None,
    batch_tokens: BatchTokens = 8192,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, metavar="N", help="Tasks in parallel. Default: one per CPU.", show_default=False
        ),
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", min=0, metavar="N", help="Number of GPUs to use. 0: the CPU.")] = 0,
    samples: Annotated[
        int, typer.Option("--samples", min=0, max=20, metavar="N", help="Example rows to print per source.")
    ] = 3,
    keep_work: Annotated[bool, typer.Option("--keep-work", help="Keep embeddings and other working files.")] = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Mine hard negatives with an embedding model.

    The result is a new data set.

    A row of a retrieval source keeps its own hard negatives. Then it gets the nearest texts of its source that are not
    answers. Rows with too few negatives are dropped. Everything else is copied. Run the same command again to resume an
    interrupted run.
    """
    with needs("train"):
        from jobs.workflows.mining import mine_data
    report = mine_data(
        data,
        out,
        s3,
        model=model,
        rule={
            "negatives": negatives,
            "top_k": top_k,
            "skip": skip,
            "skip_among": skip_among,
            "max_score": max_score,
            "max_ratio": max_ratio,
        },
        sources=tuple(source or ()),
        corpus=_corpora(corpus or ()),
        query_prompt=query_prompt,
        max_tokens=max_tokens,
        batch_tokens=batch_tokens,
        workers=workers,
        gpus=gpus,
        samples=samples,
        keep_work=keep_work,
        on_progress=Lines(say_nothing if quiet else say),
    )
    if json:
        print_json(report.model_dump(mode="json"))
    else:
        print_report(out, report)


class Lines:
    """Print a line when a stage begins and ends, and every few seconds in between."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._say = EveryFewSeconds(tell)

    def __call__(self, progress: "MiningProgress") -> None:
        self._say(progress_text(progress), urgent=progress.done in (0, progress.total))


def progress_text(progress: "MiningProgress") -> str:
    """For example `faq: embed 3/12, ETA 2 min 10 s`."""
    what = f"{progress.source}: {progress.stage}" if progress.source else progress.stage
    eta = (
        ""
        if progress.eta_seconds is None or progress.done == progress.total
        else f", ETA {duration(progress.eta_seconds)}"
    )
    return f"{what} {progress.done}/{progress.total}{eta}"


def print_report(uri: str, report: "MiningReport") -> None:
    """Print the counts and scores of each source, then its sample rows."""
    print(f"{uri}: version {report.version}, mined with {report.model}")
    for source in report.sources:
        for line in _source_lines(source, report.rule.negatives):
            print(line)
    for source in report.sources:
        for sample in source.samples:
            print(f"\n{source.name}: {_short(sample.query)}")
            for line in _sample_lines(sample):
                print(line)


def _source_lines(source: "SourceReport", negatives: int) -> list[str]:
    with needs("train"):
        from jobs.workflows.mining import quantiles_of_scores
    lines = [
        f"  {source.name}: {source.kept_rows:,} of {counted(source.rows, 'row')} with "
        f"{counted(negatives, 'hard negative')} ({source.mined_negatives:,} mined, {source.own_negatives:,} own); "
        f"{source.dropped_rows:,} dropped ({source.dropped_share:.1%})",
        f"    {counted(source.documents, 'document')}, {counted(source.queries, 'query')}; of "
        f"{counted(source.candidates, 'candidate')}, --max-score rejected {source.above_max_score:,} and --max-ratio "
        f"{source.above_max_ratio:,} more",
    ]
    for what, words in (("positive", "positives"), ("nearest", "nearest other text"), ("negative", "mined negatives")):
        bins = source.histograms[what]
        low, middle, high = quantiles_of_scores(bins, (0.1, 0.5, 0.9))
        lines.append(f"    {words:<20}score p10 {low:.2f}, p50 {middle:.2f}, p90 {high:.2f}")
    return lines


def _sample_lines(sample: "Sample") -> list[str]:
    lines = [f"  + {sample.positive_score:.2f}  {_short(sample.positive)}"]
    return lines + [f"  - {negative.score:.2f}  {_short(negative.text)}" for negative in sample.negatives]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 3]}..."


def _corpora(given: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in given:
        name, equals, address = text.partition("=")
        if not (name and equals and address):
            raise UsageError(f"--corpus {text!r} is not NAME=FILE", remedy="for example: --corpus faq=documents.jsonl")
        found.setdefault(name, []).append(address)
    return found
