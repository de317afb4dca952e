"""Workers join and leave while a run trains, on a cluster of simulated nodes: the model is the same."""

import signal
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from data_io.storage.store import open_store
from ray_app.run_directory.directory import read_status
from ray_app.run_directory.driver_lease import read_driver
from ray_app.run_directory.status import Phase
from tests.support.command import Running
from tests.support.plain_workers import train_in_processes
from tests.support.ray_nodes import RayNodes, ray_nodes
from tests.support.runs import events, finished_steps, lines_so_far, losses
from tests.support.small_training import read_lines, small_job_spec, write_job_spec, write_small_dataset

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]


@pytest.fixture
def nodes() -> Iterator[RayNodes]:
    with ray_nodes() as nodes:
        yield nodes


def test_a_run_that_grows_from_1_to_3_workers_and_is_drained_to_2_and_to_1_has_the_losses_of_1(
    nodes: RayNodes, tmp_path: Path
) -> None:
    data, run, alone = str(tmp_path / "data"), tmp_path / "runs" / "small", tmp_path / "alone"
    write_small_dataset(open_store(data), scale=4)
    # Eight micro-batches per step, which 3 does not divide. At a higher learning rate the last digits of sums,
    # which depend on the order of summing, grow to any size within a hundred steps.
    job_spec = small_job_spec(
        data, str(tmp_path / "runs"), epochs=500, global_batch_size=64, learning_rate=1e-4, min_learning_rate=1e-6
    )
    job_spec["spec"] |= {
        "evaluation": {"enabled": False},
        "checkpoint": {"every": "1000 steps"},
        "workers": {"replicas": 1, "min": 1, "max": 3, "resize_interval_seconds": 5},
    }

    def sizes() -> list[int]:
        return [size for size, _ in groupby(line["workers"] for line in lines_so_far(run / "metrics.jsonl"))]

    nodes.add()
    job = write_job_spec(tmp_path / "job.yaml", job_spec)
    with Running("run", job, log=tmp_path / "run.log", environment=nodes.environment()) as running:
        running.wait_until(lambda: finished_steps(run) >= 3)
        nodes.add()
        nodes.add()
        running.wait_until(lambda: 3 in sizes())
        for size in (2, 1):
            leaving = nodes.drain(nodes.at_work()[0], seconds=60)
            running.wait_until(lambda size=size: sizes()[-1] == size)
            nodes.finish_drain(leaving)
        starts = len(events(run, "Resumed"))
        nodes.kill_worker(nodes.workers()[0], signal.SIGTERM)
        running.wait_until(lambda: len(events(run, "Resumed")) > starts)
        steps = finished_steps(run)
        running.wait_until(lambda: finished_steps(run) >= steps + 5)
        assert running.terminate() == 143, running.output()

    # One node can be ready some seconds before the other.
    assert sizes() in ([1, 3, 2, 1], [1, 2, 3, 2, 1])
    resumed = events(run, "Resumed")
    assert [event["reason"] for event in resumed][-3:] == ["Preemption"] * 3
    assert {event["steps_lost"] for event in resumed} == {0}
    alone.mkdir()
    train_in_processes(data, alone, 1, job_spec, steps=finished_steps(run))
    assert losses(run) == pytest.approx(losses(alone), rel=1e-4)
    assert read_lines(run / "examples.jsonl") == read_lines(alone / "examples.jsonl")


def test_a_run_without_resources_reports_it_and_ends_on_a_signal(nodes: RayNodes, tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "runs" / "small"
    write_small_dataset(open_store(str(data)))
    job_spec = small_job_spec(str(data), str(tmp_path / "runs"))
    job_spec["spec"] |= {"evaluation": {"enabled": False}, "workers": {"replicas": 3, "min": 2}}
    job = write_job_spec(tmp_path / "job.yaml", job_spec)

    nodes.add()
    with Running("run", job, log=tmp_path / "run.log", environment=nodes.environment()) as running:
        running.wait_until(lambda: "waiting for resources for 2 workers" in running.output())
        code = running.terminate(timeout=60)

    status, driver = read_status(open_store(str(run))), read_driver(open_store(str(run)))
    assert code == 143, running.output()
    assert status is not None
    assert status.phase is Phase.STOPPED
    assert driver is not None
    assert driver.released
