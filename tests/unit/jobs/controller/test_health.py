"""The endpoints of the operator: a probe fails if the event loop hangs, and only then."""

import asyncio
import threading
import time
import urllib.error
import urllib.request

from jobs.controller.health import HUNG_SECONDS, Heartbeat, serve_health


def answer(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def beat_once(heartbeat: Heartbeat) -> None:
    async def run() -> None:
        task = asyncio.create_task(heartbeat.keep())
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(run())


def test_the_probe_fails_from_the_time_at_which_a_loop_counts_as_hung() -> None:
    now = 100.0
    heartbeat = Heartbeat(lambda: now)
    port = serve_health(0, heartbeat)

    not_leader = answer(port, "/healthz")
    beat_once(heartbeat)
    now += HUNG_SECONDS
    busy = answer(port, "/healthz")
    now += 1
    hung = answer(port, "/healthz")
    heartbeat.stop()
    stopping = answer(port, "/healthz")

    assert not_leader == busy == stopping == (200, "ok\n")
    assert hung == (503, "the event loop has not run for 61 s\n")


def test_metrics_are_served_by_the_same_port() -> None:
    code, text = answer(serve_health(0, Heartbeat()), "/metrics")

    assert code == 200
    assert "python_info" in text


def test_a_blocked_loop_is_noticed_while_it_is_blocked() -> None:
    heartbeat, over = Heartbeat(), threading.Event()

    async def hang() -> None:
        task = asyncio.create_task(heartbeat.keep())
        await asyncio.sleep(0)
        over.wait()
        task.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(hang()))
    thread.start()
    while not heartbeat.seconds_missing():
        time.sleep(0.01)
    first = heartbeat.seconds_missing()
    time.sleep(0.05)
    later = heartbeat.seconds_missing()
    over.set()
    thread.join()

    assert later > first
