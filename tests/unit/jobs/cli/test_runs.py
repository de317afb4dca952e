"""`f2llm runs` on runs in a directory."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data_io.storage.store import open_store
from ray_app.run_directory.status import Phase, RunStatus
from tests.support.calling import Run, caller
from tests.support.written_runs import write_run


@pytest.fixture
def f2llm(capsys: pytest.CaptureFixture[str]) -> Run:
    return caller(capsys)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """Two runs whose job specs differ in two fields, and a damaged one."""
    place = open_store(str(tmp_path / "runs"))
    write_run(place.child("base"), spec={"workers": {"replicas": 2, "gpus": 1}})
    write_run(place.child("other"), spec={"workers": {"replicas": 4, "gpus": 1}, "train": {"seed": 7}}, workers=4)
    place.put("broken/job.yaml", b"kind: [")
    return place.uri


def table(tmp_path: Path, text: str) -> str:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    return f"--prices={path}"


def test_every_run_has_a_line_and_a_damaged_one_says_so(f2llm: Run, uri: str) -> None:
    code, out, _ = f2llm("runs", uri)

    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines[:4]] == ["RUN", "base", "broken", "other"]
    assert "0.050 -> 0.610" in lines[1]
    assert "6.00 GPU" in lines[1]
    assert lines[4] == "broken: job.yaml is damaged and was left out."


def test_a_run_without_heartbeats_has_lost_contact_as_text_and_as_json(f2llm: Run, uri: str) -> None:
    place = open_store(uri)
    then = datetime.now(UTC) - timedelta(minutes=9, seconds=5)
    status = RunStatus(name="base", phase=Phase.TRAINING, last_checkpoint_step=7, updated=then)
    place.put("base/status.json", status.model_dump_json().encode())

    _, out, _ = f2llm("runs", uri)
    _, as_json, _ = f2llm("runs", uri, "--json")

    assert "Training (lost contact)" in out
    assert "base: no heartbeat from the driver for 9 min; `f2llm run` resumes from step 7." in out
    stale = [run["stale_seconds"] for run in json.loads(as_json)["runs"]]
    assert [each is None for each in stale] == [False, True, True]


def test_json_has_the_same_metrics(f2llm: Run, uri: str, tmp_path: Path) -> None:
    code, out, _ = f2llm("runs", uri, "--json", table(tmp_path, "H100: 2.5"), "--compare", "base", "other")

    answer = json.loads(out)
    assert code == 0
    assert [run["name"] for run in answer["runs"]] == ["base", "broken", "other"]
    assert answer["runs"][0]["cost"] == pytest.approx(15.0)
    assert answer["compare"]["differences"] == {"train.seed": [0, 7], "workers.replicas": [2, 4]}


def test_two_runs_are_compared_by_their_job_specs(f2llm: Run, uri: str) -> None:
    code, out, _ = f2llm("runs", uri, "--compare", "base", "other")

    assert code == 0
    assert "broken" not in out
    assert out.splitlines()[-2:] == ["spec.train.seed: 0 -> 7", "spec.workers.replicas: 2 -> 4"]


def test_a_run_that_is_not_there_or_has_no_job_spec_cannot_be_compared(f2llm: Run, uri: str) -> None:
    code, _, err = f2llm("runs", uri, "--compare", "base", "othr")
    damaged, _, _ = f2llm("runs", uri, "--compare", "base", "broken")

    assert code == 2
    assert "did you mean `other`?" in err
    assert damaged == 3


def test_a_name_that_is_not_close_to_a_run_lists_the_runs(f2llm: Run, uri: str) -> None:
    code, _, err = f2llm("runs", uri, "--compare", "base", "x")
    place = open_store(uri)
    for number in range(20):
        place.put(f"run-{number:02}/job.yaml", b"kind: EmbeddingJob")
    _, _, many = f2llm("runs", uri, "--compare", "base", "x")

    assert code == 2
    assert "hint: the runs are base, broken, other" in err
    assert "base, broken, other, run-00, run-01, run-02, run-03, run-04, run-05, run-06 and 13 more" in many


def test_prices_that_are_not_there_are_asked_for_as_prices(f2llm: Run, uri: str, tmp_path: Path) -> None:
    code, _, err = f2llm("runs", uri, "--prices", str(tmp_path / "nope.yaml"))
    folder, _, err_of_folder = f2llm("runs", uri, "--prices", str(tmp_path))

    assert code == folder == 3
    assert "nope.yaml: no such file\n  hint: pass the path of a table of GPU prices" in err
    assert "is a directory, expected a file\n  hint: pass the path of a table of GPU prices" in err_of_folder


def test_a_table_of_several_gpus_asks_which_one_was_used(f2llm: Run, uri: str, tmp_path: Path) -> None:
    prices = table(tmp_path, "H100: 2.5\nL4: 0.5")

    unclear, _, err = f2llm("runs", uri, prices)
    chosen, out, _ = f2llm("runs", uri, prices, "--gpu", "L4", "--json")

    assert unclear == 2
    assert "H100, L4" in err
    assert chosen == 0
    assert json.loads(out)["runs"][0]["cost"] == pytest.approx(3.0)


def test_the_page_contains_the_differences_between_the_readable_job_specs(f2llm: Run, uri: str, tmp_path: Path) -> None:
    page = tmp_path / "runs.html"

    code, out, _ = f2llm("runs", uri, "--html", str(page))

    assert code == 0
    assert out.splitlines()[-1] == str(page)
    assert "<td>train.seed</td><td" in page.read_text()


def test_a_directory_without_runs_is_an_error_with_a_hint(f2llm: Run, tmp_path: Path) -> None:
    code, _, err = f2llm("runs", str(tmp_path))

    assert code == 5
    assert "storage.uri" in err
