"""`f2llm classify`: label texts with a linear probe on their embeddings."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

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
from jobs.cli.output.text import aligned, one_line, say, say_nothing
from jobs.extras import needs

if TYPE_CHECKING:
    from applications.classify import Predicted, ProbeManifest
    from data_io.data_spec import S3Options

app = typer.Typer(
    help="Label texts with a linear probe on their embeddings.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ProbeUri = Annotated[
    str, typer.Argument(metavar="PROBE", help="Probe: a directory or s3://bucket/prefix.", show_default=False)
]
_SHOWN_CHARACTERS = 70


@app.command("train")
@takes(s3_options)
def train(
    s3: "S3Options",
    texts: Texts,
    probe: ProbeUri,
    model: WithModel,
    label: Annotated[str, typer.Option("--label", metavar="NAME", help="Label column.")] = "label",
    column: Column = None,
    held_out: Annotated[
        float, typer.Option("--held-out", min=0.01, max=0.9, metavar="X", help="Share of the rows to evaluate on.")
    ] = 0.2,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="Seed of the split into training rows and held-out rows.")
    ] = 0,
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
    """Train a probe on labeled texts.

    The probe is a logistic regression on the embeddings. It is evaluated on held-out rows.
    """
    with needs("applications"):
        from jobs.workflows import applications

    refuse_both(prompt, instruction)
    tell = say_nothing if quiet else say
    found = applications.train_classifier(
        texts, probe, s3, model=model, label=label, column=column, held_out=held_out, seed=seed, prompt=prompt,
        instruction=instruction, dimensions=dimensions, batch_tokens=batch_tokens, workers=workers, gpus=gpus,
        say=tell, on_progress=progress_lines(tell),
    )  # fmt: skip
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        for line in _trained_lines(probe, found):
            print(line)


@app.command("predict")
@takes(s3_options)
def predict(
    s3: "S3Options",
    probe: ProbeUri,
    texts: Texts,
    out: Annotated[
        str,
        typer.Argument(metavar="OUT", help="Directory or prefix for predictions.parquet.", show_default=False),
    ],
    column: Column = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Model of the probe, if it was moved.", show_default=False),
    ] = None,
    batch_tokens: BatchTokens = 16_384,
    workers: Processes = None,
    gpus: Gpus = 0,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Label the texts of files.

    The output has the input rows, each with a label and its probability.
    """
    with needs("applications"):
        from jobs.workflows import applications

    tell = say_nothing if quiet else say
    found = applications.predict_labels(
        probe, texts, out, s3, model=model, column=column, batch_tokens=batch_tokens, workers=workers, gpus=gpus,
        say=tell, on_progress=progress_lines(tell),
    )  # fmt: skip
    if json:
        from dataclasses import asdict

        print_json(asdict(found))
    else:
        for line in _predicted_lines(out, found):
            print(line)


def _trained_lines(place: str, probe: "ProbeManifest") -> Iterator[str]:
    measure = probe.measure
    without = f"; skipped {counted(probe.unlabeled, 'row')} without text or label" if probe.unlabeled else ""
    trained = f"{counted(measure.trained_on, 'row')}, {counted(len(probe.labels), 'label')} ({probe.label_column})"
    yield f"{place}: trained on {trained}{without}"
    held_out = counted(measure.held_out, "held-out row")
    yield f"  {held_out}: accuracy {measure.accuracy:.3f}, macro F1 {measure.macro_f1:.3f}"
    yield f"  baseline, always the most frequent label: accuracy {measure.most_frequent:.3f}"
    rows = [[each.label, str(each.rows), f"{each.precision:.3f}", f"{each.recall:.3f}", f"{each.f1:.3f}"]
            for each in measure.labels]  # fmt: skip
    for line in aligned([["LABEL", "ROWS", "PRECISION", "RECALL", "F1"], *rows]):
        yield f"  {line}"


def _predicted_lines(place: str, found: "Predicted") -> Iterator[str]:
    counts = ", ".join(f"{label} {rows:,}" for label, rows in found.labels.items())
    yield f"{place}/predictions.parquet: {counted(found.rows, 'row')}: {counts}"
    shown = [[each.label, f"{each.probability:.3f}", one_line(each.text, _SHOWN_CHARACTERS)] for each in found.first]
    for line in aligned(shown) if shown else ():
        yield f"  {line}"
