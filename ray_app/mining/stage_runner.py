"""Runs the tasks of a stage on Ray, except those with a mark, and reports progress."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from data_io.storage.chunk_files import Mark
from ray_app.mining.stages import EmbedTask, ProbeTask, QueryTask, ReadTask
from ray_app.ray_runtime.task_pool import run_tasks

T = TypeVar("T", bound="ReadTask | ProbeTask | EmbedTask | QueryTask")


@dataclass(frozen=True)
class MiningProgress:
    """Finished tasks of a stage of a source, including those of an earlier run. `eta_seconds` is of the stage."""

    stage: str
    source: str
    done: int
    total: int
    eta_seconds: float | None


OnMining = Callable[[MiningProgress], None]


@dataclass(frozen=True)
class Workers:
    """`count` is the number of parallel tasks. With `gpus`, that many tasks use the model in parallel, one per GPU."""

    count: int
    gpus: int = 0


class StageRunner:
    """Runs the tasks that are not in `done`: the marks of an earlier run of the job, by task name."""

    def __init__(self, workers: Workers, done: Mapping[str, Mark], on_progress: OnMining) -> None:
        self._workers = workers
        self._done = done
        self._on_progress = on_progress

    def run(
        self, stage: str, source: str, function: Callable[[T], Mark], tasks: Sequence[T], *, on_model: bool
    ) -> list[Mark]:
        """The marks of `tasks` in their order. `on_model`: whether the tasks use the model. Raises the first error."""
        marks = {task.name: self._done[task.name] for task in tasks if task.name in self._done}
        missing = [task for task in tasks if task.name not in marks]
        gpus = self._workers.gpus if on_model else 0
        earlier, start = len(marks), monotonic()
        self.say(stage, source, earlier, len(tasks))
        results = run_tasks(function, missing, workers=gpus or self._workers.count, gpus=1 if gpus else 0)
        for task, mark in results:
            marks[task.name] = mark
            left, new = len(tasks) - len(marks), len(marks) - earlier
            self.say(stage, source, len(marks), len(tasks), (monotonic() - start) / new * left)
        return [marks[task.name] for task in tasks]

    def say(self, stage: str, source: str, done: int, total: int, eta_seconds: float | None = None) -> None:
        self._on_progress(MiningProgress(stage, source, done, total, eta_seconds))
