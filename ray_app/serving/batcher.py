"""Which texts are embedded next: batches by tokens, in turn from every request that waits.

A batch has room for a number of tokens, not of requests or texts: a long text costs what many short ones do. Requests
take turns text by text, so that one of a single text does not wait behind one of two thousand.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass
class _Waiting(Generic[K]):
    key: K
    lengths: Sequence[int]
    next: int = 0


class TokenBatcher(Generic[K]):
    """Requests, each under a key of its own, with the lengths in tokens of their texts."""

    def __init__(self, *, batch_tokens: int, max_queued_tokens: int) -> None:
        self._batch_tokens = batch_tokens
        self._max_queued_tokens = max_queued_tokens
        self._waiting: deque[_Waiting[K]] = deque()
        self._queued_tokens = 0

    @property
    def queued_tokens(self) -> int:
        """Tokens that no batch has taken yet."""
        return self._queued_tokens

    def offer(self, key: K, lengths: Sequence[int]) -> bool:
        """Let a request wait, all its texts or none: False where there is too much already.

        A request that is larger than all that may wait is taken where nothing does.
        """
        tokens = sum(lengths)
        if self._queued_tokens and self._queued_tokens + tokens > self._max_queued_tokens:
            return False
        if lengths:
            self._waiting.append(_Waiting(key, lengths))
            self._queued_tokens += tokens
        return True

    def take(self) -> list[tuple[K, int]]:
        """The next batch: keys and places of texts, at most `batch_tokens` in all or one text; empty if none waits."""
        batch: list[tuple[K, int]] = []
        room = self._batch_tokens
        while self._waiting:
            request = self._waiting[0]
            length = request.lengths[request.next]
            if batch and length > room:
                break
            self._waiting.popleft()
            batch.append((request.key, request.next))
            room -= length
            self._queued_tokens -= length
            request.next += 1
            if request.next < len(request.lengths):
                self._waiting.append(request)
        return batch

    def withdraw(self, key: K) -> None:
        """Forget what is left of a request, whose client has gone; nothing happens where nothing is left."""
        for request in self._waiting:
            if request.key == key:
                self._queued_tokens -= sum(request.lengths[request.next :])
                self._waiting.remove(request)
                return
