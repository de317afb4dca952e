"""Log lines with an event and its fields, as text (key=value) or as JSON. The standard library and data_io.

`log.info("worker failed", extra=fields(rank=1))` is
`2026-05-04T03:02:01.000Z WARNING ray_app.orchestration.watchers: worker failed job=team/small attempt=2 rank=1`.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any

from data_io.errors import ConfigError, F2LLMError
from data_io.wording import shown, shown_json

FORMAT_VARIABLE = "F2LLM_LOG_FORMAT"
_BARE = re.compile(r"[\w./:@+,%-]+")


class LogFormat(StrEnum):
    """The format of log lines."""

    TEXT = "text"
    JSON = "json"


def log_format_of_environment() -> LogFormat | None:
    """The format in F2LLM_LOG_FORMAT; None if it is not set. Raises ConfigError for an unknown value."""
    value = os.environ.get(FORMAT_VARIABLE)
    if not value:
        return None
    try:
        return LogFormat(value)
    except ValueError:
        raise ConfigError(
            f"{FORMAT_VARIABLE}: found {value!r}, expected one of {', '.join(LogFormat)}",
            remedy="set it to one of these values, or unset it",
        ) from None


def fields(**values: Any) -> dict[str, Any]:
    """For `extra` of a logging call: the fields of its line. Fields that are None or empty are left out."""
    return {"fields": values}


def error_fields(error: BaseException) -> dict[str, Any]:
    """An error as fields. Its message never holds a secret (data_io.errors)."""
    if isinstance(error, F2LLMError):
        return {"error_type": type(error).__name__, "error_class": error.error_class, "error": error.message}
    return {"error_type": type(error).__name__, "error": str(error)}


class StructuredFormatter(logging.Formatter):
    """`context` returns the fields of all lines of a process. Lines of libraries have only these fields."""

    def __init__(self, log_format: LogFormat, context: Callable[[], Mapping[str, Any]] = dict) -> None:
        super().__init__()
        self._format, self._context = log_format, context

    def format(self, record: logging.LogRecord) -> str:
        values = {**self._context(), **getattr(record, "fields", {})}
        known = {name: _plain(value) for name, value in values.items() if value not in (None, "", (), [])}
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = record.getMessage().strip()
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        if self._format is LogFormat.JSON:
            head = {"time": time, "level": record.levelname, "logger": record.name, "message": message}
            content = {**head, **known, **({"exception": trace} if trace else {})}
            return shown_json(json.dumps(content, ensure_ascii=False))
        event, *rest = message.splitlines() or [""]  # a library's warning can have several lines
        pairs = "".join(f" {name}={_text(value)}" for name, value in known.items())
        lines = [f"{time} {record.levelname} {record.name}: {event}{pairs}", *rest, *filter(None, [trace])]
        return shown("\n".join(lines))


def _plain(value: Any) -> Any:
    """The value as JSON types."""
    match value:
        case Enum():
            return value.value
        case Mapping():
            return {str(name): _plain(each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def _text(value: Any) -> str:
    if isinstance(value, list) and not any(isinstance(each, list | dict) for each in value):
        value = ",".join(map(str, value))
    if isinstance(value, str) and _BARE.fullmatch(value):
        return value
    return shown_json(json.dumps(value, ensure_ascii=False))
