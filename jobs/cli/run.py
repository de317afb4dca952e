"""`f2llm run`: train on this machine, or on the Ray cluster of RAY_ADDRESS."""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from data_io.errors import F2LLMError, StorageError
from jobs.cli.options import Debug, JobPath, Json, Quiet, Set, Steps, Workers, print_json, workers_override
from jobs.cli.output import summary as failure_text
from jobs.cli.output.progress import progress
from jobs.cli.output.summary import print_summary, summary, time_split
from jobs.cli.output.text import say
from jobs.cli.plan import plan_of, print_plan
from jobs.extras import needs
from jobs.kube.driver_reporter import driver_reporting

if TYPE_CHECKING:
    from jobs.spec.job import EmbeddingJob
    from ray_app.run_directory.status import RunStatus


def run(
    job: JobPath,
    workers: Workers = None,
    steps: Steps = None,
    set_: Set = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check the job spec, the data set and the run directory. Start nothing."),
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train on this machine, or resume an interrupted run.

    If RAY_ADDRESS is set, the workers run on that Ray cluster. On Ctrl-C or SIGTERM the run writes a checkpoint and
    exits with code 130 or 143. Run the same command again to resume.
    """
    from jobs.spec.job import load_job_spec

    job_spec = load_job_spec(job, overrides=[*(set_ or ()), *workers_override(workers)])
    if dry_run:
        answer = plan_of(job_spec)
        with needs("data"):
            from jobs.workflows.data import check_tokenizer
            from jobs.workflows.runs import check_run_directory
        check_tokenizer(job_spec)
        check_run_directory(job_spec)
        if json:
            print_json({"job_spec": job_spec.to_dict(), "plan": answer.to_dict()})
        else:
            print_plan(answer)
            print("dry run: nothing was started")
        return
    train_job_spec(job_spec, stops=[steps], quiet=quiet, json=json, data_seconds=None)


def train_job_spec(
    job_spec: "EmbeddingJob", *, stops: list[int | None], quiet: bool, json: bool, data_seconds: float | None
) -> None:
    """Train up to each stop in turn, each time with a new start. None is the end of the training."""
    with needs("data"):
        from jobs.workflows.runs import read_evaluation, read_task_report
    with needs("train", quiet=False):
        from jobs.workflows.training import run_job
    s3 = job_spec.spec.storage.s3
    for stop in stops:
        try:
            with progress(sys.stderr, quiet=quiet) as show, driver_reporting() as publish:

                def on_status(status: "RunStatus") -> None:
                    show(status)
                    publish(status)

                result = run_job(job_spec, stop_after_steps=stop, on_status=on_status)
        except F2LLMError as error:
            _explain(error, job_spec)
            raise
        if result.signal is not None:
            break
    facts = summary(
        result.status,
        run_uri=job_spec.run_uri,
        before=read_evaluation(job_spec.run_uri, s3, moment="before"),
        after=read_evaluation(job_spec.run_uri, s3, moment="after"),
        tasks=read_task_report(job_spec.run_uri, s3) if job_spec.worker_spec.evaluation.measures_tasks else None,
        split=time_split(result.status.seconds, data_seconds=data_seconds),
    )
    if json:
        print_json(facts)
    else:
        print_summary(facts)
    if result.signal is not None:
        raise typer.Exit(128 + result.signal)


def _explain(error: F2LLMError, job_spec: "EmbeddingJob") -> None:
    """Print the place and the logs of an error, from the run directory."""
    with needs("data"):
        from jobs.workflows.runs import read_exit_record
    record = None
    with suppress(StorageError):
        record = read_exit_record(job_spec.run_uri, job_spec.spec.storage.s3)
    if record is not None and record.message == error.message:
        logs = [] if error.error_class in ("user", "data") else failure_text.log_lines(record)
        for line in [*logs, f"failed: {failure_text.place_of(record)}"]:
            say(line)
