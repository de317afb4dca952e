"""Preparing a large data set with several processes on Ray: what it leaves is what one process would have left."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from ray_app.cluster import cluster  # isort: skip - before anything that imports Ray

from data_io.manifest import Manifest
from data_io.prepare import FileInput, prepare_files
from data_io.storage import Store
from ray_app.pieces import run_pieces


def prepare_on_ray(store: Store, inputs: Sequence[FileInput], *, workers: int, **settings: Any) -> Manifest:
    """`prepare_files` with `workers` pieces at once, on the cluster of RAY_ADDRESS or an embedded one.

    Ray starts when the first piece is to be done: a data set that is already there needs none. On a cluster of several
    machines the store and the files must be reachable from all of them. Raises what `prepare_files` does, and
    CapacityError where Ray does not start.
    """
    with ExitStack() as stack:
        started: list[bool] = []

        def run(function: Callable[[Any], Any], pieces: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
            if not started:
                stack.enter_context(cluster(cpus=workers))
                started.append(True)
            yield from run_pieces(function, pieces, workers=workers)

        return prepare_files(store, inputs, run=run, **settings)
