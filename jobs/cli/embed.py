"""`f2llm embed`: embed the texts of files."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from data_io.wording import counted
from jobs.cli.options import (
    TEXTS_HELP,
    BatchTokens,
    Column,
    Debug,
    Dimensions,
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
        typer.Argument(metavar="IN", help=TEXTS_HELP, show_default=False),
    ],
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="Directory or prefix for the output: empty, or of an interrupted run.",
            show_default=False,
        ),
    ],
    column: Column = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="NAME",
            help="Input column to copy to the output. Default: all. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    into: Annotated[str, typer.Option("--into", metavar="NAME", help="Output column of the embeddings.")] = "embedding",
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            metavar="NAME",
            help="Prompt of the model to put before each text: --prompt query for queries, none for documents.",
            show_default=False,
        ),
    ] = None,
    instruction: Instruction = None,
    dimensions: Dimensions = None,
    normalize: Annotated[
        bool, typer.Option("--normalize/--no-normalize", help="Scale shortened embeddings to unit length.")
    ] = True,
    precision: Annotated[
        Literal["float32", "int8", "uint8", "binary", "ubinary"],
        typer.Option("--precision", help="Number format of the embeddings, quantized as in sentence-transformers."),
    ] = "float32",
    shard_rows: Annotated[
        int,
        typer.Option(
            "--shard-rows", min=1, metavar="N", help="Rows per output file, which is also one task of a process."
        ),
    ] = 4096,
    batch_tokens: BatchTokens = 16_384,
    workers: Processes = None,
    gpus: Gpus = 0,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Embed the texts of files.

    The output is Parquet with the rows of the input in their order, each with its embedding.
    Run the same command again to resume an interrupted run. A row without a text gets no embedding.
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
    """Print a line every few seconds, and one at the end."""
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
    """`chosen`: the column was detected, not given with --column."""
    found = made.embeddings
    of = f" of the column {found.column!r}" if chosen else ""
    without = f", {found.nulls:,} of them without a text" if found.nulls else ""
    packed = f", {found.width} bytes each" if found.precision.endswith("binary") else ""
    lines = [
        f"{out}: {counted(found.rows, 'row')}{without}, {counted(found.tokens, 'token')}, "
        f"{counted(len(found.parts), 'part')}",
        f"  {found.into}: {found.dimensions} dimensions as {found.precision}{packed}{of}",
    ]
    if made.rows_per_second is None or made.tokens_per_second is None:
        return [*lines, "  nothing to do: it was complete already"]
    return [*lines, f"  {made.rows_per_second:,.0f} rows/s, {made.tokens_per_second:,.0f} tokens/s"]
