"""Joins the Ray cluster at RAY_ADDRESS, or starts an embedded one that ends with this process."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray_app.ray_runtime.environment import EMBEDDED  # isort: skip - must be imported before Ray

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
"""The time limit for a cluster's first answer, so that a wrong address does not cost minutes."""


@contextmanager
def cluster(
    *, cpus: float, env: Mapping[str, str] | None = None, setup_hook: Callable[[], None] | None = None
) -> Iterator[None]:
    """Ray for the duration of the block. `cpus`: CPUs needed in total. `env`: environment variables of its processes.

    Each process calls `setup_hook`, a function of a module, before it gets work.

    Raises CapacityError if Ray does not start.
    """
    environment = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
        "TOKENIZERS_PARALLELISM": "false",
        **(env or {}),
    }
    runtime_env: dict[str, Any] = {"env_vars": environment}
    if setup_hook is not None:  # passed by name; otherwise Ray would pickle it
        runtime_env["worker_process_setup_hook"] = f"{setup_hook.__module__}.{setup_hook.__qualname__}"
    options: dict[str, Any] = {
        "runtime_env": runtime_env,
        "log_to_driver": False,
        "logging_level": "ERROR",
    }
    if EMBEDDED:
        # Ray uses the number of CPUs to place work, not to limit it: on a laptop, three workers can share two CPUs.
        num_cpus = max(os.cpu_count() or 1, int(cpus) + 1)
        # "local": otherwise Ray would join any other cluster that runs on this machine.
        options |= {"address": "local", "num_cpus": num_cpus, "include_dashboard": False}
    else:
        _check_answers(os.environ["RAY_ADDRESS"])
    try:
        _start_again_if_late(ray.init, **options)
    except Exception as error:  # Ray raises some failures as plain exceptions
        raise CapacityError(
            f"Ray did not start: {_gist(error)}",
            remedy="run `f2llm doctor`; set RAY_ADDRESS to join a cluster, or unset it to start an embedded one",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raises CapacityError if nothing listens at `host:port`: Ray itself would retry for minutes.

    Does not check addresses in other forms.
    """
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
            f"no Ray cluster answers at {address} (RAY_ADDRESS): {error.strerror or error}",
            remedy="correct RAY_ADDRESS, start the cluster, or unset RAY_ADDRESS to start an embedded cluster",
        ) from error


# Ray gives its node 30 s to start, which is too short for a busy laptop, and no setting changes that.
_start_again_if_late = Retrying(
    retry=retry_if_exception_message(match=r"(?s).*timed out during startup"),
    stop=stop_after_attempt(3),
    before_sleep=lambda _: ray.shutdown(),
    reraise=True,
)


def _gist(error: Exception) -> str:
    """The first and the last line. If Ray's message contains a traceback, its cause is in the last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(dict.fromkeys((lines[0], lines[-1])))
