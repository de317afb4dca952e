"""Independent pieces of work in several processes on Ray, for preparing and mining data.

What they leave is what one process would have left. A piece whose process dies is done again.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from ray_app.ray_runtime.cluster import cluster  # isort: skip - before Ray, which reads what it sets

import ray

from data_io.execution import Executor
from ray_app.ray_runtime.failures import classify_error

P = TypeVar("P")
R = TypeVar("R")


def run_tasks(
    function: Callable[[P], R],
    pieces: Iterable[P],
    *,
    workers: int,
    cpus: float = 1,
    gpus: float = 0,
) -> Iterator[tuple[P, R]]:
    """`function(piece)` for every piece, `workers` at once; yields each piece and its result as it is done.

    Call it inside `ray_app.ray_runtime.cluster.cluster`. Both must pickle, and a piece that is done twice must leave
    what it leaves when done once. The first error ends the rest and is raised here as it was raised there.
    """
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=3)(function)
    upcoming = iter(pieces)
    running: dict[ray.ObjectRef, P] = {}
    try:
        while True:
            while len(running) < workers and (piece := next(upcoming, None)) is not None:
                running[task.remote(piece)] = piece
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1)
            piece = running.pop(done[0])
            try:
                result = ray.get(done[0])
            except ray.exceptions.RayError as error:
                raise classify_error(error) from error
            yield piece, result
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


@contextmanager
def ray_executor(workers: int, *, gpus: int = 0) -> Iterator[Executor]:
    """An `Executor` that runs `workers` tasks at once, on the cluster of RAY_ADDRESS or an embedded one; with `gpus` it
    runs as many, each on a GPU of its own.

    Ray starts when the first piece is to be done: a data set that is already there needs none. On a cluster of several
    machines the store and the files must be reachable from all of them. The `Executor` raises CapacityError where
    Ray does not start.
    """
    with ExitStack() as stack:
        started: list[bool] = []

        def run(function: Callable[[Any], Any], pieces: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
            if not started:
                stack.enter_context(cluster(cpus=workers))
                started.append(True)
            yield from run_tasks(function, pieces, workers=gpus or workers, gpus=1 if gpus else 0)

        yield run
