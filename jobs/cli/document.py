"""`f2llm validate`, `plan`, `schema`: what a document says and what it will take, without starting anything."""

from typing import TYPE_CHECKING, Annotated

import typer

from jobs import backend
from jobs.cli.options import Debug, JobPath, Json, Set, print_json
from jobs.cli.text import size_text
from jobs.progress import short_number

if TYPE_CHECKING:
    from jobs.plan import DataSize, Plan
    from jobs.spec import EmbeddingJob


def validate(
    job: JobPath,
    set_: Set = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the effective document: preset and defaults filled in.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a document; --show prints all that it means."""
    from jobs.spec import load_document

    document = load_document(job, overrides=set_ or ())
    if json:
        print_json({"valid": True, "document": document.to_dict()})
    elif show:
        print(document.to_yaml(), end="")
    else:
        print(f"{job}: valid; its run directory is {document.run_uri}")


def plan(
    job: JobPath,
    set_: Set = None,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows",
            min=1,
            metavar="N",
            help="Do not read the data set: assume one retrieval source of N rows with enough negatives.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Work out steps, tokens, memory and sizes in advance."""
    from jobs.spec import load_document

    document = load_document(job, overrides=set_ or ())
    answer = plan_of(document, rows=rows)
    if json:
        print_json(answer.to_dict())
    else:
        print_plan(answer)


def schema(debug: Debug = False) -> None:
    """Print the JSON Schema of the document, for editors."""
    from jobs.spec import EmbeddingJob

    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **EmbeddingJob.model_json_schema()})


def plan_of(document: "EmbeddingJob", *, rows: int | None = None) -> "Plan":
    """The plan of a document, from its data set's manifest or for an assumed number of rows."""
    from jobs.architecture import architecture_of
    from jobs.plan import make_plan

    spec = document.job_spec
    if rows is None:
        data = backend.data_size(spec.data.uri, spec.storage.s3)
    else:
        data = _assumed_data(rows, spec.data.hard_negatives.retrieval)
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"sources": None})})
    return make_plan(spec, data, architecture_of(spec.model, vocabulary_size=data.vocabulary_size))


def print_plan(answer: "Plan") -> None:
    """The plan for people."""
    for label, text in _plan_lines(answer):
        print(f"{label:<16}{text}")
    for warning in answer.warnings:
        print(f"warning: {warning}")
    print("assumed:")
    for assumption in answer.assumptions:
        print(f"  {assumption}")


def _plan_lines(answer: "Plan") -> list[tuple[str, str]]:
    lines = [
        ("data", f"{answer.examples_per_epoch:,} examples in {answer.sources} sources"),
        ("steps", f"{answer.total_steps:,} ({answer.steps_per_epoch:,} an epoch)"),
        ("step", f"{answer.micro_batches_per_step} micro-batches, {answer.rounds_per_step} a worker"),
        ("workers", str(answer.workers)),
        ("texts", f"{short_number(answer.texts_per_epoch)} an epoch"),
        ("tokens", f"{short_number(answer.tokens_per_epoch)} an epoch ({answer.tokens_are})"),
    ]
    if (
        answer.parameters is None
        or answer.memory is None
        or answer.checkpoint_bytes is None
        or answer.model_bytes is None
    ):
        return lines
    memory = answer.memory
    parts = ("weights", "gradients", "optimizer", "buffers", "activations")
    detail = ", ".join(f"{part} {size_text(getattr(memory, part))}" for part in parts)
    return [
        *lines,
        ("parameters", f"{answer.parameters:,}"),
        ("memory", f"up to {size_text(memory.total)} a worker: {detail}"),
        ("checkpoint", f"{size_text(answer.checkpoint_bytes)}, {answer.checkpoints} of them written"),
        ("model", size_text(answer.model_bytes)),
    ]


def _assumed_data(rows: int, negatives: int) -> "DataSize":
    from data_io.task import Kind
    from jobs.plan import DataSize, SourceSize

    return DataSize((SourceSize("assumed", Kind.RETRIEVAL, rows, negatives),))
