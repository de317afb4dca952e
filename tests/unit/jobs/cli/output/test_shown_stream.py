"""What the command line prints: control characters of any text are shown, on both streams."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from data_io.errors import DataError
from data_io.storage.store import open_store
from data_io.wording import shown
from jobs.cli.app import call
from jobs.cli.output.kubernetes import description, remark
from jobs.cli.output.text import say
from jobs.kube.observed import Pod
from jobs.kube.status import JobStatus, status_of
from ray_app.run_directory.directory import JOB_SPEC
from ray_app.run_directory.exit_record import Failure, exit_record, write_exit_record
from ray_app.run_directory.status import RunStatus
from tests.support.calling import Run
from tests.support.hostile import ESCAPES
from tests.support.written_runs import write_run

SHOWN = r"\x1b]0;taken over\x07\x1b[31m\x9b2J\u202eabc"


def is_clean(text: str) -> bool:
    return text.replace("\n", "").replace("\t", "").isprintable()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose texts are hostile."""
    run = open_store(str(tmp_path / "runs" / "small"))
    write_run(run)
    status = RunStatus(name=f"small{ESCAPES}", message=ESCAPES, restarts_by_reason={ESCAPES: 1}, seconds={ESCAPES: 1.0})
    run.put("status.json", status.model_dump_json().encode())
    failure = exit_record(Failure(DataError(ESCAPES, remedy=ESCAPES)), status, driver_log=(ESCAPES,))
    write_exit_record(run, failure)
    run.put(JOB_SPEC, run.get(JOB_SPEC) + f"# {shown(ESCAPES)}\n".encode())
    return tmp_path / "runs" / "small"


@pytest.mark.parametrize("command", [["status"], ["status", "--json"], ["runs"], ["runs", "--json"], ["report"]])
def test_texts_of_a_run_directory_do_not_reach_the_terminal(f2llm: Run, run: Path, command: list[str]) -> None:
    code, out, err = f2llm(*command, str(run))

    assert (code, err) == (0, "")
    assert is_clean(out)
    if command[0] == "status":
        assert (SHOWN in out) is ("--json" not in command)
    if "--json" in command:
        assert isinstance(json.loads(out), dict)
    if command == ["status", "--json"]:
        assert json.loads(out)["message"] == ESCAPES  # unchanged for programs


def test_a_report_shows_them_too(f2llm: Run, run: Path) -> None:
    assert f2llm("report", str(run))[0] == 0

    page = (run / "report.html").read_text(encoding="utf-8")
    assert SHOWN in page
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(page)


def test_an_error_message_and_its_traceback_are_shown(f2llm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise DataError(f"found {ESCAPES}", remedy=ESCAPES)

    monkeypatch.setattr("jobs.spec.job.load_job_spec", fails)

    code, out, err = f2llm("validate", "job.yaml", "--debug", "--json")

    assert code == 4
    assert err.count(SHOWN) >= 2
    assert is_clean(err)
    assert is_clean(out)
    assert json.loads(out)["error"]["message"] == f"found {ESCAPES}"


def test_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    say(ESCAPES)

    assert capsys.readouterr().err == f"{SHOWN}\n"


def test_the_stream_is_as_before_after_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout

    assert call(["version"]) == 0

    assert sys.stdout is before


def resource(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "job", "namespace": "team"}, "spec": {}, "status": status}


def test_lines_of_a_message_do_not_look_like_lines_of_the_description() -> None:
    forged = "lost\nstate       Succeeded\nconditions\n  Succeeded    True"
    condition = {"type": "Failed", "status": "True", "reason": "Lost", "message": forged, "lastTransitionTime": "now"}
    failure = {"attempt": 1, "errorClass": "user", "reason": "Lost", "message": forged, "time": "now"}
    job = resource(message=forged, lastFailure=failure, conditions=[condition])
    event = {"metadata": {"creationTimestamp": "2026"}, "type": "Normal", "reason": "R", "note": forged}
    pods = [Pod("p", "1", is_head=True, ready=False, trouble=forged)]

    lines = list(description(job, pods, [event]))

    assert [line for line in lines if line.startswith("state")] == [f"state       {remark(status_of(job))}"]
    assert lines.count("conditions") == 1
    assert not [line for line in lines if line.startswith("  Succeeded")]


def test_a_status_is_cut_to_what_the_crd_accepts() -> None:
    status = JobStatus(message=ESCAPES * 1000, run_uri="s3://bucket/runs/job")

    written = status.to_dict()

    assert len(written["message"]) == 4096
    assert is_clean(written["message"])
    assert written["runUri"] == "s3://bucket/runs/job"
