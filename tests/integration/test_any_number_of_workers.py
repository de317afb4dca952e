"""The main property of the project, on real DeepSpeed: neither the number of workers nor a kill changes a run.

Undisturbed, killed and stopped runs use `f2llm run` on Ray. Complete runs with other numbers of workers use the same
loop in plain torch.distributed processes, as torchrun would start it: Ray takes a minute to start three workers.
"""

import contextlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_io.dataset.manifest import load_manifest
from data_io.storage.store import open_store
from ray_app.data_order import make_order, select_sources
from ray_app.job_spec import JobSpec
from ray_app.run_directory.evaluation_curve import read_curve
from tests.support.command import Running, f2llm
from tests.support.plain_workers import train_in_processes
from tests.support.runs import finished_steps, losses, saved_step
from tests.support.s3_server import S3Server
from tests.support.small_training import read_lines, small_job_spec, write_job_spec, write_small_dataset

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

STEPS = 40
ROWS = 60 + 21 + 33 + 17


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = open_store(str(tmp_path_factory.mktemp("data")))
    write_small_dataset(store)
    return store.uri


def _job_spec(folder: Path, data: str) -> Path:
    job_spec = small_job_spec(data, str(folder / "runs"))
    job_spec["spec"]["evaluation"] = {"enabled": False}  # a separate process with no effect on the losses
    return write_job_spec(folder / "job.yaml", job_spec)


def _job_spec_in_a_bucket(folder: Path, s3: S3Server) -> tuple[Path, Path]:
    """The same job spec with its data set and its run on the S3 server, and the location of the run's objects."""
    bucket = s3.make_bucket()
    write_small_dataset(open_store(f"s3://{bucket}/data", s3.options))
    job_spec = small_job_spec(f"s3://{bucket}/data", f"s3://{bucket}/runs")
    job_spec["spec"]["evaluation"] = {"enabled": False, "checkpoints": True}
    job_spec["spec"]["storage"]["s3"] = s3.options.model_dump()
    return write_job_spec(folder / "job.yaml", job_spec), s3.folder / bucket / "runs" / "small"


def _planned(data: str) -> list[list[dict[str, Any]]]:
    """The expected record of the whole run, from the plan and the plain Parquet files alone."""
    store = open_store(data)
    spec = JobSpec.model_validate(small_job_spec(data, "unused")["spec"])
    manifest = load_manifest(store)
    sources = select_sources(manifest, spec)
    plan = make_order(manifest, sources, spec)
    hashes = [
        [
            group["query_hash"].to_pylist()
            for shard in manifest.shards(source.name)
            for group in _row_groups(Path(store.uri) / shard.key)
        ]
        for source in sources
    ]
    record = []
    for index in range(STEPS):
        step = plan.step(index)
        parts = []
        for part in step.parts:
            chosen = plan.select_rows(epoch=step.epoch, part=part)
            places = [(selection.row_group, row) for selection in chosen for row in selection.rows]
            queries = [f"{hashes[part.source][group][row]:016x}" for group, row in places]
            parts.append({"source": sources[part.source].name, "queries": queries})
        record.append(parts)
    return record


def _row_groups(path: Path) -> Iterator[pa.Table]:
    file = pq.ParquetFile(path)
    for number in range(file.num_row_groups):
        yield file.read_row_group(number, columns=["query_hash"])


def _assert_whole(run: Path) -> None:
    """Every step once, and every example exactly once per epoch."""
    assert list(losses(run)) == list(range(1, STEPS + 1))
    epochs: dict[int, Counter[str]] = {}
    for line in read_lines(run / "examples.jsonl"):
        used = epochs.setdefault(line["epoch"], Counter())
        used.update(query for part in line["parts"] for query in part["queries"])
    assert len(epochs) == 8
    assert all(len(used) == ROWS and set(used.values()) == {1} for used in epochs.values())


