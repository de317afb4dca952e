"""Independent pieces of work in several processes on Ray: what they leave is what one process would have left."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ray_app.cluster import cluster  # isort: skip - before anything that imports Ray

from data_io.work import Run
from ray_app.pieces import run_pieces


@contextmanager
def ray_run(workers: int, *, gpus: int = 0) -> Iterator[Run]:
    """A `Run` that does `workers` pieces at once, on the cluster of RAY_ADDRESS or an embedded one; with `gpus` it does
    as many, each on a GPU of its own.

    Ray starts when the first piece is to be done: a data set that is already there needs none. On a cluster of several
    machines the store and the files must be reachable from all of them. The `Run` raises CapacityError where Ray does
    not start.
    """
    with ExitStack() as stack:
        started: list[bool] = []

        def run(function: Callable[[Any], Any], pieces: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
            if not started:
                stack.enter_context(cluster(cpus=workers))
                started.append(True)
            yield from run_pieces(function, pieces, workers=gpus or workers, gpus=1 if gpus else 0)

        yield run
