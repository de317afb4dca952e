"""`f2llm merge`: the average of checkpoints of a run, or of exported models."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.options import Data, Debug, Json, Quiet, print_json, s3_options, takes
from jobs.cli.output.text import Percent, aligned, say, say_nothing
from jobs.errors import UsageError
from jobs.extras import needs

if TYPE_CHECKING:
    from data_io.data_spec import S3Options
    from ray_app.export.merge import Merged


@takes(s3_options)
def merge(
    s3: "S3Options",
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN | MODEL...",
            help="One run directory, whose checkpoints are averaged; or two and more exported models or runs.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out", metavar="URI", help="Where the model goes: an empty directory or s3:// prefix.", show_default=False
        ),
    ],
    checkpoints: Annotated[
        str | None,
        typer.Option(
            "--checkpoints",
            metavar="STEP,STEP",
            help="Checkpoints of the run, by step; otherwise all that it has.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="N,N",
            help="What each counts, in their order, checkpoints by step; otherwise all the same.",
            show_default=False,
        ),
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Measure each and the average on the held-out sets.")
    ] = False,
    greedy: Annotated[
        bool,
        typer.Option(
            "--greedy", help="From the best on, take those that do not make the average worse on the held-out sets."
        ),
    ] = False,
    data: Data = None,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Average the weights of checkpoints of a run, or of exported models of one architecture, into a model directory.

    sentence-transformers and transformers load it. Memory holds one file of weights, whatever the size of the model.
    """
    with needs("train"):
        from jobs.workflows.models import merge as merge_models

    if len(models) > 1 and checkpoints is not None:
        raise UsageError("--checkpoints is of one run, and several are given", remedy="give one run, or leave it out")
    if len(set(models)) < len(models):
        raise UsageError("a model is given twice", remedy="give it once, with --weights for what it counts")
    if greedy and weights is not None:
        raise UsageError("--greedy and --weights are both given", remedy="leave one of them out")
    merged = merge_models(
        models, out, s3,
        steps=None if checkpoints is None else [round(step) for step in _numbers("--checkpoints", checkpoints, int)],
        weights=None if weights is None else _numbers("--weights", weights, float),
        evaluate=evaluate, greedy=greedy, data=data, say=say_nothing if quiet else say,
        on_bytes=(lambda done, total: None) if quiet else Percent("averaging"),
    )  # fmt: skip
    if json:
        print_json(asdict(merged))
    else:
        for line in _lines(merged):
            print(line)


def _lines(merged: "Merged") -> list[str]:
    rows = [
        [name, f"{100 * merged.shares.get(name, 0.0):.1f}%", *([f"{merged.scores[name]:.4f}"] if merged.scores else [])]
        for name in merged.scores or merged.shares
    ]
    if merged.score is not None:
        rows.append(["average", "100.0%", f"{merged.score:.4f}"])
    head = ["model", "share", *(["held-out score"] if merged.scores else [])]
    return [*aligned([head, *rows]), merged.out]


def _numbers(option: str, text: str, kind: type[int] | type[float]) -> list[float]:
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) <= 0:
        wanted = "steps" if kind is int else "numbers above 0"
        raise UsageError(
            f"{option} {text!r}: expected {wanted} with commas between", remedy=f"for example {option} 400,450,500"
        )
    return list(found)
