"""`f2llm ablate` in a separate process: killed and started again, it has the result of an undisturbed study."""

import json
import os
import signal
from pathlib import Path

import pytest

from data_io.storage.store import open_store
from tests.support.command import Running, f2llm
from tests.support.runs import events, losses, saved_step
from tests.support.small_training import small_job_spec, write_job_spec, write_small_dataset
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

RUNS = ["base-seed-0", "off-seed-0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("data"))
    write_small_dataset(open_store(folder))
    return folder


def write_study(folder: Path, data: str) -> Path:
    base = small_job_spec(data, str(folder / "runs"), epochs=20)  # a killed driver's worker continues for seconds
    base["spec"] |= {"evaluation": {"before": False}, "checkpoint": {"every": "2 steps"}}
    study = {
        "apiVersion": "f2llm.dev/v1alpha1",
        "kind": "Study",
        "metadata": {"name": "study"},
        "spec": {
            "base": base,
            "variants": [{"name": "off", "set": {"train.in_batch": "off"}}],
            "seeds": [0],
        },
    }
    return write_job_spec(folder / "study.yaml", study)


def measures(folder: Path) -> dict[str, dict[str, float]]:
    """The results by run, from results.json."""
    found = json.loads((folder / "runs" / "study" / "results.json").read_text())
    return {run["name"]: run["measures"] for variant in found["variants"] for run in variant["runs"]}


def drivers(runs: Path) -> list[int]:
    """Living processes that drive a run below the directory."""
    pids = [json.loads(path.read_text())["pid"] for path in runs.glob("*/driver.json")]
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def test_a_killed_study_has_the_result_of_an_undisturbed_one_and_trains_no_run_twice(data: str, tmp_path: Path) -> None:
    straight, disturbed = tmp_path / "straight", tmp_path / "disturbed"
    for folder in (straight, disturbed):
        folder.mkdir()
    runs = disturbed / "runs" / "study" / "runs"
    done = f2llm("ablate", write_study(straight, data), "--parallel", "2", timeout=900)
    assert done.returncode == 0, done.stderr

    study = write_study(disturbed, data)
    with Running("ablate", study, log=tmp_path / "log") as job:
        job.wait_until(lambda: (runs.parent / "results.json").exists() and saved_step(runs / RUNS[1]))
        job.send(signal.SIGKILL)
        job.wait()
    wait_for(lambda: not drivers(runs), "the runs end with their study")
    finished = [name for name, found in measures(disturbed).items() if found]
    begun = [name for name in RUNS if name not in finished and saved_step(runs / name)]
    written = {name: (runs / name / "metrics.jsonl").stat().st_mtime_ns for name in finished}
    again = f2llm("ablate", study, timeout=900)

    assert again.returncode == 0, again.stderr
    assert finished
    assert begun
    assert f"{len(finished)} of 2 runs finished already" in again.stderr
    assert {name: (runs / name / "metrics.jsonl").stat().st_mtime_ns for name in finished} == written
    assert all(len(events(runs / name, "Started")) == 1 for name in [*finished, *begun])
    assert not any(events(runs / name, "Resumed") for name in finished)
    assert all(events(runs / name, "Resumed") for name in begun)
    for name in RUNS:
        assert losses(runs / name) == pytest.approx(losses(straight / "runs" / "study" / "runs" / name), abs=1e-5)
    assert set(measures(disturbed)) == set(RUNS)
    for name, found in measures(straight).items():
        assert measures(disturbed)[name] == pytest.approx(found, abs=1e-4)
    assert "2 of 2 runs finished already" in f2llm("ablate", study).stderr


def test_a_failed_run_is_named_the_others_continue_and_another_studys_runs_are_refused(
    data: str, tmp_path: Path
) -> None:
    study = write_study(tmp_path, data)
    stranger = tmp_path / "runs" / "study" / "runs" / "off-seed-0" / "notes.txt"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("belongs to no run")

    done = f2llm("ablate", study, "--set", "train.epochs=1")
    other = f2llm("ablate", study, "--set", "train.epochs=1", "--set", "train.weight_decay=0.5")
    measured = f2llm("ablate", study, "--set", "train.epochs=1", "--set", "evaluation.max_queries=3")

    assert done.returncode == 6
    assert "error: off-seed-0 failed: " in done.stderr
    assert "is not empty and has no job.yaml: notes.txt" in done.stderr
    assert [name for name, found in measures(tmp_path).items() if found] == ["base-seed-0"]
    assert (other.returncode, measured.returncode) == (6, 6)
    assert "spec.train.weight_decay: 0.01 in the run, 0.5 here" in other.stderr
    assert "spec.evaluation.max_queries: null in the run, 3 here" in measured.stderr
