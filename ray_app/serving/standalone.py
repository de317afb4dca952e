"""One copy of a model in this process, served by uvicorn without Ray: it starts sooner and needs no proxy."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import sleep, time

import uvicorn
from starlette.applications import Starlette

from data_io.errors import ConfigError
from ray_app.inference.model_source import ExportedModel
from ray_app.serving.replica import Copy
from ray_app.serving.settings import ServeSettings
from ray_app.serving.shutdown import Stop, stop_signals

_GOODBYE_SECONDS = 5
_IDLE_SECONDS = 90
"""How long an idle connection stays open: as in Ray Serve, and longer than the timeouts of load balancers, which must
close the connection first.
"""


def serve_alone(
    model: ExportedModel, settings: ServeSettings, *, host: str, port: int, say: Callable[[str], None], ready: str
) -> int:
    """Serve until SIGTERM or SIGINT and return its number. Prints `ready` once requests are answered.

    Raises ConfigError if the port is in use.
    """
    if not settings.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # as Ray does for a task without GPUs
    copy = Copy(model, settings, created=int(time()))
    with stop_signals() as stop, _listening(copy.app, host, port, stop):
        say(ready)
        return stop.wait(copy.refuse_new, seconds=settings.limits.timeout_seconds, say=say)


@contextmanager
def _listening(app: Starlette, host: str, port: int, stop: Stop) -> Iterator[None]:
    """Requests are answered inside the block, in a thread, because the main thread handles signals."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=_GOODBYE_SECONDS,
        )
    )
    with ThreadPoolExecutor(1, thread_name_prefix="http") as thread:
        running = thread.submit(server.run)
        try:
            while not server.started:
                if running.done():
                    raise ConfigError(
                        f"cannot listen on {host}, port {port}: another process has taken the port meanwhile",
                        remedy="choose another with --port N",
                    ) from running.exception()
                sleep(0.02)
            yield
        finally:
            server.should_exit = True
            server.force_exit = stop.twice.is_set()
