"""`f2llm embed`: vectors for the texts of files."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs.cli.options import (
    BatchTokens,
    Column,
    Debug,
    Gpus,
    Instruction,
    Json,
    Model,
    Processes,
    Quiet,
    print_json,
    refuse_both,
    s3_options,
    takes,
)
from jobs.cli.output.text import EveryFewSeconds, say, say_nothing
from jobs.extras import needs
from jobs.formatting import duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from data_io.data_spec import S3Options
    from ray_app.inference.embed_files import Embedded, EmbeddingProgress


@takes(s3_options)
def embed(
    s3: "S3Options",
    model: Model,
    texts: Annotated[
        str,
        typer.Argument(
            metavar="IN", help="Parquet or JSON lines: a file, directory or pattern, here or s3://.", show_default=False
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(metavar="OUT", help="Where the vectors go: an empty directory or prefix.", show_default=False),
    ],
    column: Column = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="NAME", help="Keep this column, not all. May be repeated.", show_default=False),
    ] = None,
    into: Annotated[str, typer.Option("--into", metavar="NAME", help="Column of the vectors.")] = "embedding",
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            metavar="NAME",
            help="Put this prompt of the model's before each text, as in --prompt query; documents have none.",
            show_default=False,
        ),
    ] = None,
    instruction: Instruction = None,
    dimensions: Annotated[
        int | None,
        typer.Option(
            "--dimensions", min=1, metavar="N", help="Keep the first N values of each vector.", show_default=False
        ),
    ] = None,
    normalize: Annotated[
        bool, typer.Option("--normalize/--no-normalize", help="Make vectors that are cut one unit long again.")
    ] = True,
    precision: Annotated[
        Literal["float32", "int8", "uint8", "binary", "ubinary"],
        typer.Option("--precision", help="How vectors are stored, as sentence-transformers quantizes them."),
    ] = "float32",
    shard_rows: Annotated[
        int,
        typer.Option(
            "--shard-rows", min=1, metavar="N", help="Rows of a part of the output: what a worker does at once."
        ),
    ] = 4096,
    batch_tokens: BatchTokens = 16_384,
    workers: Processes = None,
    gpus: Gpus = 0,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Embed the texts of files: Parquet with the rows of the input in their order, and a vector each.

    A job that was stopped goes on when it is started again. A row without a text keeps its place, without a vector.
    """
    with needs("train"):
        from jobs.workflows import models

    refuse_both(prompt, instruction)
    tell = say_nothing if quiet else say
    made = models.embed(
        model, texts, out, s3, prompt=prompt, instruction=instruction, dimensions=dimensions,
        normalize=normalize, batch_tokens=batch_tokens, workers=workers, gpus=gpus, column=column,
        keep=None if keep is None else tuple(keep), into=into, precision=precision, shard_rows=shard_rows, say=tell,
        on_progress=progress_lines(tell),
    )  # fmt: skip
    if json:
        rates = {"rows_per_second": made.rows_per_second, "tokens_per_second": made.tokens_per_second}
        print_json(made.embeddings.model_dump(mode="json") | rates)
    else:
        for line in _made_lines(out, made, chosen=column is None):
            print(line)


def progress_lines(tell: "Callable[[str], None]") -> "Callable[[EmbeddingProgress], None]":
    """A line every few seconds, and one at the end."""
    say_paced = EveryFewSeconds(tell)

    def show(progress: "EmbeddingProgress") -> None:
        eta = "" if progress.eta_seconds is None else f", ETA {duration(progress.eta_seconds)}"
        say_paced(
            f"{progress.rows:,} of {progress.total_rows:,} rows, {progress.rows_per_second:,.0f} rows/s, "
            f"{progress.tokens_per_second:,.0f} tokens/s{eta}",
            urgent=progress.rows == progress.total_rows,
        )

    return show


def _made_lines(out: str, made: "Embedded", *, chosen: bool) -> list[str]:
    """`chosen` says that nobody named the column."""
    found = made.embeddings
    of = f" of the column {found.column!r}" if chosen else ""
    without = f", {found.nulls:,} of them without a text" if found.nulls else ""
    packed = f", {found.width} bytes each" if found.precision.endswith("binary") else ""
    lines = [
        f"{out}: {found.rows:,} rows{without}, {found.tokens:,} tokens, {len(found.parts)} "
        f"part{'s' * (len(found.parts) > 1)}",
        f"  {found.into}: {found.dimensions} dimensions as {found.precision}{packed}{of}",
    ]
    if made.rows_per_second is None or made.tokens_per_second is None:
        return [*lines, "  all of it was there already"]
    return [*lines, f"  {made.rows_per_second:,.0f} rows/s, {made.tokens_per_second:,.0f} tokens/s"]
