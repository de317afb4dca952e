"""Independent pieces of work on Ray, for preparing and mining data. A piece whose process dies is done again."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import ray_app.ray_environment  # noqa: F401 # isort: skip - before Ray, which reads what it sets

import ray

from ray_app.causes import cause_of

P = TypeVar("P")
R = TypeVar("R")


def run_pieces(
    function: Callable[[P], R],
    pieces: Iterable[P],
    *,
    workers: int,
    cpus: float = 1,
    gpus: float = 0,
) -> Iterator[tuple[P, R]]:
    """`function(piece)` for every piece, `workers` at once; yields each piece and its result as it is done.

    Call it inside `ray_app.cluster.cluster`. Both must pickle, and a piece that is done twice must leave what it leaves
    when done once. The first error ends the rest and is raised here as it was raised there.
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
                raise cause_of(error) from error
            yield piece, result
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
