"""The driver's words to the operator, from inside a pod: where the run is, every ten seconds, and what ended it.

Training never depends on it: where the API does not answer, the next words are said later. The answer to each write
carries the operator's wish, so that the driver may write one ConfigMap and needs no other permission.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from data_io.errors import F2LLMError
from jobs.extras import needs

if TYPE_CHECKING:
    from jobs.kube.driver_report import DriverReport
    from ray_app.run_directory.status import RunStatus

EVERY_SECONDS = 10.0
_LAST_WORDS_SECONDS = 60.0
_log = logging.getLogger(__name__)

Send = Callable[["DriverReport"], str]
"""Writes the words; answers the id of the attempt that should stop, empty for none."""


@contextmanager
def driver_reporting() -> Iterator[Callable[["RunStatus"], None]]:
    """What to call with each new status. Outside a pod of the operator's nothing happens.

    An F2LLMError that leaves the block is published with its class and raised.
    """
    name, attempt = os.environ.get("F2LLM_PROGRESS"), os.environ.get("F2LLM_ATTEMPT")
    if not name or not attempt:
        yield lambda status: None
        return
    publisher = DriverReporter(_reporter_of(name), attempt, stop=lambda: os.kill(os.getpid(), signal.SIGTERM))
    publisher.start()
    try:
        yield publisher
    except F2LLMError as error:
        publisher.end(error)
        raise
    publisher.end(None)


def _reporter_of(config_map: str) -> Send:
    """Writes reports into a ConfigMap, from inside a pod."""
    from jobs.kube.driver_report import REPORT_KEY, STOP_KEY

    with needs("cluster"):
        from jobs.kube.api import connect
    api = connect()

    def send(words: "DriverReport") -> str:
        answer = api.patch("ConfigMap", config_map, {"data": {REPORT_KEY: words.model_dump_json()}})
        return str(answer.get("data", {}).get(STOP_KEY, ""))

    return send


class DriverReporter:
    """Keeps the newest status and sends it from a thread of its own."""

    def __init__(
        self, send: Send, attempt: str, *, stop: Callable[[], None], every_seconds: float = EVERY_SECONDS
    ) -> None:
        self._send, self._attempt, self._stop, self._every_seconds = send, attempt, stop, every_seconds
        self._newest: RunStatus | None = None
        self._asked = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publish", daemon=True)

    def __call__(self, status: "RunStatus") -> None:
        self._newest = status

    def start(self) -> None:
        self._thread.start()

    def end(self, error: F2LLMError | None) -> None:
        """Say the last words, for which it is worth trying for a while."""
        self._over.set()
        self._thread.join()
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        while not self._say(error) and time.monotonic() < deadline:
            time.sleep(1.0)

    def _run(self) -> None:
        while not self._over.wait(self._every_seconds):
            self._say(None)

    def _say(self, error: F2LLMError | None) -> bool:
        """Send what is known; True where that worked or there is nothing to say."""
        from jobs.kube.driver_report import DriverReport, ReportedFailure
        from ray_app.run_directory.status import RunStatus

        failure = None
        if error is not None:
            failure = ReportedFailure(
                error=type(error).__name__,
                error_class=error.error_class,
                retryable=error.retryable,
                message=error.message,
                remedy=error.remedy or "",
            )
        status = self._newest or (RunStatus(name=self._attempt) if failure else None)
        if status is None:
            return True
        try:
            wish = self._send(DriverReport(attempt=self._attempt, run=status, failure=failure))
        except F2LLMError as trouble:
            _log.warning("progress was not published: %s", trouble.message)
            return False
        if wish == self._attempt and not self._asked:
            self._asked = True
            self._stop()
        return True
