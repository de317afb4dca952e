"""One copy of a served model in this process: a replica of Ray Serve, or the only copy if Ray is not needed."""

import os
from collections.abc import Awaitable, Callable

from prometheus_client.core import Metric
from starlette.applications import Starlette

from ray_app.inference.model_source import ExportedModel
from ray_app.serving.engine import Engine
from ray_app.serving.http import EmbeddingServer
from ray_app.serving.metrics import ServeMetrics, exposition
from ray_app.serving.model import open_served
from ray_app.serving.settings import ServeSettings

API_KEY = "F2LLM_API_KEY"


class Copy:
    """A model that answers HTTP and embeds."""

    def __init__(
        self,
        model: ExportedModel,
        settings: ServeSettings,
        *,
        created: int,
        expose: Callable[[], Awaitable[bytes]] | None = None,
    ) -> None:
        """`created`: Unix time at which the service began. `expose` returns the text of /metrics if there are several
        replicas.
        """
        encoder, served = open_served(model, settings, created=created)
        limits = settings.limits
        self._metrics = ServeMetrics()
        self._engine = Engine(
            encoder, self._metrics, batch_tokens=settings.tokens_at_once, max_queued_tokens=limits.max_queued_tokens
        )
        self._server = EmbeddingServer(
            self._engine, served, limits, self._metrics, expose=expose or self._expose, api_key=os.environ.get(API_KEY)
        )

    @property
    def app(self) -> Starlette:
        """The ASGI application."""
        return self._server.app

    @property
    def works(self) -> bool:
        """Whether it still embeds."""
        return self._engine.works

    def metrics(self, name: str) -> list[Metric]:
        """Its metrics, with `name` as the label `replica`."""
        return self._metrics.collect(name)

    def refuse_new(self) -> int:
        """Answer 503 to new requests from now on. Returns the number of requests in progress."""
        self._server.stopping = True
        return self._server.in_flight

    async def _expose(self) -> bytes:
        return exposition([self.metrics("0")])
