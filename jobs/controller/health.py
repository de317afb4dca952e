"""The operator's HTTP endpoints: /metrics for Prometheus, and /healthz for the liveness probe.

They run in a thread of their own, so that a hung event loop is reported and does not hang the probe.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

HUNG_SECONDS = 60.0
_BEAT_SECONDS = 1.0


class Heartbeat:
    """The heartbeat of the event loop. A replica that is not the leader has no event loop, and counts as healthy."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None

    async def keep(self) -> None:
        """Beat until the task is canceled."""
        while True:
            self._last = self._clock()
            await asyncio.sleep(_BEAT_SECONDS)

    def stop(self) -> None:
        """The event loop ends as intended."""
        self._last = None

    def seconds_missing(self) -> float:
        """Seconds since the last beat; 0 before the first."""
        return 0.0 if self._last is None else self._clock() - self._last


def serve_health(port: int, heartbeat: Heartbeat) -> int:
    """Serve both endpoints on all addresses, from a thread. Returns the port, a free one for `port=0`."""
    server = make_server("", port, _application(heartbeat), _Server, _QuietHandler)
    Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server.server_port


def _application(heartbeat: Heartbeat) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    metrics: Callable[[dict[str, Any], Any], Iterable[bytes]] = make_wsgi_app()

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/healthz":
            return metrics(environ, start_response)
        missing = heartbeat.seconds_missing()
        healthy = missing <= HUNG_SECONDS
        start_response("200 OK" if healthy else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"ok\n" if healthy else f"the event loop has not run for {missing:.0f} s\n".encode()]

    return answer


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Probes and scrapes are not logged."""
