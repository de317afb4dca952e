"""A served model on Ray Serve: its proxy forwards requests to replicas. The only module that imports Ray for serving.

Each replica both answers HTTP and embeds. Sending a short text to another process would take longer than embedding it.
"""

import logging
import os
from collections.abc import Callable, Mapping
from functools import cache
from time import time
from typing import Any

from ray_app.ray_runtime.cluster import cluster  # isort: skip - before anything that imports Ray

from prometheus_client.core import Metric
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.applications import Starlette

from ray_app.errors import CapacityError
from ray_app.ray_runtime.environment import EMBEDDED
from ray_app.serving.metrics import exposition
from ray_app.serving.model import find_served
from ray_app.serving.replica import API_KEY, Copy
from ray_app.serving.settings import ServeSettings
from ray_app.serving.shutdown import stop_signals

APP = "f2llm"
DEPLOYMENT = "model"
_QUIET = LoggingConfig(enable_access_log=False, log_level="WARNING")


@serve.ingress()
class _Replica:
    def __init__(self, settings: Mapping[str, Any], created: int) -> None:
        checked = ServeSettings.model_validate(settings)
        self._copy = Copy(find_served(checked), checked, created=created, expose=_expose)

    def __serve_build_asgi_app__(self) -> Starlette:
        return self._copy.app

    def check_health(self) -> None:
        """Ray Serve replaces a replica whose check raises."""
        if not self._copy.works:
            raise RuntimeError("the last batches all failed")

    def metrics(self) -> list[Metric]:
        return self._copy.metrics(serve.get_replica_context().replica_id.unique_id)

    def refuse_new(self) -> int:
        return self._copy.refuse_new()


async def _expose() -> bytes:
    return exposition(await _replicas().broadcast("metrics").results_async(timeout_s=10))


@cache
def _replicas() -> Any:
    return serve.get_deployment_handle(DEPLOYMENT, APP)


def build(arguments: Mapping[str, Any]) -> serve.Application:
    """The Ray Serve application for these settings. A RayService names this function as its `import_path`."""
    settings = ServeSettings.model_validate(arguments)
    most = settings.limits.max_requests
    deployment = serve.deployment(
        _Replica,
        name=DEPLOYMENT,
        num_replicas=settings.replicas,
        # The replica itself refuses requests before Ray Serve would, with an answer that clients understand.
        max_ongoing_requests=2 * most,
        graceful_shutdown_timeout_s=settings.limits.timeout_seconds,
        graceful_shutdown_wait_loop_s=0.1,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
        logging_config=_QUIET,
    )
    return deployment.bind(settings.model_dump(), int(time()))


def serve_on_ray(settings: ServeSettings, *, host: str, port: int, say: Callable[[str], None], ready: str) -> int:
    """Serve until SIGTERM or SIGINT and return its number. Prints `ready` once requests are answered.

    Joins the cluster that RAY_ADDRESS names, or starts an embedded one. Raises CapacityError if the replicas do not
    start.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    env = {API_KEY: os.environ[API_KEY]} if API_KEY in os.environ else {}
    # Ray installs its own signal handlers when it starts, so ours must be installed after.
    with cluster(cpus=settings.replicas * settings.cpus, env=env), stop_signals() as stop:
        try:
            where = "HeadOnly" if EMBEDDED else "EveryNode"
            serve.start(proxy_location=where, http_options={"host": host, "port": port}, logging_config=_QUIET)
            handle = serve.run(build(settings.model_dump()), name=APP)
        except Exception as error:  # Ray Serve raises plain exceptions
            raise CapacityError(
                f"the replicas of {settings.model} did not start: {error}",
                remedy="check whether the machine has enough CPUs, GPUs and memory for them (`f2llm doctor`)",
            ) from error
        say(ready)

        def refuse_new() -> int:
            return sum(handle.broadcast("refuse_new").results())

        number = stop.wait(refuse_new, seconds=settings.limits.timeout_seconds, say=say)
        if not EMBEDDED:  # an embedded cluster ends as a whole; deleting first would answer 404 for a while
            serve.delete(APP)
    return number
