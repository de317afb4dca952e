"""`f2llm status`: the state of a run, or of a job on a cluster."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_io.wording import counted
from jobs.cli.options import ClusterOptions, Debug, Json, print_json, s3_options, takes
from jobs.cli.output import summary as failure_text
from jobs.extras import needs
from jobs.formatting import duration, numbers

if TYPE_CHECKING:
    from data_io.data_spec import S3Options
    from jobs.kube.api import KubeApi
    from ray_app.run_directory.status import RunStatus


@takes(s3_options)
@takes(ClusterOptions)
def status(
    options: ClusterOptions,
    s3: "S3Options",
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Run directory (a path or s3://bucket/prefix), or the name of a job on a cluster.",
            show_default=False,
        ),
    ],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print the state of a run, or of a job on a cluster."""
    from jobs.errors import ConfigError
    from jobs.spec.fields import JOB_NAME_PATTERN

    if re.fullmatch(JOB_NAME_PATTERN, run) and not Path(run).exists():
        try:
            with needs("cluster"):
                from jobs.kube.api import connect
            api = connect(options.kubeconfig, options.context, options.namespace)
        except ConfigError:  # no cluster is configured, so RUN is a run directory
            if options.given:
                raise
        else:
            _status_of_job(api, run, json=json)
            return
    with needs("data"):
        from jobs.workflows.runs import last_heartbeat, read_exit_record, read_status
    found, failure = read_status(run, s3), read_exit_record(run, s3)
    now = datetime.now(UTC)
    stale = found.stale_seconds(heartbeat=last_heartbeat(run, s3), now=now)
    if stale is not None:
        found = found.model_copy(update={"eta_seconds": None})  # the run does not progress
    if json:
        ended = failure and failure.model_dump(mode="json")
        print_json({**found.model_dump(mode="json"), "stale_seconds": stale, "exit": ended})
        return
    lines = status_lines(found, stale_seconds=stale, now=now)
    for label, text in [*lines, *(failure_text.status_lines(failure) if failure else [])]:
        print(f"{label:<12}{text}")
    for line in failure_text.log_lines(failure) if failure else []:
        print(line)


def _status_of_job(api: "KubeApi", name: str, *, json: bool) -> None:
    from jobs.cli.output.kubernetes import summary
    from jobs.kube.client import JobsClient

    job = JobsClient(api).get(name)
    if json:
        print_json(job.get("status", {}))
        return
    for line in summary(job):
        print(line)


def status_lines(found: "RunStatus", *, stale_seconds: float | None, now: datetime) -> list[tuple[str, str]]:
    """Labels with texts. `stale_seconds` is the time since the last heartbeat of the driver; None if it is recent."""
    phase = f"{found.phase.value}{f': {found.message}' if found.message else ''}"
    if stale_seconds is not None:
        phase = f"{found.phase.value}, but {found.heartbeat_message(stale_seconds)}"
    lines = [
        ("run", found.name),
        ("phase", phase),
        ("progress", "  ".join(numbers(found)) if found.total_steps else "not started"),
        ("workers", f"{found.workers}; attempt {found.attempt}, {counted(found.steps_lost, 'recomputed step')}"),
    ]
    if found.worker_slowness and (most := max(found.worker_slowness)) > 1.2:
        lines.append(
            ("slowest", f"worker {found.worker_slowness.index(most)}, {most:.1f} times the median time per token")
        )
    if found.restarts_by_reason:
        lines.append(("restarts", ", ".join(f"{n} {reason}" for reason, n in found.restarts_by_reason.items())))
    if found.goodput is not None:
        lines.append(("goodput", f"{found.goodput:.0%} of {duration(found.training_seconds)} of training"))
    lines.append(("checkpoint", _checkpoint_text(found, now)))
    if found.score is not None and found.best_score is not None:
        best = f"best {found.best_score:.4f} at step {found.best_step}"
        lines.append(("score", f"{found.score:.4f} at step {found.score_step}, {best}"))
    if found.seconds:
        lines.append(("time", ", ".join(f"{phase} {duration(spent)}" for phase, spent in found.seconds.items())))
    return [*lines, ("updated", f"{found.updated:%Y-%m-%d %H:%M:%S} UTC")]


def _checkpoint_text(found: "RunStatus", now: datetime) -> str:
    if found.last_checkpoint_step is None:
        return "none yet"
    pieces = [f"step {found.last_checkpoint_step}"]
    if found.last_checkpoint_time is not None:
        age = max(0.0, (now - found.last_checkpoint_time).total_seconds())
        pieces.append(f"{duration(age)} old")
    if found.checkpoint_save_seconds is not None and found.checkpoint_stall_seconds is not None:
        pieces += [
            f"written in {found.checkpoint_save_seconds:.1f} s",
            f"training blocked for {found.checkpoint_stall_seconds:.2f} s",
        ]
    return ", ".join(pieces)
