"""A run directory with every file that a run can have, and its data set."""

from datetime import UTC, datetime
from pathlib import Path

from data_io.dataset.manifest import load_manifest
from data_io.storage.store import open_store
from jobs.cli.app import call
from jobs.spec.job import parse_job_spec
from jobs.spec.yaml12 import RawSpec
from ray_app.errors import TrainingError
from ray_app.reporting.run_record import save_data_facts
from ray_app.run_directory.attempts import begin_attempt
from ray_app.run_directory.directory import JOB_SPEC
from ray_app.run_directory.driver_lease import LEASE, Driver
from ray_app.run_directory.evaluation_curve import CURVE, MeasuredCheckpoint
from ray_app.run_directory.exit_record import Failure, exit_record, write_exit_record
from ray_app.run_directory.status import Phase, RunStatus
from ray_app.run_directory.task_report import RESULTS, SUMMARY, TaskReport, TaskScore
from tests.support.plain_workers import train_this_rank
from tests.support.small_training import small_job_spec, write_small_dataset
from tests.support.written_runs import write_run


def write_finished_run(folder: Path) -> tuple[Path, Path]:
    """The run directory of a run that failed after 4 steps, and the directory of its data set, both in `folder`.

    Needs the process group of one process.
    """
    data, runs = folder / "data", folder / "runs"
    write_small_dataset(open_store(str(data)))
    spec = small_job_spec(str(data), str(runs), name="small", record_examples=True)
    spec["spec"]["checkpoint"] = {"every": "2 steps", "keep": 2}
    run = open_store(str(runs / "small"))
    train_this_rank(spec["spec"], open_store(str(data)), run, steps=4)
    trained = {name: (runs / "small" / name).read_bytes() for name in ("metrics.jsonl", "events.jsonl")}
    write_run(run, steps=4, phase=Phase.FAILED)
    run.put(JOB_SPEC, parse_job_spec(RawSpec("job.yaml", spec)).to_yaml().encode())
    for name, content in trained.items():
        (runs / "small" / name).write_bytes(content)
    now = datetime.now(UTC)
    curve = MeasuredCheckpoint(step=4, attempt=1, score=0.5, sets={"held-out": 0.5}, seconds=1.0, time=now)
    run.put(CURVE, curve.model_dump_json().encode() + b"\n")
    begin_attempt(run, 1, 0)
    run.put(LEASE, Driver.of_this_process().model_copy(update={"released": True}).model_dump_json().encode())
    status = RunStatus(name="small", step=4, total_steps=40)
    write_exit_record(run, exit_record(Failure(TrainingError("lost", remedy="wait")), status, driver_log=("a", "b")))
    task = TaskScore(name="T", type="STS", metric="spearman", benchmark=None, score=0.5)
    report = TaskReport(model="small", revision="1", dimensions=None, results="x", tasks=(task,))
    run.put(f"{RESULTS}/{SUMMARY}", report.model_dump_json().encode())
    run.put("logs/1/driver.log", b"a line\n")
    save_data_facts(run, load_manifest(open_store(str(data))))
    assert call(["export", str(runs / "small")]) == 0
    return runs / "small", data
