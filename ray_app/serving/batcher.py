"""Chooses the texts of the next batch: batches are bounded by tokens, and filled from all waiting requests in turn.

A batch is bounded by tokens, not by requests or texts, because a long text costs as much as many short texts. Requests
take turns text by text, so that a request with one text does not wait for a request with two thousand.
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
    """A queue of requests. Each request has a unique key and the lengths of its texts, in tokens."""

    def __init__(self, *, batch_tokens: int, max_queued_tokens: int) -> None:
        self._batch_tokens = batch_tokens
        self._max_queued_tokens = max_queued_tokens
        self._waiting: deque[_Waiting[K]] = deque()
        self._queued_tokens = 0

    @property
    def queued_tokens(self) -> int:
        """Tokens that are not in a batch yet."""
        return self._queued_tokens

    def offer(self, key: K, lengths: Sequence[int]) -> bool:
        """Queue a request with all its texts. Returns False, and queues nothing, if the queue is too full.

        A request that is larger than the whole queue is accepted if the queue is empty.
        """
        tokens = sum(lengths)
        if self._queued_tokens and self._queued_tokens + tokens > self._max_queued_tokens:
            return False
        if lengths:
            self._waiting.append(_Waiting(key, lengths))
            self._queued_tokens += tokens
        return True

    def take(self) -> list[tuple[K, int]]:
        """The next batch: keys and positions of texts, at most `batch_tokens` tokens or one text. Can be empty."""
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
        """Remove the queued texts of a request whose client has disconnected. Does nothing if none are queued."""
        for request in self._waiting:
            if request.key == key:
                self._queued_tokens -= sum(request.lengths[request.next :])
                self._waiting.remove(request)
                return
