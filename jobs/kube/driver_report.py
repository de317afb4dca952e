"""The report of an attempt's driver to the operator, one value of a ConfigMap: run status and failure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from data_io.bounded_json import read_model
from data_io.wording import shortened
from ray_app.run_directory.status import RunStatus

REPORT_KEY = "report"
STOP_KEY = "stop"
"""Key of the id of the attempt that must write a checkpoint and stop. The driver reads it in answers to its writes."""


_MOST_CHARACTERS = 2**18
_WORD = 100
"""Characters of a name, such as that of an error."""


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

    def shortened(self) -> "DriverReport":
        """With the start of each text, as it can be shown. The texts of training's earlier starts are left out."""
        run = {"message": shortened(self.run.message), "groups": ()}
        failure = self.failure and ReportedFailure(
            error=_word(self.failure.error),
            error_class=_word(self.failure.error_class),
            retryable=self.failure.retryable,
            message=shortened(self.failure.message),
            remedy=shortened(self.failure.remedy),
        )
        return self.model_copy(update={"run": self.run.model_copy(update=run), "failure": failure})


def _word(text: str) -> str:
    return shortened("".join(text.split()), _WORD)


def driver_report_in(config_map: Mapping[str, Any] | None, *, attempt: str) -> DriverReport | None:
    """The report of this attempt, with shortened texts; None if it is missing, invalid or too large."""
    text = ((config_map or {}).get("data") or {}).get(REPORT_KEY)
    if text is None or len(text) > _MOST_CHARACTERS:
        return None
    try:
        found = read_model(DriverReport, text)
    except ValueError:
        return None
    return found.shortened() if found.attempt == attempt else None
