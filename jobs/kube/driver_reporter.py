"""The driver's reports to the operator, from inside a pod: the run status every ten seconds, and the failure.

Training never depends on the reports: if the API server does not answer, a later report follows. The answer to each
write contains the operator's stop request, so the driver only needs permission for one ConfigMap.
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
from ray_app.structured_log import error_fields, fields

if TYPE_CHECKING:
    from jobs.kube.driver_report import DriverReport
    from ray_app.run_directory.status import RunStatus

EVERY_SECONDS = 10.0
_FINAL_REPORT_SECONDS = 60.0
_log = logging.getLogger(__name__)

Send = Callable[["DriverReport"], str]
"""Writes a report; returns the id of the attempt that must stop, or an empty string."""


@contextmanager
def driver_reporting() -> Iterator[Callable[["RunStatus"], None]]:
    """Yields a function that reports a run status. Outside a pod of the operator it does nothing.

    An F2LLMError in the block is reported with its class, and raised again.
    """
    name, attempt = os.environ.get("F2LLM_PROGRESS"), os.environ.get("F2LLM_ATTEMPT")
    if not name or not attempt:
        yield lambda status: None
        return
    reporter = DriverReporter(_sender(name), attempt, stop=lambda: os.kill(os.getpid(), signal.SIGTERM))
    reporter.start()
    try:
        yield reporter
    except F2LLMError as error:
        reporter.end(error)
        raise
    reporter.end(None)


def _sender(config_map: str) -> Send:
    """Writes reports into a ConfigMap, from inside a pod."""
    from jobs.kube.driver_report import REPORT_KEY, STOP_KEY

    with needs("cluster"):
        from jobs.kube.api import connect
    api = connect()

    def send(report: "DriverReport") -> str:
        answer = api.patch("ConfigMap", config_map, {"data": {REPORT_KEY: report.model_dump_json()}})
        return str(answer.get("data", {}).get(STOP_KEY, ""))

    return send


class DriverReporter:
    """Sends the newest status from a separate thread."""

    def __init__(
        self, send: Send, attempt: str, *, stop: Callable[[], None], every_seconds: float = EVERY_SECONDS
    ) -> None:
        self._send, self._attempt, self._stop, self._every_seconds = send, attempt, stop, every_seconds
        self._newest: RunStatus | None = None
        self._stop_requested = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="driver-reporter", daemon=True)

    def __call__(self, status: "RunStatus") -> None:
        self._newest = status

    def start(self) -> None:
        self._thread.start()

    def end(self, error: F2LLMError | None) -> None:
        """Send the final report; retry for up to a minute."""
        self._over.set()
        self._thread.join()
        deadline = time.monotonic() + _FINAL_REPORT_SECONDS
        while not self._report(error) and time.monotonic() < deadline:
            time.sleep(1.0)

    def _run(self) -> None:
        while not self._over.wait(self._every_seconds):
            self._report(None)

    def _report(self, error: F2LLMError | None) -> bool:
        """Send the newest status. True if it was sent, or if there is nothing to report."""
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
            report = DriverReport(attempt=self._attempt, run=status, failure=failure)
            stop_request = self._send(report.shortened())
        except F2LLMError as trouble:
            _log.warning("status not reported to the operator", extra=fields(**error_fields(trouble)))
            return False
        if stop_request == self._attempt and not self._stop_requested:
            self._stop_requested = True
            self._stop()
        return True
