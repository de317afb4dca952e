"""The command line with a real API server: the effect and the output of each command."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.spec.presets import merged
from tests.support.calling import Run, caller
from tests.support.control_plane import ControlPlane
from tests.support.job_specs import job_spec
from tests.support.kubectl import Kubectl

GOOD = job_spec(
    {"storage": {"uri": "s3://bucket/runs"}, "data": {"uri": "s3://bucket/data"}}, metadata={"name": "verbs"}
)


@pytest.fixture
def f2llm(control_plane: ControlPlane, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Calls the command line with the cluster's kubeconfig; returns exit code, standard output and standard error."""
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    return caller(capsys)


@pytest.fixture
def job(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    return str(path)


@pytest.fixture
def submitted(f2llm: Run, kubectl: Kubectl, job: str) -> Iterator[str]:
    assert f2llm("submit", job, "--workers", "2")[0] == 0
    yield "verbs"
    kubectl("delete", "ej", "verbs", "--ignore-not-found")


def spec(kubectl: Kubectl) -> dict[str, Any]:
    found: dict[str, Any] = kubectl.get("ej", "verbs")["spec"]
    return found


def set_status(kubectl: Kubectl, **status: Any) -> None:
    kubectl("patch", "ej", "verbs", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


def test_a_dry_run_asks_the_api_server_and_starts_nothing(f2llm: Run, kubectl: Kubectl, job: str) -> None:
    code, out, _ = f2llm("submit", job, "--dry-run=server")

    assert code == 0
    assert "nothing was started" in out
    assert kubectl("get", "ej", "-o", "name") == ""


def test_the_api_server_reports_problems_that_only_a_cluster_has(f2llm: Run, job: str) -> None:
    code, _, err = f2llm("submit", job, "--set", "storage.uri=runs")

    assert code == 11
    assert "spec.storage.uri is a directory that no volume" in err


def test_submit_writes_the_preset_out_so_that_scale_works(f2llm: Run, kubectl: Kubectl, submitted: str) -> None:
    kubectl("scale", "ej/verbs", "--replicas=3")

    assert spec(kubectl)["workers"]["replicas"] == 3


def test_scale_suspend_and_resume_change_one_field_each(f2llm: Run, kubectl: Kubectl, submitted: str) -> None:
    before = spec(kubectl)

    assert f2llm("scale", "verbs", "4")[0] == 0
    scaled = spec(kubectl)
    assert f2llm("suspend", "verbs")[0] == 0
    suspended = spec(kubectl)
    assert f2llm("resume", "verbs")[0] == 0

    assert scaled == merged(before, {"workers": {"replicas": 4}})
    assert suspended == merged(scaled, {"suspend": True})
    assert spec(kubectl) == merged(scaled, {"suspend": False})


def test_submitting_again_changes_the_job(f2llm: Run, kubectl: Kubectl, submitted: str, job: str) -> None:
    code, _, _ = f2llm("submit", job, "--set", "checkpoint.every=9 steps")

    assert code == 0
    assert spec(kubectl)["checkpoint"]["every"] == "9 steps"


def test_list_and_watch_show_the_progress_of_a_job(f2llm: Run, kubectl: Kubectl, submitted: str) -> None:
    set_status(kubectl, phase="Succeeded", step=20, totalSteps=20, progress="100%", loss=0.8171, attempt=1)

    code, out, _ = f2llm("list")
    watched, lines, _ = f2llm("watch", "verbs")

    assert code == 0
    assert out.splitlines()[1].split() == ["verbs", "Succeeded", "20/20", "100%", "0.817", "0/2", "-", "1"]
    assert watched == 0
    assert lines.startswith("Succeeded  step 20/20  loss 0.817")


def test_describe_explains_a_failure(f2llm: Run, kubectl: Kubectl, submitted: str) -> None:
    failure = {"attempt": 1, "errorClass": "data", "reason": "DataError", "message": "bad shard", "remedy": "fix it"}
    set_status(kubectl, phase="Failed", attempt=1, lastFailure={**failure, "time": "2026-05-04T03:02:01Z"})

    code, out, _ = f2llm("describe", "verbs")
    watched, _, err = f2llm("watch", "verbs")

    assert code == 0
    assert "data error DataError of attempt 1" in out
    assert "bad shard" in out
    assert "fix it" in out
    assert watched == 1
    assert "f2llm describe verbs" in err


def test_describe_begins_with_the_status_of_a_job(f2llm: Run, kubectl: Kubectl, submitted: str) -> None:
    set_status(kubectl, phase="Training", step=7, totalSteps=20, runUri="s3://bucket/runs/verbs", attempt=1)

    code, out, _ = f2llm("status", "verbs")
    _, described, _ = f2llm("describe", "verbs")
    _, object_, _ = f2llm("status", "verbs", "--json")

    assert code == 0
    assert "Training  step 7/20" in out
    assert described.startswith(out)
    assert json.loads(object_)["step"] == 7


def test_delete_names_the_run_directory_that_stays(f2llm: Run, kubectl: Kubectl, submitted: str) -> None:
    set_status(kubectl, runUri="s3://bucket/runs/verbs")

    code, out, _ = f2llm("delete", "verbs")

    assert code == 0
    assert "its run directory stays: s3://bucket/runs/verbs" in out
    assert kubectl("get", "ej", "-o", "name") == ""


@pytest.mark.parametrize("verb", ["describe verb", "status verb", "scale verb 2", "suspend verb", "logs verb"])
def test_an_unknown_name_is_answered_with_close_ones(f2llm: Run, submitted: str, verb: str) -> None:
    code, _, err = f2llm(*verb.split())

    assert code == 11
    assert "did you mean `verbs`?" in err


def test_the_logs_of_a_job_without_pods_come_from_its_run_directory(
    f2llm: Run, kubectl: Kubectl, submitted: str, tmp_path: Path
) -> None:
    not_yet, _, never = f2llm("logs", "verbs")
    set_status(kubectl, runUri=str(tmp_path / "run"), phase="Failed")
    for start, text in (("20260102T000000Z", "one\ntwo\n"), ("20260101T000000Z", "old\n")):
        log = tmp_path / "run" / "logs" / start / "driver.log"
        log.parent.mkdir(parents=True)
        log.write_text(text)

    code, out, _ = f2llm("logs", "verbs")
    _, last, _ = f2llm("logs", "verbs", "--lines", "1")
    missing, _, err = f2llm("logs", "verbs", "--worker", "0")

    assert (not_yet, code, missing) == (11, 0, 5)
    assert "has not started yet" in never
    assert (out, last) == ("one\ntwo\n", "two\n")
    assert "logs exist for driver" in err


def test_an_unknown_context_is_a_usage_error(f2llm: Run) -> None:
    code, _, err = f2llm("list", "--context", "nowhere")

    assert code == 3
    assert "kubectl config get-contexts" in err
