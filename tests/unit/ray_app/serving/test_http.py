"""The HTTP answers of a served model, without a server: the tests call the application as an ASGI server does."""

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from ray_app.serving.engine import Engine
from ray_app.serving.http import EmbeddingServer, answer
from ray_app.serving.metrics import ServeMetrics, exposition
from ray_app.serving.request import EmbeddingRequest, Served
from ray_app.serving.settings import ServeLimits
from tests.support.letters import Letters

SERVED = Served(name="demo", dimensions=2, max_tokens=10, max_inputs=8, prompts={"document": ""}, created=1)
ONE = b'{"model": "demo", "input": "abc"}'


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def code(self) -> Any:
        return json.loads(self.text)["error"]["code"]


class Site:
    """A server whose model embeds letters, and its settings."""

    def __init__(self, encoder: Letters | None = None, *, api_key: str | None = None, **limits: Any) -> None:
        self.metrics = ServeMetrics()
        self.encoder = encoder or Letters()
        engine = Engine(self.encoder, self.metrics, batch_tokens=20, max_queued_tokens=1000)  # type: ignore[arg-type]
        self.server = EmbeddingServer(
            engine, SERVED, ServeLimits(**limits), self.metrics, expose=self.expose, api_key=api_key
        )
        self.engine = engine
        self.client_goes = asyncio.Event()

    async def expose(self) -> bytes:
        return exposition([self.metrics.collect("a"), ServeMetrics().collect("b")])

    def ask(self, *requests: tuple[str, str, bytes, Mapping[str, str]]) -> list[Answer]:
        async def all_of_them() -> list[Answer]:
            self.engine.start()
            try:
                return list(await asyncio.gather(*(self._ask(*each) for each in requests)))
            finally:
                self.encoder.may_go_on.set()
                self.engine.stop()

        return asyncio.run(all_of_them())

    def post(self, body: bytes, **headers: str) -> Answer:
        (found,) = self.ask(("POST", "/v1/embeddings", body, headers))
        return found

    def get(self, path: str, **headers: str) -> Answer:
        (found,) = self.ask(("GET", path, b"", headers))
        return found

    async def _ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        parts = [body[i : i + 1000] for i in range(0, len(body), 1000)] or [b""]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if not parts:
                await self.client_goes.wait()
                return {"type": "http.disconnect"}
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(message: Any) -> None:
            sent.append(message)

        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b"", "root_path": ""}
        await self.server.app(scope, receive, send)
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], found, b"".join(part.get("body", b"") for part in sent[1:]).decode())


def test_a_request_is_answered_as_openai_answers_it() -> None:
    found = Site().post(b'{"model": "demo", "input": ["abc", "b"]}')

    assert found.status == 200
    assert json.loads(found.text) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [3.0, 97.0]},
            {"object": "embedding", "index": 1, "embedding": [1.0, 98.0]},
        ],
        "model": "demo",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }


def test_base64_is_of_little_endian_float32_and_fewer_dimensions_are_normalized_again() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    asked = EmbeddingRequest(texts=("a", "b", "c"), encoding="base64", dimensions=5, truncate=False)

    made = answer(vectors, 3, asked, model="demo")
    plain = answer(vectors, 3, replace(asked, encoding="float"), model="demo")

    for coded, numbers in zip(made["data"], plain["data"], strict=True):
        decoded = np.frombuffer(base64.b64decode(coded["embedding"]), dtype="<f4")
        np.testing.assert_array_equal(decoded, numbers["embedding"])
        assert np.linalg.norm(decoded) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(
        plain["data"][0]["embedding"], vectors[0, :5] / np.linalg.norm(vectors[0, :5]), rtol=1e-6
    )


def test_a_body_above_the_limit_is_refused_with_or_without_a_content_length() -> None:
    site = Site(max_body_bytes=5000)

    told = site.post(b"x" * 6000, content_length="6000")
    untold = site.post(b"x" * 6000)

    assert (told.status, told.code) == (untold.status, untold.code) == (413, "body_too_large")
    assert "6,000 bytes; the limit is 5,000" in told.text
    assert site.post(ONE + b" " * 4000).status == 200


def test_a_request_that_takes_too_long_times_out() -> None:
    encoder = Letters()
    encoder.may_go_on.clear()

    found = Site(encoder, timeout_seconds=0.05).post(ONE)

    assert (found.status, found.code) == (504, "timeout")


def test_requests_of_a_disconnected_client_are_canceled() -> None:
    encoder = Letters()
    encoder.may_go_on.clear()
    site = Site(encoder)
    many = json.dumps({"model": "demo", "input": ["abcdefgh"] * 8}).encode()

    async def go_away() -> None:
        asked = asyncio.ensure_future(site._ask("POST", "/v1/embeddings", many, {}))
        while not encoder.batches:
            await asyncio.sleep(0.001)
        site.client_goes.set()
        answered = await asked
        assert answered.status == 499

    async def inside() -> None:
        site.engine.start()
        await go_away()
        assert site.engine.queued_tokens == 0
        assert site.server.in_flight == 0
        encoder.may_go_on.set()
        site.engine.stop()

    asyncio.run(inside())
    assert len(encoder.batches) == 1


def test_too_many_concurrent_requests_are_refused_with_a_time() -> None:
    encoder = Letters()
    encoder.may_go_on.clear()
    site = Site(encoder, max_requests=2, timeout_seconds=0.2)

    found = site.ask(*[("POST", "/v1/embeddings", ONE, {})] * 5)

    refused = [each for each in found if each.status == 429]
    assert len(refused) == 3
    assert all(each.headers["retry-after"] == "1" and each.code == "overloaded" for each in refused)


def test_a_server_that_stops_refuses_new_requests_and_is_not_healthy() -> None:
    site = Site()
    assert site.get("/health").status == 200

    site.server.stopping = True

    assert (site.post(ONE).status, site.get("/health").status) == (503, 503)
    assert site.post(ONE).headers["retry-after"] == "5"


def test_a_key_is_required_of_requests_and_not_of_probes() -> None:
    site = Site(api_key="secret")

    assert (site.post(ONE).status, site.post(ONE, authorization="Bearer wrong").status) == (401, 401)
    assert site.get("/v1/models").status == 401
    assert site.post(ONE, authorization="Bearer secret").status == 200
    assert (site.get("/health").status, site.get("/metrics").status) == (200, 200)
    assert "secret" not in site.post(ONE).text


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/embeddings", 405), ("POST", "/v1/chat", 404)])
def test_an_unknown_route_is_refused_with_the_known_routes(method: str, path: str, status: int) -> None:
    (found,) = Site().ask((method, path, b"", {}))

    assert (found.status, found.code) == (status, "no_such_route")
    assert f"The route {method} {path} does not exist. Routes: POST /v1/embeddings" in found.text


def test_metrics_are_of_all_replicas_and_count_refusals_by_status() -> None:
    site = Site()
    site.ask(("POST", "/v1/embeddings", ONE, {}), ("POST", "/v1/embeddings", b"{", {}))

    text = site.get("/metrics").text

    assert 'f2llm_serve_requests_total{replica="a",status="200"} 1.0' in text
    assert 'f2llm_serve_requests_total{replica="a",status="400"} 1.0' in text
    assert 'f2llm_serve_texts_total{replica="a"} 1.0' in text
    assert 'f2llm_serve_texts_total{replica="b"} 0.0' in text
    assert 'f2llm_serve_requests_in_flight{replica="a"} 0.0' in text
    assert text.count("# TYPE f2llm_serve_request_seconds histogram") == 1
