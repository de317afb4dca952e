"""`f2llm index` and `f2llm search`: texts found by meaning, by words, and by what is like them."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

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
    str, typer.Argument(metavar="INDEX", help="The index: a directory or s3://bucket/prefix.", show_default=False)
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
            "--id", metavar="NAME", help="Column of the ids; else id or _id, else numbers of rows.", show_default=False
        ),
    ] = None,
    vectors: Annotated[
        Literal["flat", "hnsw"],
        typer.Option("--vectors", help="flat is exact; hnsw is approximate and faster from about a million texts on."),
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

    A start that was stopped is gone on with. A row without a text is left out.
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
            metavar="QUERY", help="What to look for; - for a query a line on standard input.", show_default=False
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option("--queries", metavar="FILE", help="Look for a query a line of a file.", show_default=False),
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like",
            metavar="ID",
            help="Recommend: what is nearest to this text, without it. Several: to their mean.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=10_000, metavar="N", help="Hits a query.")] = 10,
    method: Annotated[
        Literal["dense", "bm25", "hybrid"],
        typer.Option("--method", help="By meaning, by words, or both rankings fused."),
    ] = "hybrid",
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            metavar="NAME",
            help="Put this prompt of the model's before queries; else query's, if any.",
            show_default=False,
        ),
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            "--instruction",
            metavar="TEXT",
            help="Put this before queries, as in 'Given a question, retrieve passages that answer it'.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help="Where the index's model is now, if it was moved.", show_default=False
        ),
    ] = None,
    width: Annotated[int, typer.Option("--width", min=1, metavar="N", help="Characters of a text to show.")] = 110,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Search an index: by meaning, by words, or for what is like an item.

    The score is a cosine (dense), BM25's, or that of reciprocal rank fusion (hybrid), whose line says the ranks that it
    was made from.
    """
    with needs("applications"):
        from jobs.workflows import applications

    refuse_both(prompt, instruction)
    given = [name for name, value in (("QUERY", query), ("--queries", queries), ("--like", like)) if value]
    if len(given) != 1:
        what = " and ".join(given) if given else "no query"
        raise UsageError(f"{what} given; expected one of QUERY, --queries and --like", remedy="say what to look for")
    if like:
        if prompt or instruction or model:
            raise UsageError("--prompt, --instruction and --model have no effect with --like", remedy="leave them out")
        hits = applications.like(place, s3, like, k=k)
        _show([{"like": like}], [hits], fused=False, json=json, width=width)
        return
    asked = [query] if query not in (None, "-") else _lines_of(queries)
    found = applications.search(
        place, s3, asked, method=method, k=k, model=model, prompt=prompt, instruction=instruction
    )
    _show([{"query": text} for text in asked], found, fused=method == "hybrid", json=json, width=width)


def _lines_of(queries: Path | None) -> list[str]:
    """Queries, a line each; blank lines are none. None is standard input."""
    try:
        text = sys.stdin.read() if queries is None else queries.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{queries} cannot be read: {error}", remedy="give a text file, a query a line") from error
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise UsageError(f"no query in {queries or 'standard input'}", remedy="give a query a line")
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
    without = f", {found.nulls:,} rows without a text left out" if found.nulls else ""
    yield f"{out}: {found.texts:,} texts, {found.tokens:,} tokens{without}"
    yield f"  vectors: {found.dimensions} dimensions of {found.model}, {found.vectors}"
    yield f"  text: {found.column}, id: {found.id_column or 'numbers of rows'}"
    if not built.is_new:
        yield "  all of it was there already"
