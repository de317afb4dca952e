"""The record of a failure in the run directory."""

import json
import logging
from pathlib import Path

import pytest

from data_io.errors import StorageError
from data_io.storage.store import open_store
from ray_app.run_directory.exit_record import LOG_LINES, Failure, exit_record, read_exit_record, write_exit_record
from ray_app.run_directory.process_log import process_log
from ray_app.run_directory.status import Phase, RunStatus
from ray_app.structured_log import LogFormat


def test_an_exit_record_has_the_error_its_origin_its_time_and_a_remedy(tmp_path: Path) -> None:
    run = open_store(str(tmp_path))
    failure = Failure(StorageError("the store is away", remedy="look at it"), rank=1, node="n7", log=("worker line",))
    status = RunStatus(name="job", phase=Phase.TRAINING, step=14, total_steps=40, epoch=1.4, attempt=3)

    write_exit_record(run, exit_record(failure, status, driver_log=("driver line",)))

    found = read_exit_record(run)
    assert found is not None
    assert (found.error, found.error_class, found.exit_code, found.retryable) == ("StorageError", "storage", 5, True)
    assert (found.message, found.remedy) == ("the store is away", "look at it")
    assert (found.step, found.epoch, found.attempt, found.rank, found.node) == (14, 1.4, 3, 1, "n7")
    assert (found.time, found.worker_log, found.driver_log) == (failure.time, ("worker line",), ("driver line",))


def test_a_run_that_has_not_failed_has_no_exit_record(tmp_path: Path) -> None:
    assert read_exit_record(open_store(str(tmp_path))) is None


def test_a_log_is_on_standard_error_too_if_requested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for console in (None, LogFormat.JSON):
        with process_log(open_store(str(tmp_path)), "driver.log", context=lambda: {"attempt": 2}, console=console):
            logging.getLogger("ray_app.test").info("driver started")

    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["attempt"] == 2
    assert (tmp_path / "driver.log").read_text().endswith("INFO ray_app.test: driver started attempt=2\n")


def test_a_log_is_in_the_run_directory_however_its_process_ends(tmp_path: Path) -> None:
    run, last = open_store(str(tmp_path)), list[str]()

    def fail() -> None:
        with process_log(run, "logs/worker.log") as log:
            for number in range(LOG_LINES + 7):
                logging.getLogger("ray_app.test").info("line %d", number)
                logging.getLogger("a_library").info("chatter")
            last.extend(log.last_lines)
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert len(last) == LOG_LINES
    assert last[-1].endswith(f"line {LOG_LINES + 6}")
    assert (tmp_path / "logs" / "worker.log").read_text().splitlines()[-LOG_LINES:] == last
