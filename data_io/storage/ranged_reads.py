"""Ranged GETs for a reader: limited in number, retried on failure, and hedged if an answer is late.

Retries of these requests are only here: the store's own are off for them. (The store, `data_io/storage/store.py`,
retries requests for whole objects; `data_io/dataset/reader.py` reads bytes with a wrong checksum once more.) So every
retry is counted. A request has one deadline (store.REQUEST_SECONDS), and all its attempts share one time limit
(`Store.patience_seconds`), with full jitter between them (Brooker, "Exponential backoff and jitter", AWS, 2015).

A GET that runs in a thread cannot be stopped. When one of two hedged requests loses, its slot is freed at once. Its
thread lives until the request's deadline. At most EXTRA such threads exist.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, Event, Lock
from time import monotonic
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, sleep_using_event, stop_after_delay, stop_any, stop_when_event_set
from tenacity import wait_random_exponential as full_jitter

from data_io.errors import F2LLMError
from data_io.storage.store import Blob, Store

T = TypeVar("T")

MAX_REQUESTS = 16
MAX_BYTES = 64 * 2**20
EXTRA = 8
"""Hedged requests that may be running, or have lost and not ended yet."""
HEDGE_FLOOR_SECONDS = 0.1
HEDGE_EARN, HEDGE_CAP = 0.05, 4.0
"""Each answer earns this part of a hedged request, up to a maximum that can be saved: about 5% more requests."""
_QUANTILE = 0.95
_UNKNOWN_SECONDS = 1.0
_FEW, _REMEMBERED = 20, 256


@dataclass(frozen=True)
class ReadStats:
    """Counters of requests to the store: GETs and received bytes, including hedged requests; GETs repeated after a
    failure or for bad bytes; hedged requests, and how many of them won; seconds waited, summed over threads.
    """

    requests: int = 0
    bytes: int = 0
    retries: int = 0
    hedges: int = 0
    hedges_won: int = 0
    seconds: float = 0.0

    def __add__(self, other: "ReadStats") -> "ReadStats":
        return ReadStats(
            self.requests + other.requests,
            self.bytes + other.bytes,
            self.retries + other.retries,
            self.hedges + other.hedges,
            self.hedges_won + other.hedges_won,
            self.seconds + other.seconds,
        )

    def __sub__(self, other: "ReadStats") -> "ReadStats":
        return ReadStats(
            self.requests - other.requests,
            self.bytes - other.bytes,
            self.retries - other.retries,
            self.hedges - other.hedges,
            self.hedges_won - other.hedges_won,
            self.seconds - other.seconds,
        )


class Fetcher:
    """GETs of one store for any number of threads. A local directory is read directly, in the calling thread."""

    def __init__(self, store: Store, *, max_requests: int = MAX_REQUESTS, max_bytes: int = MAX_BYTES) -> None:
        self._store = store
        self._places = _Places(max_requests, max_bytes)
        self._pool = ThreadPoolExecutor(max_requests + EXTRA, thread_name_prefix="fetch")
        self._latency = _Latency()
        self._hedges = _HedgeBudget()
        self._closed = Event()
        self._lock = Lock()
        self._stats: dict[str, ReadStats] = {}

    def get(self, key: str, start: int, length: int, *, if_match: str | None = None, source: str = "") -> Blob:
        """Like Store.get_range; counted for `source`."""

        def ask() -> Blob:
            self.count(source, ReadStats(requests=1))
            blob = self._store.get_range(key, start, length, if_match=if_match, once=True)
            self.count(source, ReadStats(bytes=length))
            return blob

        began = monotonic()
        try:
            if self._store.is_local:
                return ask()
            with self._places.take(length):
                return self._hedged(ask, source)
        except F2LLMError as error:
            if self._store.is_local or not error.retryable:
                raise
            return self._again(ask, length, source, error)
        finally:
            self.count(source, ReadStats(seconds=monotonic() - began))

    def count(self, source: str, more: ReadStats) -> None:
        """Add to a source's counters."""
        with self._lock:
            self._stats[source] = self._stats.get(source, ReadStats()) + more

    def stats(self) -> dict[str, ReadStats]:
        """Counters since the start, by source."""
        with self._lock:
            return dict(self._stats)

    def close(self) -> None:
        """Stop waiting between attempts. Running requests end by themselves."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _again(self, ask: Callable[[], Blob], length: int, source: str, error: F2LLMError) -> Blob:
        """Retry until there is an answer. `error` is the error of the first attempt."""

        def attempt() -> Blob:
            if self._closed.is_set():  # closed during the wait
                raise error
            self.count(source, ReadStats(retries=1))
            # No slot is held between attempts, so other requests can run.
            with self._places.take(length):
                return self._hedged(ask, source)

        again = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, F2LLMError) and error.retryable),
            stop=stop_any(stop_after_delay(self._store.patience_seconds), stop_when_event_set(self._closed)),
            wait=full_jitter(multiplier=0.1, max=10),
            sleep=sleep_using_event(self._closed),
            reraise=True,
        )
        return again(attempt)

    def _hedged(self, ask: Callable[[], Blob], source: str) -> Blob:
        """The first good answer of one request, or of two if the first is late."""
        began = monotonic()
        first = self._pool.submit(ask)
        done, _ = wait([first], timeout=self._latency.late_after())
        if done or not self._hedges.spend():
            blob = first.result()
        else:
            second = self._pool.submit(ask)
            self.count(source, ReadStats(hedges=1))
            winner, loser = _race(first, second)
            loser.add_done_callback(lambda _: self._hedges.ended())
            blob = winner.result()
            self.count(source, ReadStats(hedges_won=int(winner is second)))
        self._latency.add(monotonic() - began)
        self._hedges.earn()
        return blob


def _race(first: "Future[Blob]", second: "Future[Blob]") -> "tuple[Future[Blob], Future[Blob]]":
    """The future with the first good answer, and the other one. If both fail, the first counts as the winner."""
    for leg in as_completed((first, second)):
        if leg.exception() is None:
            return (first, second) if leg is first else (second, first)
    return first, second


class _Places:
    """Limits the number of requests and their bytes. A request larger than the byte limit runs alone."""

    def __init__(self, requests: int, size: int) -> None:
        self._free_requests, self._max_bytes = requests, size
        self._bytes = 0
        self._changed = Condition()

    @contextmanager
    def take(self, length: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(
                lambda: self._free_requests and (not self._bytes or self._bytes + length <= self._max_bytes)
            )
            self._free_requests -= 1
            self._bytes += length
        try:
            yield
        finally:
            with self._changed:
                self._free_requests += 1
                self._bytes -= length
                self._changed.notify_all()


class _Latency:
    """The durations of the last answers, and the time after which an answer is late."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._added = 0
        self._late_after = _UNKNOWN_SECONDS
        self._lock = Lock()

    def add(self, seconds: float) -> None:
        with self._lock:
            self._seconds.append(seconds)
            self._added += 1
            if self._added >= _FEW and self._added % (_FEW // 2) == 0:
                in_order = sorted(self._seconds)
                self._late_after = max(HEDGE_FLOOR_SECONDS, in_order[int(_QUANTILE * len(in_order))])

    def late_after(self) -> float:
        return self._late_after


class _HedgeBudget:
    """Hedged requests are earned by answers, so that a store that is slow overall does not get twice the requests."""

    def __init__(self) -> None:
        self._saved = HEDGE_CAP
        self._alive = 0
        self._lock = Lock()

    def earn(self) -> None:
        with self._lock:
            self._saved = min(HEDGE_CAP, self._saved + HEDGE_EARN)

    def spend(self) -> bool:
        with self._lock:
            if self._saved < 1 or self._alive >= EXTRA:
                return False
            self._saved -= 1
            self._alive += 1
            return True

    def ended(self) -> None:
        with self._lock:
            self._alive -= 1


def split_runs(items: Iterable[T], joins: Callable[[list[T], T], bool]) -> list[list[T]]:
    """Items in order, divided into runs: `joins(run, item)` says whether the item belongs to the current run."""
    runs: list[list[T]] = []
    for item in items:
        if runs and joins(runs[-1], item):
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs
