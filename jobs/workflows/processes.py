"""Run tasks in this process or in several processes on Ray, on the CPU or on GPUs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from data_io.execution import Executor, in_process
from jobs.extras import needs


@contextmanager
def task_executor(workers: int | None, *, gpus: int = 0) -> Iterator[Executor]:
    """Run independent tasks in `workers` processes on Ray (None: one per CPU if Ray is installed). One worker runs in
    this process. With `gpus`, there are that many processes, each with its own GPU.
    """
    count = workers or (os.cpu_count() or 1 if find_spec("ray") else 1)
    if count == 1 and gpus == 0:
        yield in_process
        return
    with needs("train"):
        from ray_app.ray_runtime.task_pool import ray_executor
    with ray_executor(count, gpus=gpus) as run:
        yield run
