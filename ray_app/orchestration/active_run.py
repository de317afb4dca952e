"""The active run: its status, for the caller and in the run directory, and the failure that ends it."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import ray_app.ray_runtime.environment  # noqa: F401 # isort: skip - must be imported before Ray

import ray

from data_io.errors import F2LLMError, StorageError
from data_io.storage.store import Store
from ray_app.job_spec import JobSpec
from ray_app.ray_runtime.failures import classify_error
from ray_app.reporting.run_report import write_report
from ray_app.run_directory.directory import append_event, read_status, write_status
from ray_app.run_directory.driver_lease import DriverLease
from ray_app.run_directory.exit_record import Failure, exit_record, write_exit_record
from ray_app.run_directory.process_log import ProcessLog
from ray_app.run_directory.status import Phase, RunStatus
from ray_app.structured_log import error_fields, fields

_BUG = "this is a bug in f2llm; run the command again with --debug and report the output"

log = logging.getLogger(__name__)


class ActiveRun:
    """One start of a run. `label` is the job's name in log lines: namespace/name, or only the name."""

    def __init__(
        self,
        name: str,
        spec: JobSpec,
        data: Store,
        store: Store,
        status: RunStatus,
        on_status: Callable[[RunStatus], None],
        lease: DriverLease,
        *,
        label: str = "",
    ) -> None:
        self.name, self.spec, self.data, self.store = name, spec, data, store
        self.status = status
        self.lease = lease
        self.label = label or name
        self.started = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self.failure: Failure | None = None
        """The failure of the workers, if no step has finished since."""
        self.scores: Callable[[], Mapping[str, Any]] = dict
        """Fields of the status from the evaluation of checkpoints."""
        self._on_status = on_status
        self._entered = monotonic()
        self._seconds_before: Mapping[str, float] = {}
        self._phase = status.phase

    @property
    def logs(self) -> str:
        """The directory of this start's logs in the run directory."""
        return f"logs/{self.started}"

    def log_context(self) -> dict[str, Any]:
        """The fields of all log lines of the driver. `attempt` increases with each worker group, as in events.jsonl."""
        return {"job": self.label, "attempt": self.status.attempt}

    def enter(self, phase: Phase) -> None:
        log.info("phase changed", extra=fields(phase_before=self.status.phase, phase=phase))
        self.show(self.status.model_copy(update={"phase": phase, "message": ""}))
        write_status(self.store, self.status)
        self._phase, self._entered, self._seconds_before = phase, monotonic(), dict(self.status.seconds)

    def count_seconds(self) -> None:
        """Add the time since the start of the phase to the times in the status."""
        phase, spent, before = self._phase.value, monotonic() - self._entered, self._seconds_before
        seconds = {**before, phase: before.get(phase, 0.0) + spent}
        self.status = self.status.model_copy(update={"seconds": seconds})
        write_status(self.store, self.status)

    def say(self, message: str) -> None:
        self.show(self.status.model_copy(update={"message": message}))

    def show(self, status: RunStatus) -> None:
        now = {"store_unreachable_since": self.lease.store_unreachable_since, **self.scores()}
        self.status = status.model_copy(update=now)
        self._on_status(self.status)

    def show_stored(self) -> None:
        """Show the last status that rank 0 wrote."""
        self.show(read_status(self.store) or self.status)

    def end(self, phase: Phase, message: str) -> None:
        self.show(self.status.model_copy(update={"phase": phase, "message": message, "eta_seconds": None}))
        write_status(self.store, self.status)
        append_event(self.store, phase.value, step=self.status.step, message=message)
        log.info("run ended", extra=fields(phase=phase, step=self.status.step))
        write_report(self.store)

    @contextmanager
    def failures_recorded(self, records: ProcessLog) -> Iterator[None]:
        """Record an error that ends the run in the run directory before the caller gets it."""
        try:
            yield
        except Exception as raised:
            if self.lease.lost is not None:  # the run directory belongs to another driver
                raise
            ours = isinstance(raised, (F2LLMError, ray.exceptions.RayError))
            error = classify_error(raised) if ours else F2LLMError(f"{type(raised).__name__}: {raised}", remedy=_BUG)
            of_workers = self.failure if self.failure is not None and self.failure.error is error else None
            with suppress(StorageError):  # an unreachable store must not hide the error
                self._record(of_workers or Failure(error), records)
            raise error from raised

    def _record(self, failure: Failure, records: ProcessLog) -> None:
        error = failure.error
        # The traceback of a worker's error is in the worker's log.
        trace = None if failure is self.failure else error
        log.error(
            "run failed",
            exc_info=trace,
            extra=fields(phase=Phase.FAILED, step=self.status.step, rank=failure.rank, **error_fields(error)),
        )
        write_exit_record(self.store, exit_record(failure, self.status, driver_log=records.last_lines))
        self.show(self.status.model_copy(update={"phase": Phase.FAILED, "message": error.message}))
        write_status(self.store, self.status)
        append_event(self.store, "Failed", **failure.facts, remedy=error.remedy or "")
