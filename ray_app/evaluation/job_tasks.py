"""Evaluates the tasks of a job spec with mteb as a part of the run: the initial model, and the trained model.

`f2llm evaluate RUN --task` does the same and writes to the same directory. mteb is an optional dependency and takes
seconds to import, so only a run with tasks imports it.
"""

from pathlib import Path

from data_io.execution import Say
from data_io.storage.store import Store, open_store
from ray_app.inference.model_source import EmbeddingModel, find_exported, initial_model, open_encoder
from ray_app.job_spec import JobSpec
from ray_app.run_directory.directory import append_event
from ray_app.run_directory.task_report import RESULTS, TaskReport, TaskScore


def measure_before(name: str, spec: JobSpec, *, data: Store, run: Store, say: Say) -> None:
    """Evaluate the initial model, for the column next to the trained model."""
    if spec.evaluation.measures_tasks:
        _measure(_initial(name, spec, data), spec, data=data, run=run, say=say, before=None)


def measure_exported(name: str, folder: Path, spec: JobSpec, *, data: Store, run: Store, say: Say) -> TaskReport | None:
    """Evaluate the exported model in `folder`. Returns None if the job spec has no tasks.

    A failed task, for example one whose data cannot be fetched, does not end the run. The event TasksNotMeasured gives
    the reason.
    """
    if not spec.evaluation.measures_tasks:
        return None
    before = _initial(name, spec, data) if spec.evaluation.before else None
    model = find_exported(open_store(str(folder)), name=name, batch_tokens=spec.evaluation.batch_tokens)
    report = _measure(model, spec, data=data, run=run, say=say, before=before)
    if report.failed:
        append_event(run, "TasksNotMeasured", tasks={task.name: task.failure for task in report.failed})
    return report


def _initial(name: str, spec: JobSpec, data: Store) -> EmbeddingModel:
    return initial_model(f"{name}-before", spec, data)


def _measure(
    model: EmbeddingModel, spec: JobSpec, *, data: Store, run: Store, say: Say, before: EmbeddingModel | None
) -> TaskReport:
    from ray_app.evaluation.tasks import evaluate_tasks

    try:
        return evaluate_tasks(
            model,
            spec.evaluation.tasks,
            results=run.child(RESULTS),
            data=data,
            before=before,
            on_progress=lambda found: say(f"task {found.done} of {found.total}, {_outcome(found.task)}"),
        )
    finally:
        open_encoder.cache_clear()  # the held-out sets use another encoder; do not hold two at a time


def _outcome(task: TaskScore) -> str:
    return f"{task.name}: " + ("not measured" if task.score is None else f"{task.metric} {task.score:.4f}")
