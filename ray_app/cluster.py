"""Ray itself: join the cluster that RAY_ADDRESS names, or start an embedded one that ends with this process."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray_app.ray_environment import EMBEDDED  # isort: skip - before Ray, which reads it

import ray
from tenacity import Retrying, retry_if_exception, stop_after_attempt

from data_io.errors import F2LLMError
from ray_app.errors import CapacityError, TrainingError


@contextmanager
def cluster(*, cpus: float, env: Mapping[str, str] | None = None) -> Iterator[None]:
    """Ray for the length of the block: `cpus` cores for the work in all, `env` for its processes.

    Raises CapacityError where Ray does not start.
    """
    environment = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
        "TOKENIZERS_PARALLELISM": "false",
        **(env or {}),
    }
    options: dict[str, Any] = {
        "runtime_env": {"env_vars": environment},
        "log_to_driver": False,
        "logging_level": "ERROR",
    }
    if EMBEDDED:
        # Ray counts cores to place work, not to limit it: on a laptop three workers may share two.
        cores = max(os.cpu_count() or 1, int(cpus) + 1)
        # "local", or Ray would join whatever cluster somebody has started on this machine.
        options |= {"address": "local", "num_cpus": cores, "include_dashboard": False}
    try:
        _start_again_if_late(ray.init, **options)
    except Exception as error:  # Ray raises some failures as plain exceptions
        raise CapacityError(
            f"Ray did not start: {str(error).splitlines()[0]}",
            remedy="run `f2llm doctor`; to join a cluster set RAY_ADDRESS, to start an embedded one unset it",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


# Ray gives its own processes 30 s to start, and no setting changes that: too little for a laptop that is busy.
_start_again_if_late = Retrying(
    retry=retry_if_exception(lambda error: "timed out during startup" in str(error)),
    stop=stop_after_attempt(3),
    before_sleep=lambda _: ray.shutdown(),
    reraise=True,
)


def cause_of(error: BaseException) -> BaseException:
    """The error of ours at the bottom of what Ray raises, or a TrainingError with what it says."""
    queue: list[Any] = [error]
    while queue:
        found = queue.pop(0)
        if isinstance(found, F2LLMError):
            return found
        failures = getattr(found, "worker_failures", {})
        related = [
            *failures.values(),
            getattr(found, "cause", None),
            getattr(found, "_base_exc", None),
            found.__cause__,
        ]
        queue.extend(each for each in related if isinstance(each, BaseException))
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return TrainingError(
        f"a worker failed: {lines[-1] if lines else type(error).__name__}",
        remedy="see logs/ of the run directory; the same command goes on from the last checkpoint",
    )
