"""Ray itself: join the cluster that RAY_ADDRESS names, or start an embedded one that ends with this process."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray_app.ray_runtime.environment import EMBEDDED  # isort: skip - before Ray, which reads it

import ray
from tenacity import Retrying, retry_if_exception_message, stop_after_attempt

from ray_app.errors import CapacityError


@contextmanager
def cluster(
    *, cpus: float, env: Mapping[str, str] | None = None, setup_hook: Callable[[], None] | None = None
) -> Iterator[None]:
    """Ray for the length of the block: `cpus` cores for the work in all, `env` for its processes.

    Each process calls `setup_hook`, a function of a module, before it is given work.

    Raises CapacityError where Ray does not start.
    """
    environment = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
        "TOKENIZERS_PARALLELISM": "false",
        **(env or {}),
    }
    runtime_env: dict[str, Any] = {"env_vars": environment}
    if setup_hook is not None:  # by its name, or Ray would pickle it
        runtime_env["worker_process_setup_hook"] = f"{setup_hook.__module__}.{setup_hook.__qualname__}"
    options: dict[str, Any] = {
        "runtime_env": runtime_env,
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
            f"Ray did not start: {_gist(error)}",
            remedy="run `f2llm doctor`; to join a cluster set RAY_ADDRESS, to start an embedded one unset it",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


# Ray gives its node 30 s to start, too little for a busy laptop; no setting changes that.
_start_again_if_late = Retrying(
    retry=retry_if_exception_message(match=r"(?s).*timed out during startup"),
    stop=stop_after_attempt(3),
    before_sleep=lambda _: ray.shutdown(),
    reraise=True,
)


def _gist(error: Exception) -> str:
    """The first line, and the last where that is another: the cause of a traceback that Ray puts into its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(dict.fromkeys((lines[0], lines[-1])))
