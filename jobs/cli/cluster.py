"""`f2llm cluster`: group texts, with a map."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from data_io.wording import counted
from jobs.cli.embed import progress_lines
from jobs.cli.options import (
    BatchTokens,
    Column,
    Debug,
    Dimensions,
    Gpus,
    Instruction,
    Json,
    Processes,
    Prompt,
    Quiet,
    Texts,
    WithModel,
    print_json,
    refuse_both,
    s3_options,
    takes,
)
from jobs.cli.output.text import aligned, say, say_nothing
from jobs.extras import needs

if TYPE_CHECKING:
    from applications.cluster import Clusters
    from data_io.data_spec import S3Options


@takes(s3_options)
def cluster(
    s3: "S3Options",
    texts: Texts,
    out: Annotated[
        str,
        typer.Argument(metavar="OUT", help="Directory or prefix for the clusters and the map.", show_default=False),
    ],
    model: WithModel,
    column: Column = None,
    method: Annotated[
        Literal["kmeans", "hdbscan"],
        typer.Option("--method", help="k-means puts every text into a cluster; HDBSCAN leaves outliers unassigned."),
    ] = "kmeans",
    clusters: Annotated[
        int | None,
        typer.Option(
            "-k",
            min=2,
            metavar="N",
            help="Number of k-means clusters. Default: 2 to 20, chosen by silhouette.",
            show_default=False,
        ),
    ] = None,
    smallest: Annotated[
        int, typer.Option("--smallest", min=2, metavar="N", help="Smallest number of texts in an HDBSCAN cluster.")
    ] = 10,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of k-means and of the map.")] = 0,
    prompt: Prompt = None,
    instruction: Instruction = None,
    dimensions: Dimensions = None,
    batch_tokens: BatchTokens = 16_384,
    workers: Processes = None,
    gpus: Gpus = 0,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Group texts by meaning.

    Writes the key terms of each cluster, and a map of the texts: OUT/map.html.
    """
    with needs("applications"):
        from jobs.workflows import applications

    refuse_both(prompt, instruction)
    tell = say_nothing if quiet else say
    found = applications.cluster_texts(
        texts, out, s3, model=model, column=column, method=method, clusters=clusters, smallest=smallest, seed=seed,
        prompt=prompt, instruction=instruction, dimensions=dimensions, batch_tokens=batch_tokens, workers=workers,
        gpus=gpus, say=tell, on_progress=progress_lines(tell),
    )  # fmt: skip
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        for line in _lines(out, found):
            print(line)


def _lines(out: str, found: "Clusters") -> Iterator[str]:
    fit = "" if found.silhouette is None else f", silhouette {found.silhouette:.2f}"
    without = f", {found.unassigned:,} unassigned" if found.unassigned else ""
    clusters = counted(len(found.clusters), "cluster")
    yield f"{out}/map.html: {counted(found.texts, 'text')} in {clusters}{without}{fit}"
    rows = [[str(each.number), f"{each.texts:,}", ", ".join(each.terms)] for each in found.clusters]
    for line in aligned([["", "TEXTS", "KEY TERMS"], *rows]):
        yield f"  {line}"
