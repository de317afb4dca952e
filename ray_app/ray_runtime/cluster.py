"""Ray itself: join the cluster that RAY_ADDRESS names, or start an embedded one that ends with this process."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray_app.ray_runtime.environment import EMBEDDED  # isort: skip - before Ray, which reads it

import ray
from tenacity import (
    Retrying,
    retry_if_exception_message,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
)

from ray_app.errors import CapacityError

FIRST_ANSWER_SECONDS = 15.0
"""How long a cluster may take to answer at all: a wrong address should not cost minutes."""


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
    else:
        _check_answers(os.environ["RAY_ADDRESS"])
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


def _check_answers(address: str) -> None:
    """Raises CapacityError where nothing listens at `host:port`: Ray would ask it for minutes. Other addresses pass."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # "auto"
        return
    again = Retrying(
        retry=retry_if_exception_type(OSError),
        stop=stop_after_delay(FIRST_ANSWER_SECONDS),
        wait=wait_fixed(1),
        reraise=True,
    )
    try:
        again(socket.create_connection, (host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise CapacityError(
            f"no Ray cluster answers at {address}, which RAY_ADDRESS names: {error.strerror or error}",
            remedy="correct RAY_ADDRESS, start the cluster, or unset RAY_ADDRESS to start an embedded one",
        ) from error


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
