"""A late request is hedged within a budget, a failed one is repeated, and neither holds its slot for long."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

import pytest

from data_io.errors import StorageError, StoreAccessError
from data_io.storage.ranged_reads import EXTRA, HEDGE_CAP, HEDGE_EARN, Fetcher, ReadStats
from data_io.storage.store import Blob, Store, open_store
from tests.support.waiting import wait_for

WAIT = 30.0


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    store.put("key", bytes(range(100)))
    monkeypatch.setattr("data_io.storage.ranged_reads._UNKNOWN_SECONDS", 0.02)
    monkeypatch.setattr("data_io.storage.ranged_reads.HEDGE_FLOOR_SECONDS", 0.02)
    return store


@pytest.fixture
def release() -> Iterator[Event]:
    """Releases all delayed answers at the end of the test."""
    event = Event()
    yield event
    event.set()


class Script:
    """Wraps Store.get_range: `what(n)` runs before the n-th call, counted from 0."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, what: Callable[[int], None]) -> None:
        self.calls = 0
        self.under_way = self.most_under_way = 0
        self._lock = Lock()
        real = Store.get_range

        def get_range(*args: object, **options: object) -> Blob:
            with self._lock:
                number, self.calls = self.calls, self.calls + 1
                self.under_way += 1
                self.most_under_way = max(self.most_under_way, self.under_way)
            try:
                what(number)
                return real(*args, **options)  # type: ignore[arg-type]
            finally:
                with self._lock:
                    self.under_way -= 1

        monkeypatch.setattr(Store, "get_range", get_range)


def test_a_hedged_request_wins_against_a_late_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch, release: Event
) -> None:
    Script(monkeypatch, lambda number: None if number else (release.wait(WAIT), None)[1])
    fetcher = Fetcher(store)

    blob = fetcher.get("key", 10, 5, source="a")

    assert bytes(blob.data) == bytes(range(10, 15))
    assert not release.is_set()
    stats = fetcher.stats()["a"]
    assert (stats.requests, stats.hedges, stats.hedges_won, stats.retries) == (2, 1, 1, 0)


def test_a_losing_request_holds_no_slot(store: Store, monkeypatch: pytest.MonkeyPatch, release: Event) -> None:
    script = Script(monkeypatch, lambda number: None if number else (release.wait(WAIT), None)[1])
    fetcher = Fetcher(store, max_requests=1)

    for _ in range(5):
        fetcher.get("key", 0, 5)

    assert script.under_way >= 1, "requests after the loser waited for its end"


def test_a_store_that_is_slow_overall_gets_few_hedged_requests(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    never = Event()
    Script(monkeypatch, lambda number: (never.wait(0.06), None)[1])
    fetcher = Fetcher(store)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: fetcher.get("key", 0, 5, source="a"), range(100)))

    hedges = fetcher.stats()["a"].hedges
    assert 0 < hedges <= min(HEDGE_CAP + HEDGE_EARN * 100, HEDGE_CAP + EXTRA)
    # A hedged request counts once its thread starts, which may be after the answer to the first request.
    wait_for(lambda: fetcher.stats()["a"].requests == 100 + hedges, "every second request has begun")


def test_a_failed_request_is_repeated_and_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_io.storage.ranged_reads._UNKNOWN_SECONDS", WAIT)

    def fail_twice(number: int) -> None:
        if number < 2:
            raise StorageError("503")

    Script(monkeypatch, fail_twice)
    fetcher = Fetcher(store)

    blob = fetcher.get("key", 0, 5, source="a")

    assert bytes(blob.data) == bytes(range(5))
    stats = fetcher.stats()["a"]
    assert (stats.requests, stats.retries, stats.bytes) == (3, 2, 5)


def test_a_refusal_is_not_repeated(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_io.storage.ranged_reads._UNKNOWN_SECONDS", WAIT)

    def refuse(number: int) -> None:
        raise StoreAccessError("no")

    script = Script(monkeypatch, refuse)

    with pytest.raises(StoreAccessError):
        Fetcher(store).get("key", 0, 5)

    assert script.calls == 1


def test_an_unreachable_store_fails_after_its_time_or_when_the_reader_closes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_io.storage.ranged_reads._UNKNOWN_SECONDS", WAIT)

    def away(number: int) -> None:
        raise StorageError("cannot connect")

    Script(monkeypatch, away)
    monkeypatch.setattr("data_io.storage.store.OUTAGE_SECONDS", 0.2)
    with pytest.raises(StorageError, match="cannot connect"):
        Fetcher(store).get("key", 0, 5)

    monkeypatch.setattr("data_io.storage.store.OUTAGE_SECONDS", 3600.0)
    fetcher = Fetcher(store)

    def closed_while_away(number: int) -> None:
        if number == 1:  # during the retry, because a closed one accepts no requests
            fetcher.close()
        away(number)

    script = Script(monkeypatch, closed_while_away)
    with pytest.raises(StorageError, match="cannot connect"):
        fetcher.get("key", 0, 5)
    assert script.calls == 2


def test_a_reader_that_waits_for_the_next_attempt_gets_the_error_when_it_is_closed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_io.storage.ranged_reads._UNKNOWN_SECONDS", WAIT)

    def away(number: int) -> None:
        raise StorageError("cannot connect")

    script = Script(monkeypatch, away)
    fetcher = Fetcher(store)
    monkeypatch.setattr("data_io.storage.ranged_reads.sleep_using_event", lambda event: lambda seconds: fetcher.close())

    with pytest.raises(StorageError, match="cannot connect"):
        fetcher.get("key", 0, 5)
    assert script.calls == 2


def test_requests_and_bytes_in_flight_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_io.storage.ranged_reads._UNKNOWN_SECONDS", WAIT)
    pause = Event()
    by_count = Script(monkeypatch, lambda number: (pause.wait(0.001), None)[1])
    with ThreadPoolExecutor(16) as pool:
        fetcher = Fetcher(store, max_requests=3)
        list(pool.map(lambda _: fetcher.get("key", 0, 10), range(60)))
    by_bytes = Script(monkeypatch, lambda number: (pause.wait(0.001), None)[1])
    with ThreadPoolExecutor(16) as pool:
        fetcher = Fetcher(store, max_bytes=25)
        list(pool.map(lambda _: fetcher.get("key", 0, 10), range(60)))
    alone = Fetcher(store, max_bytes=5).get("key", 0, 50)

    assert by_count.most_under_way <= 3
    assert by_bytes.most_under_way <= 2
    assert len(alone.data) == 50


def test_counters_add_up() -> None:
    one, two = ReadStats(1, 2, 3, 4, 5, 6.0), ReadStats(10, 20, 30, 40, 50, 60.0)

    assert one + two == ReadStats(11, 22, 33, 44, 55, 66.0)
    assert two - one == ReadStats(9, 18, 27, 36, 45, 54.0)
