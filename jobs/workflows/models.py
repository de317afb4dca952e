"""Export, evaluate, merge and apply trained models. Needs the extra `train`."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from data_io.data_spec import S3Options
from data_io.errors import NotFoundInStore
from data_io.execution import Say
from data_io.storage.folder_copy import upload_folder
from data_io.storage.store import Store, open_store
from data_io.task import format_query
from data_io.task import instruction_of as instruction_in
from data_io.wording import counted
from jobs.errors import ConfigError, UsageError
from jobs.spec.job import EmbeddingJob
from jobs.workflows.processes import task_executor
from jobs.workflows.runs import find_job_spec
from ray_app.checkpointing.weights import OnBytes
from ray_app.export import merge as merging
from ray_app.export import run as exporting
from ray_app.export.merge import Measure, Merged, RunCheckpoints, Source, find_checkpoints, open_models
from ray_app.inference.embed_files import Embedded, OnEmbedding, embed_texts
from ray_app.inference.embed_shard import Precision
from ray_app.inference.encoder import Cut
from ray_app.inference.model_source import EmbeddingModel, find_model, model_store
from ray_app.job_spec import EvaluationSpec, JobSpec
from ray_app.orchestration import stages
from ray_app.run_directory.evaluation_report import EvaluationReport
from ray_app.run_directory.hub_commits import spec_of_run


def evaluate_run(job: EmbeddingJob, run_uri: str, *, dims: Sequence[int], say: Say) -> EvaluationReport:
    """Evaluate model/ of a run again, into evaluation/after.json.

    `job` is the job spec of the run; `dims` are additional embedding dimensions to evaluate.
    """
    spec = job.worker_spec
    run = open_store(run_uri, spec.storage.s3)
    if not run.exists("model/config.json"):
        raise NotFoundInStore(f"{run_uri} has no model", remedy=f"export it first: `f2llm export {run_uri}`")
    return stages.evaluate_exported(spec, data=_data_of(spec), run=run, device=_device(), say=say, dims=dims)


def export_run(job: EmbeddingJob, run_uri: str, *, out: str | None) -> str:
    """Write the newest checkpoint of a run as a model directory, to `out` or to model/ of the run. Returns its path.

    Raises ConfigError if `out` contains something other than a model.
    """
    run, name = open_store(run_uri, job.worker_spec.storage.s3), job.metadata.name
    spec = spec_of_run(job.worker_spec, run)
    target = run.child("model") if out is None else open_store(out, spec.storage.s3)
    if out is not None:
        _refuse_other_content(target)
    if target.is_local:
        exporting.export_run(name, spec, data=_data_of(spec), run=run, out=Path(target.uri))
        return out or str(target.uri)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        exporting.export_run(name, spec, data=_data_of(spec), run=run, out=folder)
        upload_folder(folder, target)
    return str(target.uri)


def _refuse_other_content(place: Store) -> None:
    """Raises ConfigError unless the directory is empty or an earlier export, which is replaced."""
    level = place.list_level()
    found = {*level.keys, *level.folders}
    if found and (not {"config.json", "modules.json", "1_Pooling"} <= found or "job.yaml" in found):
        raise ConfigError(
            f"{place.uri} is not empty and is not an exported model: it contains {min(found)}",
            remedy="pass an empty or new directory, or an earlier export",
        )


def _data_of(spec: JobSpec) -> Store:
    return open_store(spec.data.uri, spec.storage.s3)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def merge(
    places: Sequence[str],
    out: str,
    s3: S3Options,
    *,
    steps: Sequence[int] | None,
    weights: Sequence[float] | None,
    evaluate: bool,
    greedy: bool,
    data: str | None,
    say: Say,
    on_bytes: OnBytes,
) -> Merged:
    """Average checkpoints of one run, or several exported models."""
    job_spec = find_job_spec(places[0], data, s3)
    data_uri = job_spec.spec.data.uri if job_spec is not None else data
    measure = None
    if evaluate or greedy:
        if data_uri is None:
            raise UsageError(
                f"{places[0]} is not a run directory, so the data set to evaluate on is unknown",
                remedy="add --data URI",
            )
        job = job_spec.worker_spec if job_spec is not None else None
        measure = Measure(
            open_store(data_uri, s3),
            job.evaluation if job else EvaluationSpec(),
            job.train.matryoshka_dims if job else (),
        )
    source: Source
    with ExitStack() as stack:
        if len(places) > 1:
            source = stack.enter_context(open_models({place: model_store(place, s3) for place in places}))
        elif job_spec is None:
            raise UsageError(
                f"{places[0]} is not a run directory, so it has no checkpoints to average",
                remedy="pass a run directory, or several exported models",
            )
        else:
            run = open_store(places[0], s3)
            spec = spec_of_run(job_spec.worker_spec, run)
            source = RunCheckpoints(
                job_spec.metadata.name, spec, open_store(job_spec.spec.data.uri, s3), run,
                find_checkpoints(run, steps),
            )  # fmt: skip
        if weights is not None and len(weights) != len(source.names):
            raise UsageError(
                f"--weights has {counted(len(weights), 'value')} for {counted(len(source.names), 'model')}: "
                f"{', '.join(source.names)}",
                remedy="write one weight per model, in that order",
            )
        return merging.merge(
            source, weights, open_store(out, s3), measure=measure, greedy=greedy, say=say, on_bytes=on_bytes
        )


def embed(
    model: str,
    address: str,
    out: str,
    s3: S3Options,
    *,
    prompt: str | None,
    instruction: str | None,
    dimensions: int | None,
    normalize: bool,
    precision: Precision,
    column: str | None,
    keep: Sequence[str] | None,
    into: str,
    shard_rows: int,
    batch_tokens: int,
    workers: int | None,
    gpus: int,
    say: Say,
    on_progress: OnEmbedding,
) -> Embedded:
    """Embed the texts of files into `out`; the prompt or the instruction goes before each text."""
    found = find_model(model, s3, batch_tokens=batch_tokens)
    with task_executor(workers, gpus=gpus) as executor:
        return embed_texts(
            found, address, open_store(out, s3), cut=Cut(dimensions, normalize),
            instruction=instruction_of(found, prompt, instruction), column=column, keep=keep, into=into,
            precision=precision, shard_rows=shard_rows, executor=executor, say=say, on_progress=on_progress,
        )  # fmt: skip


def instruction_of(model: EmbeddingModel, prompt: str | None, instruction: str | None) -> str:
    """The instruction, or that of the model's prompt with this name; empty without both. Documents have none."""
    if instruction is not None or prompt is None:
        return instruction or ""
    prompts = dict(model.prompts)
    found = instruction_in(prompts[prompt]) if prompt in prompts else None
    if found is None:
        raise _no_prompt(prompt, prompts)
    return found


def query_prefix(model: EmbeddingModel, prompt: str | None, instruction: str | None) -> str:
    """The text before a query: an instruction, or the model's prompt of this name. Default: the prompt `query`, if the
    model has it.
    """
    if instruction is not None:
        return format_query("", instruction)
    prompts = dict(model.prompts)
    if prompt is not None and prompt not in prompts:
        raise _no_prompt(prompt, prompts)
    return prompts.get(prompt or "query", "")


def _no_prompt(prompt: str, prompts: Mapping[str, str]) -> UsageError:
    return UsageError(
        f"the model has no prompt {prompt!r}; its prompts: {', '.join(prompts) or 'none'}",
        remedy="fix --prompt, or use --instruction TEXT",
    )
