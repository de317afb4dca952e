"""A worker is stopped in the middle of a step: the run detects it, reports it, and continues with the same result."""

import signal
from pathlib import Path

import pytest

from data_io.storage.store import open_store
from tests.support.command import Running
from tests.support.plain_workers import train_in_processes
from tests.support.runs import finished_steps, losses, saved_step
from tests.support.small_training import read_lines, small_job_spec, write_job_spec, write_small_dataset

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

STEPS = 40


def test_a_worker_that_hangs_is_detected_and_restarted_and_the_losses_stay_the_same(tmp_path: Path) -> None:
    data, run, undisturbed = str(tmp_path / "data"), tmp_path / "runs" / "small", tmp_path / "undisturbed"
    write_small_dataset(open_store(data))
    undisturbed.mkdir()
    job_spec = small_job_spec(data, str(tmp_path / "runs"))
    job_spec["spec"] |= {"evaluation": {"enabled": False}, "workers": {"replicas": 2, "hang_timeout_seconds": 8}}

    with Running("run", write_job_spec(tmp_path / "job.yaml", job_spec), log=tmp_path / "run.log") as running:
        running.wait_until(lambda: finished_steps(run) >= 10 and saved_step(run) > 0)
        running.kill_one("RayTrainWorker", signal.SIGSTOP)
        code = running.wait()

    assert code == 0, running.output()
    events = {event["event"]: event for event in read_lines(run / "events.jsonl")}
    hang = events["Hang"]
    (stopped,) = hang["workers"]
    assert f"worker {stopped} does not answer" in hang["message"]
    assert hang["seconds"] >= hang["limit_seconds"] == 8
    folder = (run / hang["stacks"][0]).parent
    texts = [(folder / f"worker-{rank}.txt").read_text(encoding="utf-8") for rank in (0, 1)]
    assert "No answer: " in texts[stopped]
    assert (
        "ray_app/training/loop.py" in texts[1 - stopped].split("\n\n")[1]
    )  # the loop's thread, which waits for the other worker, comes first
    resumed = events["Resumed"]
    assert (resumed["workers"], resumed["reason"], resumed["rank"]) == (2, "Failure", stopped)
    assert (resumed["error_class"], resumed["message"]) == ("infrastructure", hang["message"])
    train_in_processes(data, undisturbed, 1)
    assert list(losses(run)) == list(range(1, STEPS + 1))
    assert losses(run) == pytest.approx(losses(undisturbed), rel=1e-4)
    assert read_lines(run / "examples.jsonl") == read_lines(undisturbed / "examples.jsonl")
