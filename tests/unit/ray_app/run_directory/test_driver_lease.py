"""One driver per run: the second is refused while the first is alive, and takes over if it is dead."""

import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data_io.errors import StorageError
from data_io.storage.store import Store, open_store
from ray_app.errors import RunConflict
from ray_app.run_directory.driver_lease import LEASE, Driver, DriverLease, last_heartbeat, read_driver
from tests.support.waiting import wait_for

BEAT = 0.1


@pytest.fixture(params=["folder", "bucket"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(str(tmp_path) if request.param == "folder" else f"memory://{tmp_path.name}")


def write(run: Store, driver: Driver) -> None:
    run.put(LEASE, driver.model_dump_json().encode())


def elsewhere(**changes: object) -> Driver:
    """A driver on a machine whose processes cannot be seen from here."""
    driver = Driver.of_this_process()
    return driver.model_copy(update={"holder": "other", "host": "far-away", "machine": "another", **changes})


def test_the_second_driver_is_refused_while_the_first_is_alive_and_not_after_it_has_ended(run: Store) -> None:
    with DriverLease(run, beat_seconds=BEAT):
        with pytest.raises(RunConflict, match=r"has another driver: process \d+ on"):
            # It waits long enough for a late heartbeat, and stops at the first heartbeat.
            DriverLease(run, beat_seconds=10 * BEAT).__enter__()
        assert run.exists(LEASE)

    began = time.monotonic()
    with DriverLease(run, beat_seconds=60):
        pass
    assert time.monotonic() - began < 30  # a released lease is not watched


def test_every_heartbeat_updates_the_time_which_is_none_without_a_driver(run: Store) -> None:
    assert last_heartbeat(run) is None

    with DriverLease(run, beat_seconds=BEAT):
        first = last_heartbeat(run)
        assert first is not None
        wait_for(lambda: (last_heartbeat(run) or first) > first, "a heartbeat")


def test_a_dead_driver_of_another_machine_is_detected_by_its_heartbeat(run: Store) -> None:
    write(run, elsewhere(beat=7))
    said: list[str] = []

    with DriverLease(run, beat_seconds=BEAT, say=said.append) as lease:
        holder = read_driver(run)

    assert holder is not None
    assert holder.pid == Driver.of_this_process().pid
    assert said == [
        f"checking whether the previous driver of this run (process {holder.pid} on far-away) is still alive",
        f"the previous driver (process {holder.pid} on far-away) is gone: taking over",
    ]
    assert lease.lost is None


def test_a_dead_process_of_this_machine_is_replaced_without_waiting(run: Store) -> None:
    code = "from ray_app.run_directory.driver_lease import Driver; print(Driver.of_this_process().model_dump_json())"
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    run.put(LEASE, dead.stdout.encode())
    said: list[str] = []

    with DriverLease(run, beat_seconds=60, say=said.append):
        assert said == []


def test_a_driver_replaced_while_paused_reports_it_and_keeps_the_other_drivers_lease(run: Store) -> None:
    with DriverLease(run, beat_seconds=BEAT) as lease:
        lease.refuse_if_lost()
        write(run, elsewhere())
        deadline = time.monotonic() + 20
        while lease.lost is None and time.monotonic() < deadline:
            time.sleep(BEAT)
        with pytest.raises(RunConflict, match="far-away"):
            lease.refuse_if_lost()

    assert read_driver(run) == elsewhere(holder="other", process_started=Driver.of_this_process().process_started)


def test_if_two_drivers_take_over_at_once_the_last_writer_has_the_lease(
    run: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other driver writes while the first one waits before it reads again.
    monkeypatch.setattr("ray_app.run_directory.driver_lease.sleep", lambda _: write(run, elsewhere()))

    with pytest.raises(RunConflict, match="far-away"):
        DriverLease(run, beat_seconds=BEAT).__enter__()


def test_a_damaged_file_counts_as_no_lease(run: Store) -> None:
    run.put(LEASE, b"{")

    with DriverLease(run, beat_seconds=60):
        assert read_driver(run) is not None


def test_an_unreachable_store_is_reported_with_the_time_of_its_last_answer_until_it_answers_again(run: Store) -> None:
    away = threading.Event()

    class Going(Store):
        def put(self, key: str, data: bytes, *, in_parts: bool | None = None) -> str | None:
            if away.is_set():
                raise StorageError("it is away")
            return super().put(key, data, in_parts=in_parts)

    with DriverLease(Going(run.root, run.prefix), beat_seconds=BEAT) as lease:
        wait_for(lambda: (read_driver(run) or elsewhere()).beat >= 2, "a second heartbeat")
        away.set()
        since = wait_for(lambda: lease.store_unreachable_since, "the store is reported as unreachable")
        missed = datetime.now(UTC)
        away.clear()
        wait_for(lambda: lease.store_unreachable_since is None, "the store is back")

    assert missed - since > 4 * timedelta(seconds=BEAT)  # one late answer does not count
