"""Independent tasks in several processes on Ray, for preparing and mining data, embedding and evaluating.

They write the same objects as tasks in one process. If the process of a task dies, the task runs again.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from ray_app.ray_runtime.cluster import cluster  # isort: skip - must be imported before Ray

import ray

from data_io.execution import Executor
from ray_app.ray_runtime.failures import classify_error

T = TypeVar("T")
R = TypeVar("R")


def run_tasks(
    function: Callable[[T], R],
    tasks: Iterable[T],
    *,
    workers: int,
    cpus: float = 1,
    gpus: float = 0,
) -> Iterator[tuple[T, R]]:
    """Call `function` on every task, `workers` tasks at once. Yields each task with its result when it is done.

    Call it inside `ray_app.ray_runtime.cluster.cluster`. The function and the tasks must be picklable. A task can run
    twice; the result must be the same objects as if it ran once. The first error cancels the other tasks and is raised
    here: a task's own error unchanged, a failure of Ray as translated by `classify_error`.
    """
    submit = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=3)(function).remote
    upcoming = iter(tasks)
    running: dict[ray.ObjectRef, T] = {}
    try:
        while True:
            while len(running) < workers and (task := next(upcoming, None)) is not None:
                running[submit(task)] = task
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1)
            task = running.pop(done[0])
            try:
                result = ray.get(done[0])
            except ray.exceptions.RayError as error:
                raise classify_error(error) from error
            yield task, result
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


@contextmanager
def ray_executor(workers: int, *, gpus: int = 0) -> Iterator[Executor]:
    """An `Executor` that runs `workers` tasks at once, on the cluster at RAY_ADDRESS or an embedded one.

    With `gpus` it runs `gpus` tasks at once, each on its own GPU. Ray starts at the first call of the `Executor`, so an
    existing data set does not start Ray. On a cluster, all nodes must be able to read the store and the files. The
    `Executor` raises CapacityError if Ray does not start.
    """
    with ExitStack() as stack:
        started: list[bool] = []

        def run(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
            if not started:
                stack.enter_context(cluster(cpus=workers))
                started.append(True)
            yield from run_tasks(function, tasks, workers=gpus or workers, gpus=1 if gpus else 0)

        yield run
