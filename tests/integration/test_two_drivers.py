"""Two drivers of one run, as real processes: the second is refused; a suspended one is replaced and exits on waking."""

import re
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from data_io.storage.store import open_store
from ray_app.run_directory.driver_lease import read_driver
from tests.support.command import Running, f2llm
from tests.support.runs import events, finished_steps
from tests.support.small_training import read_lines, small_job_spec, write_job_spec, write_small_dataset

pytestmark = pytest.mark.integration


def test_a_run_has_only_one_driver_even_after_a_suspension(tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "runs" / "small"
    write_small_dataset(open_store(str(data)))
    job_spec = small_job_spec(str(data), str(tmp_path / "runs"), epochs=2000)
    job_spec["spec"] |= {"evaluation": {"enabled": False}, "checkpoint": {"every": "20 steps", "keep": 2}}
    job = write_job_spec(tmp_path / "job.yaml", job_spec)

    with Running("run", job, "--workers", "1", log=tmp_path / "first.log") as first:
        first.wait_until(lambda: finished_steps(run) > 25)
        refused = f2llm("run", job, "--workers", "1", "--quiet")
        assert refused.returncode == 6
        assert "has another driver: process" in refused.stderr
        assert "Traceback" not in refused.stderr

        first.send(signal.SIGSTOP)
        paused = read_driver(open_store(str(run)))
        with Running("run", job, "--workers", "1", log=tmp_path / "second.log") as second:
            second.wait_until(lambda: read_driver(open_store(str(run))) != paused)
            second.wait_until(lambda: len(events(run, "Resumed")) == 1)
            resumed_at = finished_steps(run)
            first.send(signal.SIGCONT)
            assert first.wait() == 6
            # Both the driver's heartbeat and the attempt's own check detect the other driver: either can be first.
            assert re.search("has another driver|was replaced by attempt 2", first.output())

            second.wait_until(lambda: finished_steps(run) > resumed_at + 50)
            assert second.terminate() == 143
    lines = read_lines(run / "metrics.jsonl")
    assert all(after["step"] == before["step"] + 1 for before, after in pairwise(lines))
