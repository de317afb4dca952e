"""`f2llm plan`: estimate the resources of a job before it starts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_io.wording import counted
from jobs.cli.options import Debug, JobPath, Json, Set, print_json
from jobs.cli.output.text import size_text
from jobs.extras import needs
from jobs.formatting import duration, short_number

if TYPE_CHECKING:
    from jobs.planning.cost import Cost
    from jobs.planning.estimate import DataSize, Plan
    from jobs.spec.job import EmbeddingJob


def plan(
    job: JobPath,
    set_: Set = None,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows",
            min=1,
            metavar="N",
            help="Assume one retrieval source of N rows with enough hard negatives, and do not read the data set.",
            show_default=False,
        ),
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(
            "--prices",
            metavar="FILE",
            help="Prices per GPU hour, as YAML (`H100: 2.5`). Adds hours and cost for each GPU.",
            show_default=False,
        ),
    ] = None,
    mfu: Annotated[
        float, typer.Option("--mfu", min=0.01, max=1, help="Assumed share of the GPU's peak FLOPS, for the hours.")
    ] = 0.4,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Estimate the steps, tokens, memory, sizes and cost of a job.

    Hours and cost need --prices.
    """
    from jobs.spec.job import load_job_spec

    job_spec = load_job_spec(job, overrides=set_ or ())
    answer = plan_of(job_spec, rows=rows)
    found = None if prices is None else costs_of(job_spec, answer, prices, mfu)
    if json:
        print_json({**answer.to_dict(), **({} if found is None else {"costs": [each.to_dict() for each in found]})})
        return
    print_plan(answer)
    if found is not None:
        print(f"  hours at {mfu:.0%} of the GPU's peak in bf16, without restarts and evaluation; prices from {prices}")
        for line in _cost_lines(found):
            print(line)


def plan_of(job_spec: "EmbeddingJob", *, rows: int | None = None) -> "Plan":
    """The plan of a job spec, from the manifest of its data set or for an assumed number of rows."""
    from jobs.planning.architecture import architecture_of
    from jobs.planning.estimate import estimate_job

    spec = job_spec.worker_spec
    if rows is None:
        with needs("data"):
            from jobs.workflows.data import data_size
        data = data_size(spec.data.uri, spec.storage.s3)
    else:
        data = _assumed_data(rows, spec.data.hard_negatives.retrieval)
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"sources": None})})
    return estimate_job(spec, data, architecture_of(spec.model, vocabulary_size=data.vocabulary_size))


def print_plan(answer: "Plan") -> None:
    """Print the plan as text."""
    for label, text in _plan_lines(answer):
        print(f"{label:<16}{text}")
    for warning in answer.warnings:
        print(f"warning: {warning}")
    print("assumed:")
    for assumption in answer.assumptions:
        print(f"  {assumption}")


def _plan_lines(answer: "Plan") -> list[tuple[str, str]]:
    lines = [
        ("data", f"{counted(answer.examples_per_epoch, 'example')} in {counted(answer.sources, 'source')}"),
        ("steps", f"{answer.total_steps:,} ({answer.steps_per_epoch:,} per epoch)"),
        ("step", f"{counted(answer.micro_batches_per_step, 'micro-batch')}, {answer.rounds_per_step} per worker"),
        ("workers", str(answer.workers)),
        ("texts", f"{short_number(answer.texts_per_epoch)} per epoch"),
        ("tokens", f"{short_number(answer.tokens_per_epoch)} per epoch ({answer.tokens_are})"),
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
        ("memory", f"up to {size_text(memory.total)} per worker: {detail}"),
        ("checkpoint", _checkpoint_text(answer)),
        ("model", size_text(answer.model_bytes)),
    ]


def costs_of(job_spec: "EmbeddingJob", answer: "Plan", prices: Path, mfu: float) -> list["Cost"]:
    """Hours and cost for each GPU of a price table. Raises ConfigError if the architecture of the model is unknown."""
    from jobs.errors import ConfigError
    from jobs.planning.architecture import architecture_of
    from jobs.planning.cost import costs, load_prices, operations

    table, spec = load_prices(str(prices)), job_spec.worker_spec
    architecture = architecture_of(spec.model)
    if architecture is None:
        raise ConfigError(
            f"the architecture of {spec.model.name_or_path} is unknown, so hours and cost cannot be estimated",
            remedy="remove --prices, or set model.name_or_path to a local directory with config.json",
        )
    recompute = spec.train.gradient_checkpointing
    total = operations(answer, architecture, epochs=spec.train.epochs, recompute=recompute)
    return costs(answer, total, table, mfu=mfu)


def _cost_lines(found: "Sequence[Cost]") -> Iterator[str]:
    yield f"{'GPU':<16}{'GPUS':>5}{'HOURS':>10}{'GPU HOURS':>12}{'COST':>12}  MEMORY"
    for each in found:
        memory = "enough" if each.fits else "too small"
        yield f"{each.gpu:<16}{each.gpus:>5}{each.hours:>10,.1f}{each.gpu_hours:>12,.1f}{each.cost:>12,.2f}  {memory}"


def _checkpoint_text(answer: "Plan") -> str:
    text = size_text(answer.checkpoint_bytes or 0)
    if answer.checkpoints is not None:
        text += f", {answer.checkpoints} written during the run"
    if answer.checkpoint_seconds is not None:
        text += f"; an interval of {duration(answer.checkpoint_seconds)} minimizes the lost time"
    return text


def _assumed_data(rows: int, negatives: int) -> "DataSize":
    from data_io.task import Kind
    from jobs.planning.estimate import DataSize, SourceSize

    return DataSize((SourceSize("assumed", Kind.RETRIEVAL, rows, negatives),))
