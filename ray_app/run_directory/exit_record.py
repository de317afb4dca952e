"""`exit.json` of a run directory: why a run failed and how to fix it.

Only a failed run has this file. The next start of the run removes it.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from data_io.bounded_json import read_model
from data_io.errors import F2LLMError, NotFoundInStore
from data_io.storage.store import Store
from ray_app.run_directory.status import RunStatus

EXIT = "exit.json"
LOG_LINES = 50


@dataclass(frozen=True)
class Failure:
    """An error and its origin. `rank` and `node` are None if it did not occur in a worker."""

    error: F2LLMError
    rank: int | None = None
    node: str | None = None
    log: tuple[str, ...] = ()
    """The last lines of the worker's log; empty for a killed process."""
    time: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def facts(self) -> dict[str, Any]:
        """The fields of its event in events.jsonl, without the log."""
        return {
            "error_class": self.error.error_class,
            "message": self.error.message,
            "rank": self.rank,
            "node": self.node,
            "failed_at": self.time.isoformat(timespec="milliseconds"),
        }


class ExitRecord(BaseModel):
    """`retryable`: whether running the same command again can help. `step`, `epoch`, `attempt`: at the failure."""

    model_config = ConfigDict(frozen=True)

    error: str
    error_class: Literal["user", "data", "storage", "capacity", "infrastructure", "internal"]
    exit_code: int
    retryable: bool
    message: str
    remedy: str = ""
    phase: str
    step: int
    total_steps: int
    epoch: float
    attempt: int
    time: datetime
    rank: int | None = Field(None, description="The worker that failed first; null if unknown or not a worker.")
    node: str | None = None
    worker_log: tuple[str, ...] = Field((), description="The last lines that this worker logged.")
    driver_log: tuple[str, ...] = Field((), description="The last lines that the driver logged.")


def exit_record(failure: Failure, status: RunStatus, *, driver_log: tuple[str, ...]) -> ExitRecord:
    """The record of a failure. `status`: the run's status when it failed."""
    error = failure.error
    return ExitRecord.model_validate(
        {
            "error": type(error).__name__,
            "error_class": error.error_class,
            "exit_code": error.exit_code,
            "retryable": error.retryable,
            "message": error.message,
            "remedy": error.remedy or "",
            "phase": status.phase.value,
            "step": status.step,
            "total_steps": status.total_steps,
            "epoch": status.epoch,
            "attempt": status.attempt,
            "time": failure.time,
            "rank": failure.rank,
            "node": failure.node,
            "worker_log": failure.log,
            "driver_log": driver_log,
        }
    )


def write_exit_record(run: Store, record: ExitRecord) -> None:
    run.put(EXIT, record.model_dump_json(indent=1).encode())


def read_exit_record(run: Store) -> ExitRecord | None:
    """The run's exit record; None if the run has not failed, or if the file is damaged."""
    try:
        return read_model(ExitRecord, run.get(EXIT))
    except (NotFoundInStore, ValueError):
        return None
