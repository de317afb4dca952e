"""Log lines: an event and its fields, as text and as JSON."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_io.errors import ConfigError, StorageError
from ray_app.run_directory.status import Phase
from ray_app.structured_log import LogFormat, StructuredFormatter, error_fields, fields, log_format_of_environment


def record(message: str = "worker failed", **values: object) -> logging.LogRecord:
    made = logging.LogRecord("ray_app.test", logging.WARNING, __file__, 1, message, (), None)
    made.created = 1777863721.25
    made.__dict__.update(fields(**values))
    return made


def test_a_text_line_has_the_event_then_the_context_then_the_fields() -> None:
    line = StructuredFormatter(LogFormat.TEXT, lambda: {"job": "team/small", "attempt": 2}).format(
        record(rank=1, phase=Phase.TRAINING, error="the store is away", ranks=[0, 3], node=None, message_of="")
    )

    assert line == (
        "2026-05-04T03:02:01.250Z WARNING ray_app.test: worker failed job=team/small attempt=2 rank=1 phase=Training "
        'error="the store is away" ranks=0,3'
    )


def test_a_json_line_has_the_same_as_values() -> None:
    line = StructuredFormatter(LogFormat.JSON, lambda: {"job": "team/small"}).format(record(rank=0, ranks=(0, 3)))

    assert json.loads(line) == {
        "time": "2026-05-04T03:02:01.250Z",
        "level": "WARNING",
        "logger": "ray_app.test",
        "message": "worker failed",
        "job": "team/small",
        "rank": 0,
        "ranks": [0, 3],
    }


def test_the_fields_stand_on_the_first_line_of_a_message_that_has_several() -> None:
    line = StructuredFormatter(LogFormat.TEXT).format(
        record("old: use new\n  at this line\n", rank=0, seconds={"a": 1})
    )

    assert line.splitlines() == [
        '2026-05-04T03:02:01.250Z WARNING ray_app.test: old: use new rank=0 seconds={"a": 1}',
        "  at this line",
    ]


@given(value=st.text(min_size=1), log_format=st.sampled_from(LogFormat))
def test_a_line_stays_one_line_for_any_fields(value: str, log_format: LogFormat) -> None:
    line = StructuredFormatter(log_format).format(record(error=value))

    assert "\n" not in line
    written = line.partition(" error=")[2] if log_format is LogFormat.TEXT else json.dumps(json.loads(line)["error"])
    assert value in (written, json.loads(written) if written.startswith('"') else None)


def test_an_error_is_named_by_type_class_and_message() -> None:
    assert error_fields(StorageError("away", remedy="wait")) == {
        "error_type": "StorageError",
        "error_class": "storage",
        "error": "away",
    }
    assert error_fields(ValueError("bad")) == {"error_type": "ValueError", "error": "bad"}


def test_the_environment_sets_whether_and_how_the_driver_logs_to_standard_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("F2LLM_LOG_FORMAT", raising=False)
    assert log_format_of_environment() is None
    monkeypatch.setenv("F2LLM_LOG_FORMAT", "json")
    assert log_format_of_environment() is LogFormat.JSON
    monkeypatch.setenv("F2LLM_LOG_FORMAT", "xml")
    with pytest.raises(ConfigError, match="found 'xml', expected one of text, json"):
        log_format_of_environment()
