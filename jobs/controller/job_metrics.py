"""The metrics of one job: name, description, additional labels, and the source of the value.

Values have three sources: the job's status, its job spec, and the last report of its driver.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from jobs.controller.status import time_of
from jobs.kube.status import JobStatus
from jobs.spec.job import EmbeddingJob
from ray_app.run_directory.status import Reason, RunStatus

Samples = Iterable[tuple[Mapping[str, str], float | None]]
"""(additional labels, value); None if the value is unknown."""


@dataclass(frozen=True)
class Workers:
    """Values of the job spec: worker pods, the fewest with which the job trains, GPUs per pod."""

    wanted: int
    least: int
    gpus: int


@dataclass(frozen=True)
class ObservedJob:
    """One job. `workers` is None if its job spec is invalid, `run` if its driver has not reported."""

    status: JobStatus
    workers: Workers | None
    run: RunStatus | None


@dataclass(frozen=True)
class JobGauge:
    """One metric of a job. `labels` are in addition to `namespace` and `job`."""

    description: str
    samples: Callable[[ObservedJob], Samples]
    labels: tuple[str, ...] = ()


def workers_of(job_spec: EmbeddingJob) -> Workers:
    workers = job_spec.spec.workers
    return Workers(workers.replicas, workers.min or 1, workers.gpus)


def _of_status(description: str, attribute: str) -> JobGauge:
    return JobGauge(description, lambda job: [({}, getattr(job.status, attribute))])


def _of_run(description: str, attribute: str) -> JobGauge:
    return JobGauge(description, lambda job: [({}, getattr(job.run, attribute))] if job.run else [])


def _of_workers(description: str, value: Callable[[JobStatus, Workers], float]) -> JobGauge:
    return JobGauge(description, lambda job: [({}, value(job.status, job.workers))] if job.workers else [])


def _source_losses(job: ObservedJob) -> Samples:
    if job.run is not None:
        yield from (({"source": name}, loss) for name, loss in job.run.source_losses.items())


def _restarts_by_reason(job: ObservedJob) -> Samples:
    """Includes zeros: for Prometheus, a series that starts at 1 has not increased."""
    if job.run is not None:
        yield from (({"reason": each.value}, job.run.restarts_by_reason.get(each, 0)) for each in Reason)


def _last_failure(job: ObservedJob) -> Samples:
    failure = job.status.last_failure
    if failure is not None:
        labels = {"error_class": failure.error_class, "reason": failure.reason}
        yield labels, time_of(failure.time).timestamp()


def _started(job: ObservedJob) -> Samples:
    if job.status.started_time is not None:
        yield {}, time_of(job.status.started_time).timestamp()


def _store_unreachable(job: ObservedJob) -> Samples:
    if job.run is not None and job.run.store_unreachable_since is not None:
        yield {}, job.run.store_unreachable_since.timestamp()


def _last_checkpoint(job: ObservedJob) -> Samples:
    if job.run is not None and job.run.last_checkpoint_time is not None:
        yield {}, job.run.last_checkpoint_time.timestamp()


JOB_GAUGES: Mapping[str, JobGauge] = {
    "f2llm_job_phase": JobGauge(
        "1 for the current phase of the job.", lambda job: [({"phase": job.status.phase.value}, 1)], ("phase",)
    ),
    "f2llm_job_step": _of_status("Completed optimizer steps.", "step"),
    "f2llm_job_total_steps": _of_status("Optimizer steps of the whole job.", "total_steps"),
    "f2llm_job_loss": _of_status("Loss of the last steps.", "loss"),
    "f2llm_job_examples_per_second": _of_status("Examples per second over the last steps.", "examples_per_second"),
    "f2llm_job_tokens_per_second": _of_status("Tokens per second over the last steps.", "tokens_per_second"),
    "f2llm_job_workers": _of_status("Number of ready worker pods.", "ready_replicas"),
    "f2llm_job_attempts": _of_status("Number of attempts so far.", "attempt"),
    "f2llm_job_restarts": _of_status("Restarts of the workers in the newest attempt.", "restarts"),
    "f2llm_job_steps_lost": _of_status("Steps computed again after restarts from an older checkpoint.", "steps_lost"),
    "f2llm_job_last_checkpoint_step": _of_status("Step of the newest checkpoint.", "last_checkpoint_step"),
    "f2llm_job_attempt_started_timestamp_seconds": JobGauge("When the newest attempt started.", _started),
    "f2llm_job_last_failure_timestamp_seconds": JobGauge(
        "When the last failed attempt ended, with the class and name of its error.",
        _last_failure,
        ("error_class", "reason"),
    ),
    "f2llm_job_workers_wanted": _of_workers("Number of worker pods in the job spec.", lambda _, each: each.wanted),
    "f2llm_job_workers_min": _of_workers("Fewest worker pods with which the job trains.", lambda _, each: each.least),
    "f2llm_job_gpus": _of_workers(
        "Number of GPUs of ready worker pods.", lambda status, each: status.ready_replicas * each.gpus
    ),
    "f2llm_job_gpus_wanted": _of_workers(
        "Number of GPUs of all worker pods in the job spec.", lambda _, each: each.wanted * each.gpus
    ),
    "f2llm_job_learning_rate": _of_run("Learning rate of the last step.", "learning_rate"),
    "f2llm_job_data_wait_share": _of_run(
        "Share of the time of the last steps that workers waited for data.", "data_wait_share"
    ),
    "f2llm_job_goodput": _of_run(
        "Share of the training time so far that was spent on steps kept in the result (goodput).", "goodput"
    ),
    "f2llm_job_model_flops_per_second": _of_run(
        "Floating-point operations of the model per second, without recomputation. Divide by the peak of the GPUs for "
        "MFU.",
        "model_flops_per_second",
    ),
    "f2llm_job_score": _of_run(
        "Score of the newest evaluated checkpoint: mean of nDCG@10 and Spearman over the held-out sets.", "score"
    ),
    "f2llm_job_best_score": _of_run(
        "Highest score of an evaluated checkpoint so far; that checkpoint is kept.", "best_score"
    ),
    "f2llm_job_store_retries": _of_run("Retried reads of training data since training started.", "store_retries"),
    "f2llm_job_store_unreachable_timestamp_seconds": JobGauge(
        "When the object store of the run last answered, if that is more than 20 s ago.", _store_unreachable
    ),
    "f2llm_job_last_checkpoint_timestamp_seconds": JobGauge(
        "When the newest checkpoint was completed.", _last_checkpoint
    ),
    "f2llm_job_checkpoint_stall_seconds": _of_run(
        "Seconds for which the newest checkpoint stopped training.", "checkpoint_stall_seconds"
    ),
    "f2llm_job_checkpoint_save_seconds": _of_run(
        "Seconds for writing the newest checkpoint during training.", "checkpoint_save_seconds"
    ),
    "f2llm_job_restarts_by_reason": JobGauge(
        "Restarts of the workers in the newest attempt, by reason.", _restarts_by_reason, ("reason",)
    ),
    "f2llm_job_source_loss": JobGauge(
        "Loss of each source in the last step that used it.", _source_losses, ("source",)
    ),
}
