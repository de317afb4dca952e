"""Read a run directory. Needs the extra `data`; loads neither torch nor Ray."""

from datetime import datetime

from data_io.data_spec import S3Options
from data_io.errors import NotFoundInStore
from data_io.storage.store import open_store
from jobs.errors import UsageError
from jobs.spec.diff import differences_from
from jobs.spec.job import EmbeddingJob, apply_overrides, parse_job_spec
from jobs.spec.yaml12 import read_yaml
from ray_app.run_directory import directory, driver_lease, evaluation_report, exit_record
from ray_app.run_directory.directory import LINES_BYTES, read_text
from ray_app.run_directory.evaluation_curve import read_scores
from ray_app.run_directory.evaluation_report import EvaluationReport, Moment
from ray_app.run_directory.exit_record import ExitRecord
from ray_app.run_directory.status import RunStatus
from ray_app.run_directory.task_report import RESULTS, SUMMARY, TaskReport

RUN_HINT = "pass a run directory: <storage.uri>/<metadata.name>, for example runs/demo"


def read_status(run_uri: str, s3: S3Options) -> RunStatus:
    """The status of a run. Raises NotFoundInStore if there is no run, or if its status is damaged."""
    run = open_store(run_uri, s3)
    status = directory.read_status(run)
    if status is None and run.exists("status.json"):
        raise NotFoundInStore(
            f"{run_uri}/status.json is damaged: it is not the status of a run",
            remedy="resume the run with `f2llm run`, which writes the file again",
        )
    if status is None:
        raise NotFoundInStore(f"no run at {run_uri}: it has no status.json", remedy=RUN_HINT)
    # Workers write the status. Another process evaluates checkpoints and writes the scores.
    return status.model_copy(update=read_scores(run))


def last_heartbeat(run_uri: str, s3: S3Options) -> datetime | None:
    """The last heartbeat of the driver, which renews its lease every few seconds; None without a lease."""
    return driver_lease.last_heartbeat(open_store(run_uri, s3))


def read_exit_record(run_uri: str, s3: S3Options) -> ExitRecord | None:
    """The failure of a run; None if it has not failed."""
    return exit_record.read_exit_record(open_store(run_uri, s3))


def read_log(run_uri: str, s3: S3Options, *, process: str) -> list[str]:
    """The log of `driver` or `worker-<rank>`, from the last start of the run that has one.

    Raises NotFoundInStore if there is no such log. Its remedy lists the processes that have a log.
    """
    run = open_store(run_uri, s3)
    logs = [info.key for info in run.list("logs") if info.key.endswith(".log")]  # logs/<start>/<process>.log
    newest = max((key for key in logs if key.endswith(f"/{process}.log")), default=None)
    if newest is None:
        known = sorted({key.rpartition("/")[2].removesuffix(".log") for key in logs})
        found = f"logs exist for {', '.join(known)}" if known else "a process that is killed leaves no log"
        raise NotFoundInStore(f"{run_uri}/logs has no log of {process}", remedy=found)
    return read_text(run, newest, most=LINES_BYTES).splitlines()


def read_stored_job_spec(run_uri: str, s3: S3Options) -> str:
    """job.yaml of a run directory; empty if there is no run."""
    return read_text(open_store(run_uri, s3), "job.yaml")


def check_run_directory(job: EmbeddingJob) -> None:
    """Raises RunConflict if `f2llm run` would refuse to train the job spec in its run directory. Changes nothing."""
    directory.check_claim(
        open_store(job.run_uri, job.spec.storage.s3),
        lambda frozen: [str(found) for found in differences_from(frozen, job)],
    )


def job_spec_of(run_uri: str, data: str | None, s3: S3Options) -> EmbeddingJob:
    """The job spec of a run, with `data` as the path of its data set. Raises NotFoundInStore if there is no run."""
    found = find_job_spec(run_uri, data, s3)
    if found is None:
        raise NotFoundInStore(f"no run at {run_uri}: it has no job.yaml", remedy=RUN_HINT)
    return found


def find_job_spec(run_uri: str, data: str | None, s3: S3Options) -> EmbeddingJob | None:
    """As `job_spec_of`, but None if there is no run."""
    frozen = read_stored_job_spec(run_uri, s3)
    if not frozen:
        return None
    moved = [f"data.uri={data}"] if data else []
    given = {name: value for name, value in s3.model_dump().items() if value}
    reached = [f"storage.s3.{name}={value}" for name, value in given.items()]
    return parse_job_spec(apply_overrides(read_yaml(frozen, f"{run_uri}/job.yaml"), [*moved, *reached]))


def check_results_place(place: str, s3: S3Options, *, out: str | None, before: bool) -> None:
    """Raises UsageError if tasks cannot be evaluated because a model outside a run has no place for results (`out` is
    None), or has no state before training. Loads no model.
    """
    if (out is not None and not before) or read_stored_job_spec(place, s3):
        return
    if before:
        raise UsageError(f"--before needs a run directory, and {place} has no job.yaml", remedy="pass a run directory")
    raise UsageError(f"{place} is not a run directory, so there is no default output", remedy="add --out DIR")


def read_evaluation(run_uri: str, s3: S3Options, *, moment: Moment) -> EvaluationReport | None:
    """The evaluation before or after training; None if it does not exist. Raises DataError if it is damaged."""
    return evaluation_report.read_evaluation(open_store(run_uri, s3), moment)


def read_task_report(run_uri: str, s3: S3Options) -> TaskReport | None:
    """The last evaluation on tasks; None if it does not exist. Raises DataError if it is damaged."""
    return evaluation_report.read_record(open_store(run_uri, s3), f"{RESULTS}/{SUMMARY}", TaskReport)
