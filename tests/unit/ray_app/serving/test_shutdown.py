"""When a server ends: real signals to this process, and requests that stay in progress as long as a test needs."""

import os
import signal

from ray_app.serving.shutdown import stop_signals


def test_it_ends_after_some_time_without_requests() -> None:
    under_way = [2, 1, 0, 1, 0, 0, 0, 0]
    said: list[str] = []
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        number = stop.wait(lambda: under_way.pop(0), seconds=60, say=said.append)

    assert number == signal.SIGTERM
    assert under_way == []
    assert len(said) == 1


def test_a_second_signal_ends_the_wait_for_requests() -> None:
    asked = 0

    def refuse_new() -> int:
        nonlocal asked
        asked += 1
        if asked == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return 1

    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        number = stop.wait(refuse_new, seconds=1e6, say=lambda _: None)

    assert asked == 3
    assert number == signal.SIGINT
    assert stop.twice.is_set()


def test_the_wait_for_requests_has_a_limit() -> None:
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(lambda: 1, seconds=0.01, say=lambda _: None) == signal.SIGINT

    assert not stop.twice.is_set()


def test_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stop_signals():
        pass

    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
