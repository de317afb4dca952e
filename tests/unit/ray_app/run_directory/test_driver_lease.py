"""One driver a run: the second is refused while the first is alive, and takes over when it is dead."""

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
from ray_app.run_directory.driver_lease import LEASE, Driver, DriverLease, last_heard, read_driver
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
            # It looks for long enough that a heartbeat may come late, and ends with the first one that it sees.
            DriverLease(run, beat_seconds=10 * BEAT).__enter__()
        assert run.exists(LEASE)

    began = time.monotonic()
    with DriverLease(run, beat_seconds=60):
        pass
    assert time.monotonic() - began < 30  # what was released is not watched


def test_a_driver_is_heard_at_every_heartbeat_and_who_was_never_there_is_not(run: Store) -> None:
    assert last_heard(run) is None

    with DriverLease(run, beat_seconds=BEAT):
        first = last_heard(run)
        assert first is not None
        wait_for(lambda: (last_heard(run) or first) > first, "a heartbeat")


def test_a_dead_driver_of_another_machine_is_found_out_by_its_heartbeat(run: Store) -> None:
    write(run, elsewhere(beat=7))
    said: list[str] = []

    with DriverLease(run, beat_seconds=BEAT, say=said.append) as lease:
        holder = read_driver(run)

    assert holder is not None
    assert holder.pid == Driver.of_this_process().pid
    assert [line.split(",")[0] for line in said] == [
        "waiting to see whether the driver of this run",
        f"process {holder.pid} on far-away is dead: taking over",
    ]
    assert lease.lost is None


def test_a_process_of_this_machine_that_is_gone_is_not_waited_for(run: Store) -> None:
    code = "from ray_app.run_directory.driver_lease import Driver; print(Driver.of_this_process().model_dump_json())"
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    run.put(LEASE, dead.stdout.encode())
    said: list[str] = []

    with DriverLease(run, beat_seconds=60, say=said.append):
        assert said == []


def test_a_driver_that_was_replaced_while_it_slept_says_so_and_leaves_the_other_ones_name(run: Store) -> None:
    with DriverLease(run, beat_seconds=BEAT) as lease:
        lease.refuse_if_lost()
        write(run, elsewhere())
        deadline = time.monotonic() + 20
        while lease.lost is None and time.monotonic() < deadline:
            time.sleep(BEAT)
        with pytest.raises(RunConflict, match="far-away"):
            lease.refuse_if_lost()

    assert read_driver(run) == elsewhere(holder="other", process_started=Driver.of_this_process().process_started)


def test_of_two_who_take_over_at_once_the_last_to_write_has_it(run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # While the first one waits to look again, the other writes.
    monkeypatch.setattr("ray_app.run_directory.driver_lease.sleep", lambda _: write(run, elsewhere()))

    with pytest.raises(RunConflict, match="far-away"):
        DriverLease(run, beat_seconds=BEAT).__enter__()


def test_a_damaged_file_holds_nothing(run: Store) -> None:
    run.put(LEASE, b"{")

    with DriverLease(run, beat_seconds=60):
        assert read_driver(run) is not None


def test_a_store_that_stays_away_is_missed_since_its_last_answer_until_it_is_back(run: Store) -> None:
    away = threading.Event()

    class Going(Store):
        def put(self, key: str, data: bytes, *, in_parts: bool | None = None) -> str | None:
            if away.is_set():
                raise StorageError("it is away")
            return super().put(key, data, in_parts=in_parts)

    with DriverLease(Going(run.root, run.prefix), beat_seconds=BEAT) as lease:
        wait_for(lambda: (read_driver(run) or elsewhere()).beat >= 2, "a second heartbeat")
        away.set()
        since = wait_for(lambda: lease.store_silent_since, "the store is missed")
        missed = datetime.now(UTC)
        away.clear()
        wait_for(lambda: lease.store_silent_since is None, "the store is back")

    assert missed - since > 4 * timedelta(seconds=BEAT)  # one late answer is none missed
