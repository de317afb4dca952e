"""The report of an attempt's driver to the operator, one value of a ConfigMap: run status and failure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ray_app.run_directory.status import RunStatus

REPORT_KEY = "report"
STOP_KEY = "stop"
"""Key of the id of the attempt that must write a checkpoint and stop. The driver reads it in answers to its writes."""


class ReportedFailure(BaseModel):
    """The error that ended a run, by the classes of data_io.errors."""

    model_config = ConfigDict(frozen=True)

    error: str
    error_class: str
    retryable: bool
    message: str
    remedy: str = ""


def _this_minute() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)


class DriverReport(BaseModel):
    """`attempt` is names.attempt_id. `reported_at` is the driver's clock, rounded down to minutes, so that the report
    changes at least once per minute: a heartbeat.
    """

    model_config = ConfigDict(frozen=True)

    attempt: str
    run: RunStatus
    reported_at: datetime = Field(default_factory=_this_minute)
    failure: ReportedFailure | None = None


def driver_report_in(config_map: Mapping[str, Any] | None, *, attempt: str) -> DriverReport | None:
    """The report of this attempt; None if it is missing or invalid."""
    text = ((config_map or {}).get("data") or {}).get(REPORT_KEY)
    if text is None:
        return None
    try:
        found = DriverReport.model_validate_json(text)
    except ValidationError:
        return None
    return found if found.attempt == attempt else None
