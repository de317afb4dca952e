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


def evaluate_run(job: EmbeddingJob, run_uri: str, *, dims: Sequence[int], say: Say) -> EvaluationReport:
    """Measure model/ of a run again, into evaluation/after.json. `job` is the run's document; `dims` are numbers of
    first values of the embeddings to measure with too.
    """
    spec = job.worker_spec
    run = open_store(run_uri, spec.storage.s3)
    if not run.exists("model/config.json"):
        raise NotFoundInStore(f"{run_uri} has no model", remedy=f"write it first: `f2llm export {run_uri}`")
    return stages.evaluate_exported(spec, data=_data_of(spec), run=run, device=_device(), say=say, dims=dims)


def export_run(job: EmbeddingJob, run_uri: str, *, out: str | None) -> str:
    """Write a run's newest checkpoint as a model directory: `out`, or model/ of the run. Returns where it is.

    Raises ConfigError if `out` holds something that is not a model.
    """
    spec, name = job.worker_spec, job.metadata.name
    run = open_store(run_uri, spec.storage.s3)
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
    """An earlier export is replaced; anything else is somebody's work."""
    level = place.list_level()
    found = {*level.keys, *level.folders}
    if found and (not {"config.json", "modules.json", "1_Pooling"} <= found or "job.yaml" in found):
        raise ConfigError(
            f"{place.uri} holds something that is no exported model ({min(found)})",
            remedy="give a directory that is empty or not there, or an earlier export",
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
    """Average checkpoints of the run at one place, or the exported models at several."""
    job_spec = find_job_spec(places[0], data, s3)
    data_uri = job_spec.spec.data.uri if job_spec is not None else data
    measure = None
    if evaluate or greedy:
        if data_uri is None:
            raise UsageError(
                f"{places[0]} is no run, whose document names the data set to measure on", remedy="name it: --data URI"
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
                f"{places[0]} is no run directory, whose checkpoints could be averaged",
                remedy="give a run, or several exported models",
            )
        else:
            run = open_store(places[0], s3)
            source = RunCheckpoints(
                job_spec.metadata.name, job_spec.worker_spec, open_store(job_spec.spec.data.uri, s3), run,
                find_checkpoints(run, steps),
            )  # fmt: skip
        if weights is not None and len(weights) != len(source.names):
            raise UsageError(
                f"--weights are {len(weights)}, and there are {len(source.names)} models: {', '.join(source.names)}",
                remedy="give one weight a model, in that order",
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
    """Embed the texts of files into `out`, each behind the model's prompt of that name, or behind an instruction."""
    found = find_model(model, s3, batch_tokens=batch_tokens)
    with task_executor(workers, gpus=gpus) as executor:
        return embed_texts(
            found, address, open_store(out, s3), cut=Cut(dimensions, normalize),
            instruction=instruction_of(found, prompt, instruction), column=column, keep=keep, into=into,
            precision=precision, shard_rows=shard_rows, executor=executor, say=say, on_progress=on_progress,
        )  # fmt: skip


def instruction_of(model: EmbeddingModel, prompt: str | None, instruction: str | None) -> str:
    """The instruction itself, or what the model puts before a text under the prompt's name; documents carry none."""
    if instruction is not None or prompt is None:
        return instruction or ""
    prompts = dict(model.prompts)
    found = instruction_in(prompts[prompt]) if prompt in prompts else None
    if found is None:
        raise _no_prompt(prompt, prompts)
    return found


def query_prefix(model: EmbeddingModel, prompt: str | None, instruction: str | None) -> str:
    """What is put before a query: an instruction, or the model's prompt of that name; `query`, if it has one, where
    neither is given.
    """
    if instruction is not None:
        return format_query("", instruction)
    prompts = dict(model.prompts)
    if prompt is not None and prompt not in prompts:
        raise _no_prompt(prompt, prompts)
    return prompts.get(prompt or "query", "")


def _no_prompt(prompt: str, prompts: Mapping[str, str]) -> UsageError:
    return UsageError(
        f"the model has no prompt {prompt!r}; it has {', '.join(prompts) or 'none'}",
        remedy="correct --prompt, or give an instruction: --instruction TEXT",
    )
