"""`exit.json` of a run directory: why a run failed and what to do. There is none while a run is under way or has ended
well: whoever starts it again removes it.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_io.errors import F2LLMError, NotFoundInStore
from data_io.storage.store import Store
from ray_app.run_directory.status import RunStatus

EXIT = "exit.json"
LOG_LINES = 50


@dataclass(frozen=True)
class Failure:
    """An error, and where it was met: `rank` and `node` are None where it was met outside of the workers."""

    error: F2LLMError
    rank: int | None = None
    node: str | None = None
    log: tuple[str, ...] = ()
    """The last lines that the worker logged; a process that was killed leaves none."""
    time: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def facts(self) -> dict[str, Any]:
        """What events.jsonl says of it, the log left out."""
        return {
            "error_class": self.error.error_class,
            "message": self.error.message,
            "rank": self.rank,
            "node": self.node,
            "failed_at": self.time.isoformat(timespec="milliseconds"),
        }


class ExitRecord(BaseModel):
    """`retryable` says whether the same command may help; step, epoch and attempt are those the run had come to."""

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
    rank: int | None = Field(None, description="The worker that failed first; null where it was none, or is not known.")
    node: str | None = None
    worker_log: tuple[str, ...] = Field((), description="The last lines that this worker logged.")
    driver_log: tuple[str, ...] = Field((), description="The last lines that the driver logged.")


def exit_record(failure: Failure, status: RunStatus, *, driver_log: tuple[str, ...]) -> ExitRecord:
    """What is kept of a failure; `status` is where the run was when it ended."""
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
    """None where the run has not failed, or where a damaged file cannot say."""
    try:
        return ExitRecord.model_validate_json(run.get(EXIT))
    except (NotFoundInStore, ValidationError):
        return None
