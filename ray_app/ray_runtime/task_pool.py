"""Independent tasks in several processes on Ray, for preparing and mining data, embedding and evaluating.

They leave the same objects as tasks of one process. A task whose process dies is done again.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from ray_app.ray_runtime.cluster import cluster  # isort: skip - before Ray, which reads what it sets

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
    """Call `function` on every task, `workers` at once; yields each task with its result when it is done.

    Call it inside `ray_app.ray_runtime.cluster.cluster`. Function and tasks must pickle. A task may be done twice, and
    must then leave the same objects as when it is done once. The first error ends the rest and is raised here: an error
    of the task as it was raised there, a failure of Ray as `classify_error` has it.
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
    """An `Executor` that runs `workers` tasks at once, on the cluster of RAY_ADDRESS or an embedded one; with `gpus` it
    runs as many, each on a GPU of its own.

    Ray starts with the first call of the `Executor`: a data set that is already there needs none. On a cluster of
    several machines the store and the files must be reachable from all of them. The `Executor` raises CapacityError
    where Ray does not start.
    """
    with ExitStack() as stack:
        started: list[bool] = []

        def run(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
            if not started:
                stack.enter_context(cluster(cpus=workers))
                started.append(True)
            yield from run_tasks(function, tasks, workers=gpus or workers, gpus=1 if gpus else 0)

        yield run
