"""`f2llm merge`: average the checkpoints of a run, or exported models."""

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
            help="One run directory, to average its checkpoints; or two or more exported models or runs.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option("--out", metavar="URI", help="Empty directory or s3:// prefix for the model.", show_default=False),
    ],
    checkpoints: Annotated[
        str | None,
        typer.Option(
            "--checkpoints",
            metavar="STEP,STEP",
            help="Steps of the checkpoints to average. Default: all checkpoints of the run.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="N,N",
            help="Weight of each model, in the order given (checkpoints: by step). Default: equal.",
            show_default=False,
        ),
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Evaluate each model and the average on the held-out sets.")
    ] = False,
    greedy: Annotated[
        bool,
        typer.Option(
            "--greedy",
            help="Greedy soup: start with the best model, add each model that does not lower the held-out score.",
        ),
    ] = False,
    data: Data = None,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Average the checkpoints of a run, or exported models.

    The models must have the same architecture. The result is a model directory that sentence-transformers and
    transformers can load. Only one weights file is in memory at a time.
    """
    with needs("train"):
        from jobs.workflows.models import merge as merge_models

    if len(models) > 1 and checkpoints is not None:
        raise UsageError("--checkpoints needs exactly one run", remedy="pass one run, or remove --checkpoints")
    if len(set(models)) < len(models):
        raise UsageError("a model is listed twice", remedy="list it once, and set its weight with --weights")
    if greedy and weights is not None:
        raise UsageError("--greedy and --weights exclude each other", remedy="remove one of them")
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
            f"{option} {text!r}: expected {wanted}, separated by commas", remedy=f"for example {option} 400,450,500"
        )
    return list(found)
