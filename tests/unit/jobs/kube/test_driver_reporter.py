"""What a driver tells the operator."""

import threading

from data_io.errors import DataError, StorageError
from jobs.kube.driver_report import REPORT_KEY, DriverReport, driver_report_in
from jobs.kube.driver_reporter import DriverReporter
from ray_app.run_directory.status import RunStatus


class Door:
    """Keeps what is written; answers a wish, or fails for a while."""

    def __init__(self, *, wish: str = "", failures: int = 0) -> None:
        self.written: list[DriverReport] = []
        self.heard = threading.Event()
        self._wish, self._failures = wish, failures

    def __call__(self, words: DriverReport) -> str:
        if self._failures:
            self._failures -= 1
            raise StorageError("away")
        self.written.append(words)
        self.heard.set()
        return self._wish


def publisher(door: Door, stopped: list[bool] | None = None) -> DriverReporter:
    return DriverReporter(door, "uid/1", stop=lambda: (stopped or []).append(True), every_seconds=0.01)


def test_the_newest_status_is_published_and_the_last_one_at_the_end() -> None:
    speaker = publisher(door := Door())
    speaker(RunStatus(name="job", step=1))
    speaker.start()
    assert door.heard.wait(10)

    speaker(RunStatus(name="job", step=2))
    speaker.end(None)

    assert door.written[0].run.step == 1
    assert door.written[-1].run.step == 2


def test_a_wish_to_stop_is_obeyed_once_and_only_by_the_attempt_it_is_for() -> None:
    for wish, stops in (("uid/1", 1), ("uid/2", 0), ("other/1", 0)):
        stopped: list[bool] = []
        door = Door(wish=wish)
        speaker = DriverReporter(door, "uid/1", stop=lambda: stopped.append(True), every_seconds=0.01)  # noqa: B023
        speaker(RunStatus(name="job"))
        speaker.start()
        assert door.heard.wait(10)
        speaker.end(None)

        assert len(stopped) == stops


def test_an_error_that_ends_the_run_is_published_with_its_class() -> None:
    speaker = publisher(door := Door(failures=1))
    speaker.start()

    speaker.end(DataError("bad row", remedy="mend it"))

    failure = door.written[-1].failure
    assert failure is not None
    assert (failure.error, failure.error_class, failure.retryable) == ("DataError", "data", False)
    assert (failure.message, failure.remedy) == ("bad row", "mend it")


def test_a_door_that_is_shut_does_not_disturb_the_run() -> None:
    speaker = publisher(door := Door(failures=3))
    speaker(RunStatus(name="job", step=1))
    speaker.start()

    assert door.heard.wait(10)
    speaker.end(None)


def test_words_of_another_attempt_or_of_nobody_are_not_heard() -> None:
    words = DriverReport(attempt="uid/1", run=RunStatus(name="job", step=3))
    config_map = {"data": {REPORT_KEY: words.model_dump_json()}}

    assert driver_report_in(config_map, attempt="uid/1") == words
    assert driver_report_in(config_map, attempt="uid/2") is None
    assert driver_report_in({"data": {REPORT_KEY: "half"}}, attempt="uid/1") is None
    assert driver_report_in(None, attempt="uid/1") is None
