"""One driver per run: `driver.json` in the run directory names the driver, and its heartbeat shows that it is alive.

Nothing here depends on synchronized clocks or on conditional writes, which not every store has. The heartbeat is a
counter. A new driver watches it, and takes over if it does not change. If two drivers take over at the same time, both
write the file and read it again a moment later: the last writer has the lease. A driver that was paused and replaced
finds another holder at its next heartbeat. run_directory/attempts.py prevents the use of anything that its workers
write until then.
"""

import os
import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from time import sleep
from types import TracebackType

from pydantic import BaseModel, ConfigDict

from data_io.bounded_json import read_model
from data_io.errors import F2LLMError, NotFoundInStore
from data_io.storage.store import Store
from ray_app.errors import RunConflict

LEASE = "driver.json"
BEAT_SECONDS = 5.0
_BEATS_UNTIL_DEAD = 3
_BEATS_UNTIL_MISSED = 4
_LOOK_AGAIN_SECONDS = 0.3, 1.5
"""For a local directory, and for a bucket."""


class Driver(BaseModel):
    """`driver.json`. `machine` identifies the machine and container to which the process id belongs."""

    model_config = ConfigDict(frozen=True)

    holder: str
    host: str
    machine: str
    pid: int
    process_started: str
    beat: int = 0
    released: bool = False

    @classmethod
    def of_this_process(cls) -> "Driver":
        return cls(
            holder=secrets.token_hex(8),
            host=socket.gethostname(),
            machine=_this_machine(),
            pid=os.getpid(),
            process_started=process_started(os.getpid()),
        )

    @property
    def is_known_to_be_gone(self) -> bool:
        """Whether it released the lease, or was a process of this machine that no longer exists."""
        here = bool(self.machine) and self.machine == _this_machine()
        return self.released or (here and process_started(self.pid) != self.process_started)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class DriverLease:
    """Holds the lease of a run for a `with` block. `lost` is the new holder after another driver took over.

    The lease is written every few seconds, so it is also the first to detect an unreachable store:
    `store_unreachable_since`.
    """

    def __init__(
        self, run: Store, *, beat_seconds: float = BEAT_SECONDS, say: Callable[[str], None] = lambda message: None
    ) -> None:
        self._run, self._beat_seconds, self._say = run, beat_seconds, say
        self._driver = Driver.of_this_process()
        self._ended = Event()
        self._thread = Thread(target=self._beat, name="lease", daemon=True)
        self.lost: Driver | None = None
        self._answered = datetime.now(UTC)

    def __enter__(self) -> "DriverLease":
        """Raises RunConflict while another driver is alive."""
        self._wait_for_the_one_before()
        self._write()
        sleep(_LOOK_AGAIN_SECONDS[not self._run.is_local])
        found = read_driver(self._run)
        if found is not None and found.holder != self._driver.holder:
            raise self._taken(found)
        self._thread.start()
        return self

    @property
    def holder(self) -> str:
        return self._driver.holder

    @property
    def store_unreachable_since(self) -> datetime | None:
        """When the store last answered, if that is several heartbeats ago; otherwise None."""
        missed = datetime.now(UTC) - self._answered > _BEATS_UNTIL_MISSED * timedelta(seconds=self._beat_seconds)
        return self._answered if missed and self.lost is None else None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        if self.lost is None:
            self._driver = self._driver.model_copy(update={"released": True})
            try:
                self._write()
            except F2LLMError:
                if error is None:
                    raise

    def refuse_if_lost(self) -> None:
        """Raises RunConflict if another driver has taken over the run."""
        if self.lost is not None:
            raise self._taken(self.lost)

    def _wait_for_the_one_before(self) -> None:
        found = read_driver(self._run)
        if found is None or found.is_known_to_be_gone:
            return
        self._say(f"checking whether the previous driver of this run ({found}) is still alive")
        for _ in range(_BEATS_UNTIL_DEAD):
            sleep(self._beat_seconds)
            again = read_driver(self._run)
            if again is None or again.is_known_to_be_gone:
                return
            if again != found:
                raise self._taken(again)
        self._say(f"the previous driver ({found}) is gone: taking over")

    def _beat(self) -> None:
        while not self._ended.wait(self._beat_seconds):
            try:
                found = read_driver(self._run)
                if found is not None and found.holder != self._driver.holder:
                    self.lost = found
                    return
                self._driver = self._driver.model_copy(update={"beat": self._driver.beat + 1})
                self._write()
            except F2LLMError:
                continue  # the store is unreachable; a takeover is noticed when it is reachable again

    def _write(self) -> None:
        self._run.put(LEASE, self._driver.model_dump_json(indent=1).encode())
        self._answered = datetime.now(UTC)

    def _taken(self, by: Driver) -> RunConflict:
        return RunConflict(
            f"{self._run.uri} has another driver: {by}",
            remedy="wait for that driver, or stop it first; a dead driver is detected automatically",
        )


def refuse_without_lease(run: Store, holder: str) -> None:
    """For workers, before they begin. Raises RunConflict if their driver no longer holds the run's lease."""
    found = read_driver(run)
    if found is not None and found.holder != holder:
        raise RunConflict(
            f"{run.uri} has another driver: {found}", remedy="no action is needed: that driver continues the run"
        )


def read_driver(run: Store) -> Driver | None:
    """The holder of the run's lease; None if the file does not exist or is damaged."""
    try:
        return read_model(Driver, run.get(LEASE))
    except (NotFoundInStore, ValueError):
        return None


def last_heartbeat(run: Store) -> datetime | None:
    """When the run's driver last wrote its lease, by the store's clock; None if it never did."""
    found = run.head(LEASE)
    return found.modified if found else None


def _this_machine() -> str:
    """An id that differs for each boot, and for each container with its own process ids; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def process_started(pid: int) -> str:
    """When a process of this machine started, in the kernel's ticks; empty if it does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return ""
