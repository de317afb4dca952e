"""Evaluates a model on tasks with mteb, in mteb's result format: `f2llm evaluate --task`.

    <results>/results/<model>/<fingerprint>/<task>.json    in mteb's layout; mteb.ResultCache(<results>) reads them
    <results>/summary.json                                 the last evaluation as a table (run_directory/task_report.py)

Results of finished tasks are kept, so the same call resumes after the last finished task.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from data_io.bounded_json import read_json
from data_io.dataset.manifest import load_manifest
from data_io.errors import ConfigError
from data_io.evaluation.mteb import named_tasks
from data_io.evaluation.task import HELD_OUT, OwnTask, TaskKind, parse_task
from data_io.execution import Executor, in_process
from data_io.storage.store import Store
from data_io.task import instruction_of
from ray_app.evaluation.mteb_model import F2LLM_INSTRUCTIONS
from ray_app.evaluation.mteb_task import (
    META,
    SETTINGS,
    AnyTask,
    HeldOutTask,
    HubTask,
    Measured,
    MtebTask,
    known_score,
    measure_task,
    result_folder,
)
from ray_app.evaluation.own_tasks import default_instruction
from ray_app.inference.encoder import Cut
from ray_app.inference.model_source import EmbeddingModel
from ray_app.run_directory.task_report import SUMMARY, TaskReport, TaskScore


@dataclass(frozen=True)
class TaskProgress:
    """A finished task, and the number of tasks done. `eta_seconds` follows from the mean time per finished task."""

    task: TaskScore
    done: int
    total: int
    eta_seconds: float | None


OnTask = Callable[[TaskProgress], None]


def evaluate_tasks(
    model: EmbeddingModel,
    names: Sequence[str],
    *,
    results: Store,
    data: Store | None = None,
    instructions: Mapping[str, str] | None = None,
    cut: Cut | None = None,
    before: EmbeddingModel | None = None,
    overwrite: bool = False,
    executor: Executor = in_process,
    on_progress: OnTask | None = None,
) -> TaskReport:
    """Evaluate `model` on the named tasks (`data_io.evaluation.task`). `held-out` means the evaluation sets of `data`.

    `instructions`, by task, replace those of the recipe. `before` is another model; its stored results are added to the
    report. A failed task is in the report with the reason. Raises ConfigError for an unknown task, before any task is
    evaluated.
    """
    cut, given = cut or Cut(), instructions or {}
    tasks = find_tasks(names, data)
    unknown = sorted(given.keys() - {task.name for task in tasks})
    if unknown:
        raise ConfigError(
            f"an instruction is given for {unknown[0]}, which is not one of the evaluated tasks: "
            f"{', '.join(task.name for task in tasks)}",
            remedy="correct the name in --instruction NAME=TEXT",
        )
    mteb_tasks = [
        MtebTask(task, model, cut, results, *_instruction(task, model, given), overwrite=overwrite) for task in tasks
    ]
    done: dict[str, Measured] = {}
    started = monotonic()
    for mteb_task, measured in executor(measure_task, mteb_tasks):
        done[mteb_task.task.name] = measured
        _keep_settings(results, mteb_task, measured)
        if on_progress is not None:
            left = len(mteb_tasks) - len(done)
            eta = (monotonic() - started) / len(done) * left if left else None
            on_progress(TaskProgress(_score(mteb_task, measured, before), len(done), len(mteb_tasks), eta))
    report = TaskReport(
        model=model.name,
        revision=model.fingerprint,
        dimensions=cut.dimensions,
        results=results.uri,
        tasks=tuple(_score(mteb_task, done[mteb_task.task.name], before) for mteb_task in mteb_tasks),
    )
    results.put(SUMMARY, report.model_dump_json(indent=1).encode() + b"\n")
    return report


def find_tasks(names: Sequence[str], data: Store | None) -> list[AnyTask]:
    """The tasks of these names, each once. Raises ConfigError if a task is unknown, or if two share a name."""
    found: list[AnyTask] = []
    for text in names:
        found += _tasks_of(parse_task(text), data)
    by_name: dict[str, AnyTask] = {}
    for task in found:
        known = by_name.setdefault(task.name, task)
        if type(known) is not type(task) or (isinstance(task, OwnTask) and known != task):
            raise ConfigError(
                f"two tasks are called {task.name}", remedy="give your own task another name: NAME:KIND=FILE"
            )
    return list(by_name.values())


def _tasks_of(asked: OwnTask | str, data: Store | None) -> list[AnyTask]:
    if isinstance(asked, OwnTask):
        return [asked]
    if asked == HELD_OUT:
        if data is None:
            raise ConfigError(
                f"{HELD_OUT} means the evaluation sets of a data set, and no data set is given",
                remedy="evaluate a run, or name the data set with --data",
            )
        return [HeldOutTask(entry.name, entry.instruction, data) for entry in load_manifest(data).evaluations]
    tasks = named_tasks(asked)
    is_benchmark = len(tasks) > 1 or tasks[0].metadata.name != asked
    return [
        HubTask(
            task.metadata.name,
            task.metadata.type,
            asked if is_benchmark else None,
            tuple(task.eval_splits),
            tuple(task.hf_subsets) if task.metadata.is_multilingual else None,
        )
        for task in tasks
    ]


def _instruction(task: AnyTask, model: EmbeddingModel, given: Mapping[str, str]) -> tuple[str | None, bool]:
    """The instruction of a task's queries, and whether the user gave it.

    The user's instruction takes precedence. The defaults are:
    - for a task of mteb, the recipe's instruction, or None, which uses mteb's;
    - for an evaluation set, its own instruction;
    - for a user's task, the first that exists of: the instruction of the model's source of the same name, the model's
      query instruction (for retrieval and reranking), mteb's instruction for that type of task.
    """
    if task.name in given:
        return given[task.name], True
    if isinstance(task, HubTask):
        return F2LLM_INSTRUCTIONS.get(task.name), False
    if isinstance(task, HeldOutTask):
        return task.instruction, False
    prompts = {name: instruction_of(prompt) for name, prompt in model.prompts}
    own = prompts.get(task.name)
    if own is None and task.kind in (TaskKind.RETRIEVAL, TaskKind.RERANKING):
        own = prompts.get("query")
    return default_instruction(task.kind) if own is None else own, False


def _score(mteb_task: MtebTask, measured: Measured, before: EmbeddingModel | None) -> TaskScore:
    return TaskScore(
        name=measured.name,
        type=measured.type,
        metric=measured.metric,
        benchmark=mteb_task.task.benchmark if isinstance(mteb_task.task, HubTask) else None,
        score=measured.score,
        before=None if before is None or measured.score is None else known_score(mteb_task, before),
        instruction=measured.instruction,
        seconds=measured.seconds,
        failure=measured.failure,
        remedy=measured.remedy,
    )


def _keep_settings(results: Store, mteb_task: MtebTask, measured: Measured) -> None:
    """Add mteb's settings of a task to those of the model's other tasks. Only one process writes them."""
    if not measured.settings:
        return
    folder = results.child(result_folder(mteb_task))
    before = folder.get(SETTINGS).decode().splitlines() if folder.exists(SETTINGS) else []
    others = [line for line in before if read_json(line)["task"] != measured.name]
    folder.put(SETTINGS, "".join(f"{line}\n" for line in [*others, *measured.settings.splitlines()]).encode())
    folder.put(META, measured.meta.encode())
