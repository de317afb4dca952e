"""Train a job spec from this process, on a local Ray or the Ray cluster of RAY_ADDRESS. Needs the extra `train`."""

from collections.abc import Callable

from jobs.spec.diff import changes_from, differences_from
from jobs.spec.job import EmbeddingJob
from ray_app.orchestration.driver import RunResult, run
from ray_app.run_directory.status import RunStatus


def run_job(job: EmbeddingJob, *, stop_after_steps: int | None, on_status: Callable[[RunStatus], None]) -> RunResult:
    """Train a job spec, or resume its run. Raises F2LLMError; the run directory records the error too."""
    return run(
        job.metadata.name,
        job.worker_spec,
        job_spec_yaml=job.to_yaml(),
        differences=lambda frozen: [str(found) for found in differences_from(frozen, job)],
        changes=lambda frozen: [str(found) for found in changes_from(frozen, job)],
        stop_after_steps=stop_after_steps,
        on_status=on_status,
        namespace=job.metadata.namespace,
    )
