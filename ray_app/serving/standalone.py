"""One copy of a model in this process behind uvicorn, without Ray: it starts sooner, and no proxy stands between."""

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
"""How long a connection stays open without a request: Ray Serve's, and longer than load balancers' own, which must be
the ones to close it.
"""


def serve_alone(
    model: ExportedModel, settings: ServeSettings, *, host: str, port: int, say: Callable[[str], None], ready: str
) -> int:
    """Serve until SIGTERM or SIGINT and give its number; `ready` is said once requests are answered.

    Raises ConfigError where the port is taken.
    """
    if not settings.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # as Ray does for what has asked for none
    copy = Copy(model, settings, created=int(time()))
    with stop_signals() as stop, _listening(copy.app, host, port, stop):
        say(ready)
        return stop.wait(copy.refuse_new, seconds=settings.limits.timeout_seconds, say=say)


@contextmanager
def _listening(app: Starlette, host: str, port: int, stop: Stop) -> Iterator[None]:
    """Requests are answered inside the block, in a thread: the main one hears signals."""
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
                        f"{host}, port {port} cannot be listened on: somebody else took it meanwhile",
                        remedy="give another one: --port N",
                    ) from running.exception()
                sleep(0.02)
            yield
        finally:
            server.should_exit = True
            server.force_exit = stop.twice.is_set()
