"""A served model on Ray Serve: replicas behind its proxy. The one door to Ray for serving.

A replica answers HTTP itself and embeds: a hop to another process would cost a short text more than its embedding.
"""

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from threading import Event
from time import monotonic
from typing import Any

from ray_app.cluster import cluster  # isort: skip - before anything that imports Ray

from prometheus_client.core import Metric
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.applications import Starlette

from data_io.errors import ConfigError
from ray_app.errors import CapacityError
from ray_app.ray_environment import EMBEDDED
from ray_app.serve_engine import Engine
from ray_app.serve_http import EmbeddingServer
from ray_app.serve_metrics import ServeMetrics, exposition
from ray_app.serve_model import find_served, open_served
from ray_app.serve_settings import ServeSettings

APP = "f2llm"
DEPLOYMENT = "model"
API_KEY = "F2LLM_API_KEY"
_QUIET = LoggingConfig(enable_access_log=False, log_level="WARNING")
_POLL_SECONDS = 0.05
_QUIET_POLLS = 4


@serve.ingress()
class _Replica:
    """One copy of the model."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = ServeSettings.model_validate(settings)
        self._encoder, self._served = open_served(self._settings)
        self._metrics = ServeMetrics()

    def __serve_build_asgi_app__(self) -> Starlette:
        limits = self._settings.limits
        self._engine = Engine(
            self._encoder,
            self._metrics,
            batch_tokens=self._settings.tokens_at_once,
            max_queued_tokens=limits.max_queued_tokens,
        )
        self._server = EmbeddingServer(
            self._engine, self._served, limits, self._metrics, expose=_expose, api_key=os.environ.get(API_KEY)
        )
        return self._server.app

    def check_health(self) -> None:
        """Ray Serve replaces a replica whose check raises."""
        if not self._engine.works:
            raise RuntimeError("nothing is embedded any more")

    def metrics(self) -> list[Metric]:
        return self._metrics.collect(serve.get_replica_context().replica_id.unique_id)

    def refuse_new(self) -> int:
        """From now on answer 503 to new requests; gives how many are still under way."""
        self._server.stopping = True
        return self._server.in_flight


async def _expose() -> bytes:
    return exposition(await _replicas().broadcast("metrics").results_async(timeout_s=10))


@cache
def _replicas() -> Any:
    return serve.get_deployment_handle(DEPLOYMENT, APP)


def build(arguments: Mapping[str, Any]) -> serve.Application:
    """The application of these settings: what a RayService names as `import_path`."""
    settings = ServeSettings.model_validate(arguments)
    most = settings.limits.max_requests
    deployment = serve.deployment(
        _Replica,
        name=DEPLOYMENT,
        num_replicas=settings.replicas,
        # The replica refuses by itself, with an answer that clients understand, before Ray Serve does.
        max_ongoing_requests=2 * most,
        graceful_shutdown_timeout_s=settings.limits.timeout_seconds,
        graceful_shutdown_wait_loop_s=0.1,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
        logging_config=_QUIET,
    )
    return deployment.bind(settings.model_dump())


def serve_here(settings: ServeSettings, *, host: str, port: int, say: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT, whose number is given back; what was accepted is answered first, unless a second
    one comes.

    Joins the cluster that RAY_ADDRESS names, or starts an embedded one. Raises ModelError where there is no model,
    ConfigError where the port is taken, and CapacityError where the replicas do not come up.
    """
    name = find_served(settings).name
    if EMBEDDED:
        _check_address(host, port)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    env = {API_KEY: os.environ[API_KEY]} if API_KEY in os.environ else {}
    # Ray sets handlers of its own when it starts: these come after.
    with cluster(cpus=settings.replicas * settings.cpus, env=env), _signals() as heard:
        try:
            where = "HeadOnly" if EMBEDDED else "EveryNode"
            serve.start(proxy_location=where, http_options={"host": host, "port": port}, logging_config=_QUIET)
            handle = serve.run(build(settings.model_dump()), name=APP)
        except Exception as error:  # Ray Serve raises plain exceptions
            raise CapacityError(
                f"the replicas of {name} did not start: {error}",
                remedy="see whether the machine has the cores, GPUs and memory for them (`f2llm doctor`)",
            ) from error
        say(f"serving {name} at http://{host}:{port}/v1, {settings.replicas} x {settings.cpus} cores")
        heard.once.wait()
        say("stopping: no new requests; those under way are answered (again to end at once)")
        _drain(handle, settings.limits.timeout_seconds, at_once=heard.twice)
        if not EMBEDDED:  # an embedded one ends whole, without answering 404 for a while
            serve.delete(APP)
    return heard.numbers[0]


def _check_address(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise ConfigError(
            f"{host}, port {port} cannot be listened on: {error.strerror}", remedy="give another one: --port N, --host"
        ) from error


def _drain(handle: Any, seconds: float, *, at_once: Event) -> None:
    """Wait until nothing is under way; a request that the proxy had when it began may still come to a replica."""
    deadline = monotonic() + seconds
    quiet = 0
    while quiet < _QUIET_POLLS and monotonic() < deadline and not at_once.is_set():
        quiet = 0 if sum(handle.broadcast("refuse_new").results()) else quiet + 1
        at_once.wait(_POLL_SECONDS)


@dataclass(frozen=True)
class _Heard:
    """Which of SIGTERM and SIGINT have come."""

    numbers: list[int] = field(default_factory=list)
    once: Event = field(default_factory=Event)
    twice: Event = field(default_factory=Event)

    def hear(self, number: int, _frame: object) -> None:
        (self.twice if self.numbers else self.once).set()
        self.numbers.append(number)


@contextmanager
def _signals() -> Iterator[_Heard]:
    heard = _Heard()
    before = {each: signal.signal(each, heard.hear) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield heard
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
