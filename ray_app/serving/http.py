"""The HTTP server of a model: OpenAI's routes, and the routes for Kubernetes and Prometheus. Does not depend on Ray.

Paths are the same as in vLLM, TEI and Infinity: /v1/embeddings, /v1/models, /health, /metrics.
"""

import asyncio
import base64
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ray_app.serving.engine import Engine
from ray_app.serving.errors import Refusal, overloaded, stopping, too_large, too_late
from ray_app.serving.metrics import CONTENT_TYPE, ServeMetrics
from ray_app.serving.request import EmbeddingRequest, Encoding, Served, check_model, parse_request
from ray_app.serving.settings import ServeLimits

Handler = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")

_READ_TO_THE_END_BYTES = 64 << 20


class EmbeddingServer:
    """One model over HTTP. `app` is the ASGI application."""

    def __init__(
        self,
        engine: Engine,
        served: Served,
        limits: ServeLimits,
        metrics: ServeMetrics,
        *,
        expose: Callable[[], Awaitable[bytes]],
        api_key: str | None = None,
    ) -> None:
        """`expose` returns the text of /metrics. If `api_key` is set, requests to /v1 need it as their bearer token."""
        self._engine, self._served, self._limits, self._metrics = engine, served, limits, metrics
        self._expose, self._api_key = expose, api_key
        self.stopping = False
        self.in_flight = 0
        self.app = Starlette(
            routes=[
                Route("/v1/embeddings", self._counted, methods=["POST"]),
                Route("/v1/models", self._guarded(self._models)),
                Route("/v1/models/{name:path}", self._guarded(self._model)),
                Route("/health", self._health),
                Route("/metrics", self._show_metrics),
            ],
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _no_route, Refusal: _refused},
        )

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self._engine.start()
        yield
        self._engine.stop()

    async def _counted(self, request: Request) -> Response:
        """Answer a request for embeddings, and count and time the answer, whatever its status."""
        began = monotonic()
        self.in_flight += 1
        self._metrics.in_flight.set(self.in_flight)
        try:
            answer = await self._embeddings(request)
        except Refusal as refusal:
            answer = _answer_refusal(refusal)
        except ClientDisconnect:
            answer = Response(status_code=499)
        finally:
            self.in_flight -= 1
            self._metrics.in_flight.set(self.in_flight)
        self._metrics.requests.labels(status=str(answer.status_code)).inc()
        self._metrics.seconds.observe(monotonic() - began)
        return answer

    async def _embeddings(self, request: Request) -> Response:
        self._check_key(request)
        if self.stopping:
            raise stopping()
        if self.in_flight > self._limits.max_requests:
            raise overloaded(f"{self._limits.max_requests:,} requests are in progress", 1)
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                body = await self._body(request)
                asked = parse_request(body, self._served)
                vectors, tokens = await _unless_gone(request, self._engine.embed(asked.texts, truncate=asked.truncate))
        except TimeoutError:
            raise too_late(self._limits.timeout_seconds) from None
        return _json(answer(vectors, tokens, asked, model=self._served.name))

    async def _body(self, request: Request) -> bytes:
        """Read the body; at most the limit is kept in memory, whatever its Content-Length says.

        A body that is too large is read to its end, up to 64 MiB. A client that is cut off while it sends does not read
        the answer, and reports a broken connection instead.
        """
        most = self._limits.max_body_bytes
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size <= most:
                parts.append(part)
            elif size > _READ_TO_THE_END_BYTES:
                break
        if size > most:
            length = request.headers.get("content-length", "")
            raise too_large(f"{int(length):,}" if length.isdecimal() else f"more than {most:,}", most)
        return b"".join(parts)

    async def _models(self, _request: Request) -> Response:
        return _json({"object": "list", "data": [self._description()]})

    async def _model(self, request: Request) -> Response:
        check_model(request.path_params["name"], self._served)
        return _json(self._description())

    def _description(self) -> dict[str, Any]:
        """OpenAI's fields, vLLM's `max_model_len`, and the dimensions and prompts that a request can choose from."""
        return {
            "id": self._served.name,
            "object": "model",
            "created": self._served.created,
            "owned_by": "f2llm-ray",
            "max_model_len": self._served.max_tokens,
            "dimensions": self._served.dimensions,
            "prompts": dict(self._served.prompts),
        }

    async def _health(self, _request: Request) -> Response:
        if self.stopping:
            return _answer_refusal(stopping())
        if not self._engine.works:
            return _answer_refusal(Refusal(503, "The last batches all failed; restart this process.", code="broken"))
        return _json({"status": "ok"})

    async def _show_metrics(self, _request: Request) -> Response:
        return Response(await self._expose(), media_type=CONTENT_TYPE)

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            self._check_key(request)
            return await handler(request)

        return guarded

    def _check_key(self, request: Request) -> None:
        if self._api_key is None:
            return
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._api_key}".encode()):
            raise Refusal(
                401, "The API key is missing or wrong. Send it as `Authorization: Bearer KEY`.", code="api_key"
            )


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. It is canceled together with its caller, and if the client disconnects.

    Raises ClientDisconnect if the client disconnects.
    """
    tasks = doing, gone = asyncio.ensure_future(work), asyncio.ensure_future(_client_goes(request))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            gone.result()
            raise ClientDisconnect
        return doing.result()
    finally:
        doing.cancel()
        gone.cancel()


async def _client_goes(request: Request) -> None:
    """Return when the client disconnects. Its request must have been read to the end before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def answer(vectors_ND: npt.NDArray[np.float32], tokens: int, asked: EmbeddingRequest, *, model: str) -> dict[str, Any]:
    """OpenAI's response. Vectors that are cut to fewer dimensions are L2-normalized again."""
    if asked.dimensions is not None:
        vectors_ND = vectors_ND[:, : asked.dimensions]
        # The epsilon of torch's normalize, which `f2llm embed` uses.
        vectors_ND = vectors_ND / np.maximum(np.linalg.norm(vectors_ND, axis=1, keepdims=True), 1e-12)
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, asked.encoding)}
        for index, vector in enumerate(vectors_ND)
    ]
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _encoded(vector_D: npt.NDArray[np.float32], encoding: Encoding) -> Any:
    """base64 of little-endian float32, or the numbers themselves."""
    if encoding == "base64":
        return base64.b64encode(vector_D.astype("<f4").tobytes()).decode()
    return np.ascontiguousarray(vector_D)


def _json(content: Any, *, status: int = 200, headers: Any = None) -> Response:
    return Response(
        orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), status, headers, media_type="application/json"
    )


def _answer_refusal(refusal: Refusal) -> Response:
    return _json(refusal.body, status=refusal.status, headers=refusal.headers)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _answer_refusal(error)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    found = f"{request.method} {request.url.path}"
    return _answer_refusal(
        Refusal(
            error.status_code,
            f"The route {found} does not exist. Routes: POST /v1/embeddings, GET /v1/models, GET /health, "
            "GET /metrics.",
            code="no_such_route",
        )
    )
