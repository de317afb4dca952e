"""The driver's reports to the operator."""

import threading

from data_io.errors import DataError, StorageError
from jobs.kube.driver_report import REPORT_KEY, DriverReport, driver_report_in
from jobs.kube.driver_reporter import DriverReporter
from ray_app.run_directory.status import RunStatus


class FakeSend:
    """Stores reports. Answers with a stop request, or fails for a while."""

    def __init__(self, *, stop_request: str = "", failures: int = 0) -> None:
        self.written: list[DriverReport] = []
        self.sent = threading.Event()
        self._stop_request, self._failures = stop_request, failures

    def __call__(self, report: DriverReport) -> str:
        if self._failures:
            self._failures -= 1
            raise StorageError("away")
        self.written.append(report)
        self.sent.set()
        return self._stop_request


def reporter_of(send: FakeSend, stopped: list[bool] | None = None) -> DriverReporter:
    return DriverReporter(send, "uid/1", stop=lambda: (stopped or []).append(True), every_seconds=0.01)


def test_the_newest_status_is_reported_and_the_last_one_at_the_end() -> None:
    reporter = reporter_of(send := FakeSend())
    reporter(RunStatus(name="job", step=1))
    reporter.start()
    assert send.sent.wait(10)

    reporter(RunStatus(name="job", step=2))
    reporter.end(None)

    assert send.written[0].run.step == 1
    assert send.written[-1].run.step == 2


def test_only_the_addressed_attempt_obeys_a_stop_request_and_once() -> None:
    for request, stops in (("uid/1", 1), ("uid/2", 0), ("other/1", 0)):
        stopped: list[bool] = []
        send = FakeSend(stop_request=request)
        reporter = DriverReporter(send, "uid/1", stop=lambda: stopped.append(True), every_seconds=0.01)  # noqa: B023
        reporter(RunStatus(name="job"))
        reporter.start()
        assert send.sent.wait(10)
        reporter.end(None)

        assert len(stopped) == stops


def test_an_error_that_ends_the_run_is_reported_with_its_class() -> None:
    reporter = reporter_of(send := FakeSend(failures=1))
    reporter.start()

    reporter.end(DataError("bad row", remedy="fix it"))

    failure = send.written[-1].failure
    assert failure is not None
    assert (failure.error, failure.error_class, failure.retryable) == ("DataError", "data", False)
    assert (failure.message, failure.remedy) == ("bad row", "fix it")


def test_an_api_that_does_not_answer_does_not_disturb_the_run() -> None:
    reporter = reporter_of(send := FakeSend(failures=3))
    reporter(RunStatus(name="job", step=1))
    reporter.start()

    assert send.sent.wait(10)
    reporter.end(None)


def test_a_report_of_another_attempt_is_ignored() -> None:
    report = DriverReport(attempt="uid/1", run=RunStatus(name="job", step=3))
    config_map = {"data": {REPORT_KEY: report.model_dump_json()}}

    assert driver_report_in(config_map, attempt="uid/1") == report
    assert driver_report_in(config_map, attempt="uid/2") is None
    assert driver_report_in({"data": {REPORT_KEY: "half"}}, attempt="uid/1") is None
    assert driver_report_in(None, attempt="uid/1") is None