@pytest.fixture(scope="module")
def undisturbed(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One worker, never stopped."""
    folder = tmp_path_factory.mktemp("one")
    done = f2llm("run", _job_spec(folder, data), "--workers", "1", "--quiet")
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "small"


@pytest.mark.parametrize("workers", [2, 3])
def test_losses_do_not_depend_on_the_number_of_workers(
    workers: int, undisturbed: Path, data: str, tmp_path: Path
) -> None:
    train_in_processes(data, tmp_path, workers)

    lines = read_lines(tmp_path / "metrics.jsonl")
    assert {line["workers"] for line in lines} == {workers}
    assert losses(tmp_path) == pytest.approx(losses(undisturbed), rel=1e-4)
    assert {name for line in lines for name in line["sources"]} == {"answers", "echoes", "groups", "parity"}
    assert read_lines(tmp_path / "examples.jsonl") == read_lines(undisturbed / "examples.jsonl")
    _assert_whole(tmp_path)


def test_a_run_killed_twice_resumes_with_other_numbers_of_workers_to_the_same_result(
    undisturbed: Path, data: str, tmp_path: Path, s3: S3Server
) -> None:
    job_spec, run = _job_spec_in_a_bucket(tmp_path, s3)
    moments = random.Random(3)  # the seed makes a failure repeatable

    for workers, kill_at in ((1, moments.randint(8, 14)), (2, moments.randint(22, 28))):
        with Running("run", job_spec, "--workers", str(workers), log=tmp_path / f"{workers}.log") as running:
            running.wait_until(
                lambda step=kill_at: max(finished_steps(run), saved_step(run)) >= step and saved_step(run) > 0
            )
            running.kill_all()
    done = f2llm("run", job_spec, "--workers", "1", "--quiet")

    assert done.returncode == 0, done.stderr
    lines: list[dict[str, Any]] = read_lines(run / "metrics.jsonl")
    resumed = [event["step"] for event in read_lines(run / "events.jsonl") if event["event"] == "Resumed"]
    assert len(resumed) == 2
    assert 7 <= resumed[0] < resumed[1]  # a checkpoint every 7 steps: one was saved, and the resume used it
    used = [line["workers"] for line in lines]
    assert used == [1] * resumed[0] + [2] * (resumed[1] - resumed[0]) + [1] * (STEPS - resumed[1])
    assert losses(run) == pytest.approx(losses(undisturbed), rel=1e-4)
    _assert_whole(run)
    assert [line["parts"] for line in read_lines(run / "examples.jsonl")] == _planned(data)
    # Its checkpoints were evaluated at the same time.
    curve = read_curve(open_store(str(run)))
    best = max(curve, key=lambda each: each.score)
    status = json.loads((run / "status.json").read_text())
    assert curve[-1].step == status["score_step"] == STEPS
    assert (status["best_step"], status["best_score"]) == (best.step, best.score)
    assert f"by f2llm-ray: {best.step} steps" in (run / "best" / "README.md").read_text()
    assert (run / "best" / "files.json").exists()


def test_a_killed_worker_costs_a_restart_and_not_the_run(undisturbed: Path, data: str, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "small"
    with Running("run", _job_spec(tmp_path, data), "--workers", "2", log=tmp_path / "run.log") as running:
        running.wait_until(lambda: finished_steps(run) >= 10 and saved_step(run) > 0)
        running.kill_one("RayTrainWorker")
        code = running.wait()

    assert code == 0, running.output()
    events = read_lines(run / "events.jsonl")
    starts = [event for event in events if event["event"] in ("Started", "Resumed")]
    assert [(event["workers"], event["reason"]) for event in starts] == [(2, "FirstStart"), (2, "Failure")]
    assert "the process of a worker died" in starts[1]["message"]
    status = json.loads((run / "status.json").read_text())
    assert status["restarts_by_reason"] == {"Failure": 1}
    assert [group["step"] for group in status["groups"]] == [0, starts[1]["step"]]
    assert status["steps_lost"] == starts[1]["steps_lost"]
    assert 0 < status["goodput"] < 1
    assert status["source_losses"].keys() == {"answers", "echoes", "groups", "parity"}
    assert status["model_flops_per_second"] > 0
    assert not (run / "exit.json").exists()
    assert losses(run) == pytest.approx(losses(undisturbed), rel=1e-4)
    assert read_lines(run / "examples.jsonl") == read_lines(undisturbed / "examples.jsonl")
    _assert_whole(run)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A run whose job spec has only relative paths, ended by SIGTERM: its directory, its exit code and its output."""
    folder = tmp_path_factory.mktemp("stopped")
    with contextlib.chdir(folder):
        write_small_dataset(open_store("data"))
        shutil.move("data/tokenizer", "tokenizer")  # the only one
        job_spec = small_job_spec("data", "runs", epochs=200)  # the run does not finish
        job_spec["spec"]["model"]["tokenizer"] = "tokenizer"
        job_spec["spec"]["evaluation"] = {"enabled": False}
        job = write_job_spec(Path("job.yaml"), job_spec)
        with Running("run", job, "--workers", "2", log=folder / "run.log") as running:
            running.wait_until(lambda: finished_steps(folder / "runs" / "small") >= 3)
            return folder, running.terminate(), running.output()


def test_sigterm_ends_with_a_checkpoint_of_the_last_step_and_code_143(stopped: tuple[Path, int, str]) -> None:
    folder, code, said = stopped
    run = folder / "runs" / "small"

    saved = [event["step"] for event in read_lines(run / "events.jsonl") if event["event"] == "Checkpointed"]

    assert code == 143
    assert "Traceback" not in said
    assert 3 <= saved[-1] == finished_steps(run)


def test_workers_find_what_a_relative_path_names(stopped: tuple[Path, int, str]) -> None:
    folder, _, _ = stopped

    assert {path.name for path in folder.iterdir()} == {"data", "job.yaml", "run.log", "runs", "tokenizer"}
