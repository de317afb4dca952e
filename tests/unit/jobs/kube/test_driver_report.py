"""Reports of drivers, which are pods that run the code of any user."""

import json
from typing import Any

import pytest

from data_io.wording import LONGEST_MESSAGE
from jobs.kube.driver_report import REPORT_KEY, DriverReport, ReportedFailure, driver_report_in
from ray_app.run_directory.status import RunStatus, WorkerGroup
from tests.support.hostile import ESCAPES


def config_map(**changes: Any) -> dict[str, Any]:
    report = {"attempt": "uid/1", "run": {"name": "job"}, "reported_at": "2026-01-02T03:04:00Z", **changes}
    return {"data": {REPORT_KEY: json.dumps(report)}}


def read(found: dict[str, Any]) -> DriverReport | None:
    return driver_report_in(found, attempt="uid/1")


def test_texts_are_shortened_and_shown() -> None:
    failure = {"error": ESCAPES, "error_class": "user", "retryable": False, "message": ESCAPES * 1000, "remedy": "\x9b"}

    found = read(config_map(run={"name": "job", "message": ESCAPES}, failure=failure))

    assert found is not None
    assert found.failure is not None
    assert len(found.failure.message) == LONGEST_MESSAGE
    texts = [found.run.message, *found.failure.model_dump(exclude={"retryable"}).values()]
    assert all("\\x" in text or text == "user" for text in texts)
    assert all(text.isprintable() for text in texts)


@pytest.mark.parametrize(
    "changes",
    [
        {"run": {"name": "x" * 2**18}},
        {"run": {"name": "job", "step": 10**30}},
        {"run": {"name": "job", "step": "many"}},
        {"run": []},
        {"attempt": None},
    ],
    ids=lambda changes: json.dumps(changes)[:40],
)
def test_a_report_that_is_too_large_or_invalid_is_ignored(changes: dict[str, Any]) -> None:
    assert read(config_map()) is not None
    assert read(config_map(**changes)) is None


@pytest.mark.parametrize("text", ["", "[" * 30_000, '{"attempt": "uid/1", "run": {"step": ' + "9" * 5000 + "}}"])
def test_a_text_that_is_no_report_is_ignored(text: str) -> None:
    assert read({"data": {REPORT_KEY: text}}) is None


def test_the_driver_sends_no_more_than_the_operator_reads() -> None:
    groups = [
        WorkerGroup.model_validate({"attempt": 1, "time": 0, "step": 0, "workers": 1, "message": "x" * 50_000})
        for _ in range(20)
    ]
    run = RunStatus(name="job", message="x" * 10**6, groups=tuple(groups))
    failure = ReportedFailure(error="E", error_class="user", retryable=False, message="m" * 10**6, remedy="r" * 10**6)
    report = DriverReport(attempt="uid/1", run=run, failure=failure)

    sent = {"data": {REPORT_KEY: report.shortened().model_dump_json()}}

    assert read(sent) == report.shortened()
