"""`f2llm index` and `f2llm search`: find texts by meaning, by words, or by similar texts."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from data_io.wording import counted
from jobs.cli.embed import progress_lines
from jobs.cli.options import (
    BatchTokens,
    Column,
    Debug,
    Dimensions,
    Gpus,
    Json,
    Processes,
    Quiet,
    Texts,
    WithModel,
    print_json,
    refuse_both,
    s3_options,
    takes,
)
from jobs.cli.output.text import one_line, say, say_nothing
from jobs.errors import ConfigError, UsageError
from jobs.extras import needs

if TYPE_CHECKING:
    from applications.index import Built
    from applications.search import Hit
    from data_io.data_spec import S3Options

IndexUri = Annotated[
    str, typer.Argument(metavar="INDEX", help="Index: a directory or s3://bucket/prefix.", show_default=False)
]


@takes(s3_options)
def index(
    s3: "S3Options",
    texts: Texts,
    out: IndexUri,
    model: WithModel,
    column: Column = None,
    id_column: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="NAME", help="ID column. Default: id or _id, or the row numbers.", show_default=False
        ),
    ] = None,
    vectors: Annotated[
        Literal["flat", "hnsw"],
        typer.Option("--vectors", help="flat is exact; hnsw is approximate, and faster for a million texts or more."),
    ] = "flat",
    dimensions: Dimensions = None,
    batch_tokens: BatchTokens = 16_384,
    workers: Processes = None,
    gpus: Gpus = 0,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Index texts for f2llm search, by meaning and by words.

    Run the same command again to resume an interrupted run. Rows without a text are skipped.
    """
    with needs("applications"):
        from jobs.workflows import applications

    tell = say_nothing if quiet else say
    built = applications.index(
        texts, out, s3, model=model, column=column, id_column=id_column, vectors=vectors, dimensions=dimensions,
        batch_tokens=batch_tokens, workers=workers, gpus=gpus, say=tell, on_progress=progress_lines(tell),
    )  # fmt: skip
    if json:
        print_json(built.index.model_dump(mode="json"))
    else:
        for line in _built_lines(out, built):
            print(line)


@takes(s3_options)
def search(
    s3: "S3Options",
    place: IndexUri,
    query: Annotated[
        str | None,
        typer.Argument(
            metavar="QUERY", help="Query, or - for one query per line on standard input.", show_default=False
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option("--queries", metavar="FILE", help="Text file with one query per line.", show_default=False),
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like",
            metavar="ID",
            help="Find the texts nearest to this text of the index. Repeated: nearest to the mean of all.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=10_000, metavar="N", help="Hits per query.")] = 10,
    method: Annotated[
        Literal["dense", "bm25", "hybrid"],
        typer.Option("--method", help="By meaning, by words, or both rankings combined."),
    ] = "hybrid",
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            metavar="NAME",
            help="Prompt of the model to put before queries. Default: query, if the model has it.",
            show_default=False,
        ),
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            "--instruction",
            metavar="TEXT",
            help="Instruction for queries, such as 'Given a question, retrieve passages that answer it'.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Model of the index, if it was moved.", show_default=False),
    ] = None,
    width: Annotated[int, typer.Option("--width", min=1, metavar="N", help="Characters of each text to print.")] = 110,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Search an index by meaning, by words, or for similar texts.

    Scores: dense prints the cosine similarity, bm25 the BM25 score, and hybrid the score of reciprocal rank fusion with
    both ranks.
    """
    with needs("applications"):
        from jobs.workflows import applications

    refuse_both(prompt, instruction)
    given = [name for name, value in (("QUERY", query), ("--queries", queries), ("--like", like)) if value]
    if len(given) != 1:
        what = " and ".join(given) if given else "no query"
        raise UsageError(
            f"found {what}, expected exactly one of QUERY, --queries and --like",
            remedy="for example: f2llm search INDEX QUERY",
        )
    if like:
        if prompt or instruction or model:
            raise UsageError("--prompt, --instruction and --model have no effect with --like", remedy="remove them")
        hits = applications.like(place, s3, like, k=k)
        _show([{"like": like}], [hits], fused=False, json=json, width=width)
        return
    asked = [query] if query not in (None, "-") else _lines_of(queries)
    found = applications.search(
        place, s3, asked, method=method, k=k, model=model, prompt=prompt, instruction=instruction
    )
    _show([{"query": text} for text in asked], found, fused=method == "hybrid", json=json, width=width)


def _lines_of(queries: Path | None) -> list[str]:
    """Queries of a file, one per line without blank lines. None is standard input."""
    try:
        text = sys.stdin.read() if queries is None else queries.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{queries} cannot be read: {error}", remedy="pass a UTF-8 text file with one query per line"
        ) from error
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise UsageError(f"no query in {queries or 'standard input'}", remedy="write one query per line")
    return found


def _show(
    asked: Sequence[dict[str, Any]], found: "Sequence[Sequence[Hit]]", *, fused: bool, json: bool, width: int
) -> None:
    if json:
        from dataclasses import asdict

        answers = [{**what, "hits": [asdict(hit) for hit in hits]} for what, hits in zip(asked, found, strict=True)]
        print_json({"answers": answers})
        return
    for number, (what, hits) in enumerate(zip(asked, found, strict=True)):
        if len(asked) > 1:
            print(*[""] * (number > 0), what["query"], sep="\n")
        for line in _hit_lines(hits, fused, width):
            print(line)


def _hit_lines(hits: "Sequence[Hit]", fused: bool, width: int) -> Iterator[str]:
    if not hits:
        yield "nothing found"
    for hit in hits:
        ranks = "".join(f"  {name} {rank}" for name, rank in hit.ranks.items()) if fused else ""
        yield f"{hit.rank:>2}  {hit.score:.{4 if fused else 3}f}  {hit.id}{ranks}"
        yield f"    {one_line(hit.text, width)}"


def _built_lines(out: str, built: "Built") -> Iterator[str]:
    found = built.index
    without = f", skipped {counted(found.nulls, 'row')} without a text" if found.nulls else ""
    yield f"{out}: {counted(found.texts, 'text')}, {counted(found.tokens, 'token')}{without}"
    yield f"  vectors: {found.dimensions} dimensions of {found.model}, {found.vectors}"
    yield f"  text: {found.column}, id: {found.id_column or 'row number'}"
    if not built.is_new:
        yield "  nothing to do: it was complete already"
