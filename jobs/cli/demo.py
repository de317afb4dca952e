"""`f2llm demo`: a small training run on this machine, in minutes and offline."""

from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from jobs.cli.options import Debug, Json, Quiet, Set, Steps, Workers, workers_override
from jobs.cli.output.text import say, say_nothing
from jobs.cli.plan import plan_of
from jobs.cli.run import train_job_spec
from jobs.extras import needs


def demo(
    directory: Annotated[
        Path, typer.Option("--dir", help="Directory for the run (DIR/demo) and its data set (DIR/data).")
    ] = Path("runs"),
    workers: Workers = None,
    steps: Steps = None,
    set_: Set = None,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a small model on this machine, in minutes and offline.

    The training texts are the documentation that is installed on this machine. The evaluation compares the model with
    BM25. Halfway, the workers stop and new workers resume from the checkpoint. Results: the run in DIR/demo, its job
    spec in DIR/demo/job.yaml, the data set in DIR/data.
    """
    from jobs.spec.demo import demo_job

    with needs("data"):
        from jobs.workflows.data import prepare_documentation
        from jobs.workflows.runs import read_stored_job_spec
    job_spec = demo_job(directory, overrides=[*(set_ or ()), *workers_override(workers)])
    started = monotonic()
    tell = say_nothing if quiet else say
    prepare_documentation(job_spec.spec.data.uri, job_spec.spec.storage.s3, say=tell)
    data_seconds = monotonic() - started
    stops = [steps]
    if steps is None and not read_stored_job_spec(job_spec.run_uri, job_spec.spec.storage.s3):
        total = plan_of(job_spec).total_steps
        stops = [total // 2, None]
        tell(f"training to step {total // 2} of {total}, then new workers resume from the checkpoint, as after a crash")
    train_job_spec(job_spec, stops=stops, quiet=quiet, json=json, data_seconds=data_seconds)
