"""Where work is done: in this process, or in several on Ray; on the CPU, or on a GPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from data_io.execution import Executor, in_process
from jobs.extras import needs


@contextmanager
def task_executor(workers: int | None, *, gpus: int = 0) -> Iterator[Executor]:
    """Run independent tasks in `workers` processes on Ray (None: one per core where Ray is installed), or here if that
    is one. With `gpus`, in as many processes, each with a GPU of its own.
    """
    count = workers or (os.cpu_count() or 1 if find_spec("ray") else 1)
    if count == 1 and gpus == 0:
        yield in_process
        return
    with needs("train"):
        from ray_app.ray_runtime.task_pool import ray_executor
    with ray_executor(count, gpus=gpus) as run:
        yield run
