"""Evaluate models on tasks of mteb and on the user's own tasks. Needs the extras `train` and `benchmark`."""

from collections.abc import Mapping, Sequence

from data_io.data_spec import S3Options
from data_io.storage.store import open_store
from jobs.workflows.processes import task_executor
from jobs.workflows.runs import find_job_spec
from ray_app.evaluation import tasks as task_evaluation
from ray_app.inference.encoder import Cut
from ray_app.inference.model_source import find_model, initial_model
from ray_app.run_directory.hub_commits import spec_of_run
from ray_app.run_directory.task_report import RESULTS, TaskReport


def evaluate_tasks(
    place: str,
    s3: S3Options,
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
    on_progress: task_evaluation.OnTask,
) -> TaskReport:
    """Evaluate a model on tasks. `check_results_place` must have accepted `place`, `out` and `before`."""
    job_spec = find_job_spec(place, data, s3)
    data_uri = job_spec.spec.data.uri if job_spec is not None else data
    store = None if data_uri is None else open_store(data_uri, s3)
    earlier = None
    if job_spec is not None and store is not None:
        spec = spec_of_run(job_spec.worker_spec, open_store(place, s3))
        earlier = initial_model(f"{name or job_spec.metadata.name}-before", spec, store)
    model = earlier if before and earlier else find_model(place, s3, name=name)
    results = open_store(out, s3) if out is not None else open_store(place, s3).child(RESULTS)
    with task_executor(workers, gpus=gpus) as executor:
        return task_evaluation.evaluate_tasks(
            model, tasks, results=results, data=store, instructions=instructions,
            cut=Cut(dimensions), before=None if before else earlier, overwrite=overwrite,
            on_progress=on_progress, executor=executor,
        )  # fmt: skip
