"""Concurrent requests share batches and each gets its own vectors. A request that fails does not affect others."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

import pytest

from data_io.dataset.tokenizer import TokenTexts
from ray_app.serving.engine import Engine
from ray_app.serving.errors import Refusal
from ray_app.serving.metrics import ServeMetrics
from tests.support.letters import Letters

R = TypeVar("R")


def run(work: Callable[[Engine], Awaitable[R]], encoder: Letters, *, batch_tokens: int = 20, queue: int = 10**6) -> R:
    async def inside() -> R:
        engine = Engine(encoder, ServeMetrics(), batch_tokens=batch_tokens, max_queued_tokens=queue)  # type: ignore[arg-type]
        engine.start()
        try:
            return await work(engine)
        finally:
            encoder.may_go_on.set()
            engine.stop()

    return asyncio.run(inside())


def vectors(texts: Sequence[str]) -> list[list[float]]:
    return [[float(len(text)), float(ord(text[0]))] for text in texts]


def test_every_request_gets_the_vectors_of_its_own_texts_in_their_order() -> None:
    encoder = Letters()
    requests = [["abc"[k % 3] * (1 + (i + k) % 9) for i in range(k)] for k in range(1, 30)]

    async def work(engine: Engine) -> list[tuple[Any, int]]:
        return list(await asyncio.gather(*(engine.embed(texts, truncate=False) for texts in requests)))

    for texts, (found, tokens) in zip(requests, run(work, encoder), strict=True):
        assert found.tolist() == vectors(texts)
        assert tokens == sum(map(len, texts))
    assert max(encoder.batches) <= 20
    assert len(encoder.batches) < sum(map(len, requests)) / 2


def test_a_short_text_is_answered_before_the_long_one_of_its_batch_is_embedded() -> None:
    class HeldUpByLongTexts(Letters):
        long_may_go_on = threading.Event()

        def embed_in_groups(self, tokens: TokenTexts) -> Iterator[tuple[Any, Any]]:
            for group, found in super().embed_in_groups(tokens):
                assert found[0, 0] < 5 or self.long_may_go_on.wait(30)
                yield group, found

    encoder = HeldUpByLongTexts()

    async def work(engine: Engine) -> tuple[Any, Any]:
        encoder.may_go_on.clear()
        first = asyncio.ensure_future(engine.embed(["a"], truncate=False))
        while not encoder.batches:
            await asyncio.sleep(0.001)
        long, short = (asyncio.ensure_future(engine.embed([text], truncate=False)) for text in ("bcdefghij", "kl"))
        while engine.queued_tokens < 11:
            await asyncio.sleep(0.001)
        encoder.may_go_on.set()
        short_found, _ = await short
        assert first.done()
        assert not long.done()
        encoder.long_may_go_on.set()
        long_found, _ = await long
        return short_found.tolist(), long_found.tolist()

    assert run(work, encoder) == (vectors(["kl"]), vectors(["bcdefghij"]))
    assert encoder.batches == [1, 11]


def test_a_text_above_the_limit_is_refused_by_its_position_or_cut_on_request() -> None:
    async def work(engine: Engine) -> tuple[Refusal, list[list[float]], list[list[float]]]:
        with pytest.raises(Refusal) as caught:
            await engine.embed(["a", "b" * 11], truncate=False)
        cut, _ = await engine.embed(["a", "b" * 11], truncate=True)
        whole, _ = await engine.embed(["b" * 10], truncate=False)
        return caught.value, cut.tolist(), whole.tolist()

    refused, cut, whole = run(work, Letters())

    assert (refused.status, refused.code) == (400, "context_length_exceeded")
    assert "input[1] is longer than the model's limit of 10 tokens" in refused.message
    assert (cut, whole) == (vectors(["a", "b" * 10]), vectors(["b" * 10]))


def test_a_batch_that_fails_fails_only_its_own_requests() -> None:
    async def work(engine: Engine) -> tuple[Refusal, list[list[float]]]:
        with pytest.raises(Refusal) as caught:
            await engine.embed(["!"], truncate=False)
        found, _ = await engine.embed(["abc"], truncate=False)
        return caught.value, found.tolist()

    refused, found = run(work, Letters())

    assert (refused.status, refused.code) == (500, "failed")
    assert "RuntimeError: out of memory" in refused.message
    assert found == vectors(["abc"])


def test_an_engine_whose_batches_all_fail_reports_it_until_one_succeeds() -> None:
    async def work(engine: Engine) -> list[bool]:
        after = []
        for _ in range(5):
            with pytest.raises(Refusal):
                await engine.embed(["!"], truncate=False)
            after.append(engine.works)
        await engine.embed(["abc"], truncate=False)
        async with asyncio.timeout(60):
            while not engine.works:  # set shortly after the request is answered
                await asyncio.sleep(0.001)
        return after

    assert run(work, Letters()) == [True] * 4 + [False]


def test_a_full_queue_refuses_with_a_time_and_answers_its_requests() -> None:
    encoder = Letters()

    async def work(engine: Engine) -> tuple[Refusal, list[list[float]]]:
        encoder.may_go_on.clear()
        first = asyncio.ensure_future(engine.embed(["abcdefghi"] * 4, truncate=False))
        while not engine.queued_tokens:
            await asyncio.sleep(0.001)
        with pytest.raises(Refusal) as caught:
            await engine.embed(["abcdefghi"] * 3, truncate=False)
        encoder.may_go_on.set()
        found, _ = await first
        return caught.value, found.tolist()

    refused, found = run(work, encoder, queue=30)

    assert (refused.status, refused.code) == (429, "overloaded")
    assert refused.retry_after is not None
    assert 1 <= refused.retry_after <= 60
    assert found == vectors(["abcdefghi"] * 4)


def test_a_canceled_request_leaves_the_queue() -> None:
    encoder = Letters()

    async def work(engine: Engine) -> int:
        encoder.may_go_on.clear()
        asked = asyncio.ensure_future(engine.embed(["abcdefghi"] * 50, truncate=False))
        while not engine.queued_tokens:
            await asyncio.sleep(0.001)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        left = engine.queued_tokens
        encoder.may_go_on.set()
        await engine.embed(["x"], truncate=False)
        return left

    assert run(work, encoder) == 0
    assert len(encoder.batches) == 2
