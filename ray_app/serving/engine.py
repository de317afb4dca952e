"""Embeds the texts of concurrent requests in batches that are bounded by tokens. N texts, D dimensions.

Two threads run next to the event loop: one tokenizes, one embeds. The next batch fills while the current batch is
embedded, without a batching delay.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
import numpy.typing as npt

from data_io.dataset.tokenizer import TokenTexts
from ray_app.inference.encoder import Encoder
from ray_app.serving.batcher import TokenBatcher
from ray_app.serving.errors import Refusal, overloaded
from ray_app.serving.metrics import ServeMetrics

_LONGEST_RETRY_SECONDS = 60
_FIRST_GUESS_TOKENS_PER_SECOND = 1000.0
_MOST_FAILED = 5
"""After this many consecutive failed batches the process counts as broken, because a lost GPU does not come back."""


@dataclass(eq=False)
class _Asked:
    """One request in progress. The object is its own key in the batcher."""

    rows: list[npt.NDArray[np.int32]]
    vectors: npt.NDArray[np.float32]
    left: int
    done: asyncio.Future[None]
    since: float = field(default_factory=monotonic)
    started: bool = False


class Engine:
    """Tokenizes and embeds. Call it from one event loop, after `start` and before `stop`."""

    def __init__(self, encoder: Encoder, metrics: ServeMetrics, *, batch_tokens: int, max_queued_tokens: int) -> None:
        self._encoder = encoder
        self._metrics = metrics
        self._max_queued_tokens = max_queued_tokens
        self._batcher = TokenBatcher[_Asked](batch_tokens=batch_tokens, max_queued_tokens=max_queued_tokens)
        self._tokens_per_second = _FIRST_GUESS_TOKENS_PER_SECOND
        self._task: asyncio.Task[None] | None = None
        self._failed = 0

    @property
    def dimensions(self) -> int:
        return self._encoder.dimensions

    @property
    def max_tokens(self) -> int:
        return self._encoder.max_tokens

    @property
    def queued_tokens(self) -> int:
        """Tokens that are not in a batch yet."""
        return self._batcher.queued_tokens

    @property
    def works(self) -> bool:
        """Whether batches are embedded. False if the last few batches all failed."""
        return self._task is not None and not self._task.done() and self._failed < _MOST_FAILED

    def start(self) -> None:
        """Start embedding in the running event loop."""
        self._tokenizing = ThreadPoolExecutor(1, "tokenize")
        self._embedding = ThreadPoolExecutor(1, "embed")
        self._more = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._work())

    def stop(self) -> None:
        """Stop. Queued texts are not embedded."""
        if self._task is not None:
            self._task.cancel()
        self._tokenizing.shutdown(wait=False)
        self._embedding.shutdown(wait=False)

    async def embed(self, texts: Sequence[str], *, truncate: bool) -> tuple[npt.NDArray[np.float32], int]:
        """Vectors float32 [N, D], L2-normalized, and the number of tokens that were embedded.

        Raises Refusal for a text above the model's limit, unless `truncate` is set, and if the queue is too full.
        A canceled call removes its texts from the queue.
        """
        self._check_room(0)
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(self._tokenizing, self._tokenize, texts, truncate)
        self._check_room(len(tokens.ids))
        asked = _Asked(
            rows=np.split(tokens.ids, np.cumsum(tokens.lengths)[:-1]),
            vectors=np.empty((len(texts), self.dimensions), dtype=np.float32),
            left=len(texts),
            done=loop.create_future(),
        )
        if not self._batcher.offer(asked, tokens.lengths.tolist()):
            raise self._overloaded()
        self._more.set()
        try:
            await asked.done
        finally:
            self._batcher.withdraw(asked)
            self._metrics.queued_tokens.set(self._batcher.queued_tokens)
        return asked.vectors, len(tokens.ids)

    def _tokenize(self, texts: Sequence[str], truncate: bool) -> TokenTexts:
        tokens = self._encoder.tokenize(texts)
        if not truncate:
            for place in np.flatnonzero(tokens.lengths == self.max_tokens).tolist():
                if self._encoder.cuts(texts[place]):
                    raise Refusal(
                        400,
                        f"input[{place}] is longer than the model's limit of {self.max_tokens:,} tokens "
                        f"({len(texts[place]):,} characters, its prompt included). Shorten it, split it, or send "
                        '"truncate": true to cut off its end.',
                        param="input",
                        code="context_length_exceeded",
                    )
        return tokens

    def _check_room(self, tokens: int) -> None:
        if self._batcher.queued_tokens and self._batcher.queued_tokens + tokens > self._max_queued_tokens:
            raise self._overloaded()

    def _overloaded(self) -> Refusal:
        waiting = self._batcher.queued_tokens
        seconds = min(_LONGEST_RETRY_SECONDS, 1 + int(waiting / self._tokens_per_second))
        return overloaded(f"{waiting:,} tokens wait to be embedded", seconds)

    async def _work(self) -> None:
        while True:
            batch = self._batcher.take()
            if not batch:
                self._more.clear()
                await self._more.wait()
                continue
            await self._embed_batch(batch)

    async def _embed_batch(self, batch: Sequence[tuple[_Asked, int]]) -> None:
        began = monotonic()
        for asked, _ in batch:
            if not asked.started:
                asked.started = True
                self._metrics.queue_seconds.observe(began - asked.since)
        self._metrics.queued_tokens.set(self._batcher.queued_tokens)
        rows = [asked.rows[place] for asked, place in batch]
        tokens = TokenTexts(np.concatenate(rows), np.array([len(row) for row in rows], dtype=np.int32))
        loop = asyncio.get_running_loop()

        def embed() -> None:
            for group, vectors in self._encoder.embed_in_groups(tokens):
                loop.call_soon_threadsafe(self._hand_out, [batch[place] for place in group.tolist()], vectors)

        try:
            await loop.run_in_executor(self._embedding, embed)
        except Exception as error:  # a failed batch, for example out of memory, must not end the server
            logging.getLogger(__name__).exception("a batch of %s tokens failed", len(tokens.ids))
            self._failed += 1
            failure = Refusal(500, f"The texts could not be embedded: {type(error).__name__}: {error}", code="failed")
            for asked, _ in batch:
                if not asked.done.done():
                    asked.done.set_exception(failure)
            return
        self._failed = 0
        seconds = monotonic() - began
        self._tokens_per_second += 0.1 * (len(tokens.ids) / max(seconds, 1e-6) - self._tokens_per_second)
        self._metrics.batch_seconds.observe(seconds)
        self._metrics.batch_tokens.observe(len(tokens.ids))

    def _hand_out(self, texts: Sequence[tuple[_Asked, int]], vectors: npt.NDArray[np.float32]) -> None:
        """Complete a request with its last text, so that short requests do not wait for long texts of their batch."""
        self._metrics.texts.inc(len(texts))
        for (asked, place), vector in zip(texts, vectors, strict=True):
            asked.vectors[place] = vector
            asked.left -= 1
            if not asked.left and not asked.done.done():
                asked.done.set_result(None)
