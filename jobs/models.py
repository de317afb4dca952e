"""What the command line does with trained models, each through the door to heavy modules (`jobs.backend`)."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from data_io.errors import NotFoundInStore
from jobs.backend import RUN_HINT, function, pieces_run, quiet_libraries, read_frozen_document
from jobs.errors import UsageError
from jobs.spec import EmbeddingJob, apply_overrides, parse_document
from jobs.yaml_text import read_yaml
from ray_app.config import EvaluationSpec
from ray_app.task_report import RESULTS

if TYPE_CHECKING:
    from data_io.config import S3Options
    from ray_app.embed_job import Embedded
    from ray_app.merge import Merged
    from ray_app.task_evaluation import OnProgress
    from ray_app.task_report import TaskReport


def document_of(run: str, data: str | None, s3: "S3Options") -> EmbeddingJob:
    """The document of a run, with the data set where it is now. Raises NotFoundInStore where no run is."""
    frozen = read_frozen_document(run, s3)
    if not frozen:
        raise NotFoundInStore(f"no run at {run}: it has no job.yaml", remedy=RUN_HINT)
    return _parsed(frozen, run, data, s3)


def _parsed(frozen: str, run: str, data: str | None, s3: "S3Options") -> EmbeddingJob:
    moved = [f"data.uri={data}"] if data else []
    given = {name: value for name, value in s3.model_dump().items() if value}
    reached = [f"storage.s3.{name}={value}" for name, value in given.items()]
    return parse_document(apply_overrides(read_yaml(frozen, f"{run}/job.yaml"), [*moved, *reached]))


def evaluate_tasks(
    place: str,
    s3: "S3Options",
    tasks: Sequence[str],
    *,
    out: str | None,
    data: str | None,
    name: str | None,
    before: bool,
    dimensions: int | None,
    instructions: Mapping[str, str],
    overwrite: bool,
    workers: int,
    gpus: int,
    on_progress: "OnProgress",
) -> "TaskReport":
    """Measure the model of a run, or of an exported folder, on tasks of mteb and of the user's own."""
    quiet_libraries()
    open_store = function("open_store")
    frozen = read_frozen_document(place, s3)
    if before and not frozen:
        raise UsageError(f"--before needs a run, and {place} has no job.yaml", remedy="give the run directory")
    if out is None and not frozen:
        raise UsageError(
            f"{place} is no run directory, which would keep the results", remedy="say where they go: --out FOLDER"
        )
    document = _parsed(frozen, place, data, s3) if frozen else None
    data_uri = document.spec.data.uri if document is not None else data
    store = None if data_uri is None else open_store(data_uri, s3)
    earlier = _initial(document, store, name) if document is not None and store is not None else None
    model = earlier if before else function("find_exported")(open_store(place, s3), name=name)
    results = open_store(out, s3) if out is not None else open_store(place, s3).child(RESULTS)
    with pieces_run(workers, gpus=gpus) as run:
        report: TaskReport = function("evaluate_tasks")(
            model, tasks, results=results, data=store, instructions=instructions,
            cut=function("Cut")(dimensions), before=None if before else earlier, overwrite=overwrite,
            on_progress=on_progress, **run,
        )  # fmt: skip
    return report


def _initial(document: EmbeddingJob, data: Any, name: str | None) -> Any:
    return function("initial_model")(f"{name or document.metadata.name}-before", document.job_spec, data)


def merge(
    places: Sequence[str],
    out: str,
    s3: "S3Options",
    *,
    steps: Sequence[int] | None,
    weights: Sequence[float] | None,
    evaluate: bool,
    greedy: bool,
    data: str | None,
    **options: Any,
) -> "Merged":
    """Average checkpoints of the run at one place, or the exported models at several."""
    quiet_libraries()
    open_store = function("open_store")
    frozen = read_frozen_document(places[0], s3)
    document = _parsed(frozen, places[0], data, s3) if frozen else None
    data_uri = document.spec.data.uri if document is not None else data
    measure = None
    if evaluate or greedy:
        if data_uri is None:
            raise UsageError(
                f"{places[0]} is no run, whose document names the data set to measure on", remedy="name it: --data URI"
            )
        job = document.job_spec if document is not None else None
        measure = function("Measure")(
            open_store(data_uri, s3),
            job.evaluation if job else EvaluationSpec(),
            job.train.matryoshka_dims if job else (),
        )
    with ExitStack() as stack:
        if len(places) > 1:
            source = stack.enter_context(function("open_models")({place: open_store(place, s3) for place in places}))
        elif document is None:
            raise UsageError(
                f"{places[0]} is no run directory, whose checkpoints could be averaged",
                remedy="give a run, or several exported models",
            )
        else:
            run = open_store(places[0], s3)
            source = function("RunCheckpoints")(
                document.metadata.name, document.job_spec, open_store(data_uri, s3), run,
                function("find_checkpoints")(run, steps),
            )  # fmt: skip
        if weights is not None and len(weights) != len(source.names):
            raise UsageError(
                f"--weights are {len(weights)}, and there are {len(source.names)} models: {', '.join(source.names)}",
                remedy="give one weight a model, in that order",
            )
        merged: Merged = function("merge")(
            source, weights, open_store(out, s3), measure=measure, greedy=greedy, **options
        )
    return merged


def embed(
    model: str,
    address: str,
    out: str,
    s3: "S3Options",
    *,
    prompt: str | None,
    instruction: str | None,
    dimensions: int | None,
    normalize: bool,
    batch_tokens: int,
    workers: int | None,
    gpus: int,
    **options: Any,
) -> "Embedded":
    """Embed the texts of files into `out`, each behind the model's prompt of that name, or behind an instruction."""
    quiet_libraries()
    open_store = function("open_store")
    found = function("find_exported")(open_store(model, s3), batch_tokens=batch_tokens)
    with pieces_run(workers, gpus=gpus) as run:
        embedded: Embedded = function("embed_texts")(
            found, address, open_store(out, s3), cut=function("Cut")(dimensions, normalize),
            instruction=instruction_of(found, prompt, instruction), **run, **options,
        )  # fmt: skip
    return embedded


def instruction_of(model: Any, prompt: str | None, instruction: str | None) -> str:
    """The instruction itself, or what the model puts before a text under the prompt's name; documents carry none."""
    from data_io import task

    if instruction is not None or prompt is None:
        return instruction or ""
    prompts = dict(model.prompts)
    found = task.instruction_of(prompts[prompt]) if prompt in prompts else None
    if found is None:
        raise _no_prompt(prompt, prompts)
    return found


def query_prefix(model: Any, prompt: str | None, instruction: str | None) -> str:
    """What is put before a query: an instruction, or the model's prompt of that name; `query`, if it has one, where
    neither is given.
    """
    from data_io.task import format_query

    if instruction is not None:
        return format_query("", instruction)
    prompts = dict(model.prompts)
    if prompt is not None and prompt not in prompts:
        raise _no_prompt(prompt, prompts)
    found: str = prompts.get(prompt or "query", "")
    return found


def _no_prompt(prompt: str, prompts: Mapping[str, str]) -> UsageError:
    return UsageError(
        f"the model has no prompt {prompt!r}; it has {', '.join(prompts) or 'none'}",
        remedy="correct --prompt, or give an instruction: --instruction TEXT",
    )
