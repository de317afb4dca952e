"""The status of a job from the observed objects. Pure: the time is an argument."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jobs.formatting import duration
from jobs.kube.names import worker_selector
from jobs.kube.observed import Observed
from jobs.kube.status import Condition, ConditionType, JobPhase, JobStatus
from jobs.spec.job import EmbeddingJob
from ray_app.run_directory.status import Phase, RunStatus

_PHASES: Mapping[Phase, JobPhase] = {
    Phase.PREPARING: JobPhase.STARTING,
    Phase.EVALUATING_BEFORE: JobPhase.EVALUATING,
    Phase.TRAINING: JobPhase.TRAINING,
    Phase.EVALUATING_AFTER: JobPhase.EVALUATING,
}


def observe(status: JobStatus, job: EmbeddingJob, observed: Observed, *, generation: int) -> JobStatus:
    """`status` with the observed numbers and phase. It neither counts nor closes attempts, and keeps a phase that was
    decided (Suspending, Retrying, Succeeded, Failed).
    """
    changes: dict[str, Any] = {
        "observed_generation": generation,
        "selector": worker_selector(job.metadata.name),
        "run_uri": job.run_uri,
        **_pods(status, observed),
    }
    if observed.driver_report is not None:
        changes |= _numbers(observed.driver_report.run)
    if observed.ray_job is not None and status.active:
        changes["ray_job_uid"] = observed.ray_job["metadata"]["uid"]
        changes["ray_cluster"] = observed.ray_job.get("status", {}).get("rayClusterName", "")
    status = status.model_copy(update=changes)
    if status.active and status.phase not in (JobPhase.SUSPENDING, JobPhase.SUCCEEDED, JobPhase.FAILED):
        phase, message = _phase(status.phase, observed)
        status = status.model_copy(update={"phase": phase, "message": message})
    if status.phase is not JobPhase.TRAINING:
        status = status.model_copy(update={"eta": ""})
    return status


@dataclass(frozen=True)
class Refusal:
    """Why no attempt can start: InvalidJobSpec, NotAllowed by the operator's settings, or NameConflict."""

    reason: str
    message: str


def with_conditions(
    status: JobStatus, observed: Observed, *, wanted: int, refusal: Refusal | None, now: datetime
) -> JobStatus:
    """The status with its conditions, which follow from its other fields. `lastTransitionTime` changes with `status`.

    `wanted` is the requested number of workers. `refusal` is None if an attempt can start.
    """
    made = []
    for each in _judgments(status, observed, wanted, refusal):
        before = status.condition(each.kind)
        since = before.last_transition_time if before and before.status == each.status else time_text(now)
        made.append(
            Condition(
                type=each.kind,
                status=each.status,
                reason=each.reason,
                message=each.message,
                observed_generation=status.observed_generation,
                last_transition_time=since,
            )
        )
    return status.model_copy(update={"conditions": tuple(made)})


def time_text(moment: datetime) -> str:
    """The format of times in Kubernetes: UTC, in seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


@dataclass(frozen=True)
class _Judgment:
    kind: ConditionType
    status: str
    reason: str
    message: str = ""


def _judgments(status: JobStatus, observed: Observed, wanted: int, refusal: Refusal | None) -> Iterator[_Judgment]:
    phase = status.phase
    if refusal:
        yield _Judgment(ConditionType.ACCEPTED, "False", refusal.reason, refusal.message)
    else:
        yield _Judgment(ConditionType.ACCEPTED, "True", "Valid")
    if status.active and observed.waits_for_quota:
        yield _Judgment(ConditionType.QUEUED, "True", "WaitingForQuota", "Kueue has not admitted the RayJob yet")
    else:
        yield _Judgment(ConditionType.QUEUED, "False", "Admitted" if status.attempt else "NotStarted")
    if status.active and observed.cluster_is_ready:
        yield _Judgment(ConditionType.CLUSTER_READY, "True", "PodsReady", f"{status.ready_replicas} workers")
    else:
        reason = "PodsPending" if observed.pods else "NoPods"
        yield _Judgment(ConditionType.CLUSTER_READY, "False", reason, observed.trouble)
    yield _storage(status, observed)
    trains = phase is JobPhase.TRAINING and status.step > 0
    yield _Judgment(ConditionType.TRAINING, str(trains), "StepsFlow" if trains else phase.value)
    if status.last_checkpoint_step is None:
        yield _Judgment(ConditionType.CHECKPOINTED, "False", "NoCheckpoint")
    else:
        yield _Judgment(ConditionType.CHECKPOINTED, "True", "CheckpointWritten", f"step {status.last_checkpoint_step}")
    yield _degraded(status, wanted, observed.admitted_workers)
    yield _Judgment(ConditionType.SUCCEEDED, str(phase is JobPhase.SUCCEEDED), phase.value)
    failure = status.last_failure
    if phase is JobPhase.FAILED and failure is not None:
        yield _Judgment(ConditionType.FAILED, "True", failure.reason, sentence(failure.message, failure.remedy))
    elif phase is JobPhase.FAILED and refusal is not None:
        yield _Judgment(ConditionType.FAILED, "True", refusal.reason, refusal.message)
    else:
        yield _Judgment(ConditionType.FAILED, "False", phase.value)


def _storage(status: JobStatus, observed: Observed) -> _Judgment:
    """The driver's probe of the object store at its start, unless the last failure is a storage error."""
    kind, failure = ConditionType.STORAGE_READY, status.last_failure
    if (
        failure is not None
        and failure.error_class == "storage"
        and status.phase in (JobPhase.RETRYING, JobPhase.FAILED)
    ):
        return _Judgment(kind, "False", failure.reason, failure.message)
    run = observed.driver_report.run if observed.driver_report else None
    if run is not None and run.store_unreachable_since is not None:
        return _Judgment(kind, "False", "NotAnswering", _store_not_answering(run.store_unreachable_since))
    if run is not None and run.store:
        return _Judgment(kind, "True", "StoreProbed", run.store)
    before = status.condition(kind)
    if before is not None and before.status == "True":
        return _Judgment(kind, "True", before.reason, before.message)
    return _Judgment(kind, "Unknown", "NotProbed")


def _degraded(status: JobStatus, wanted: int, admitted: int | None) -> _Judgment:
    failure = status.last_failure
    if status.phase is JobPhase.RETRYING and failure is not None:
        return _Judgment(ConditionType.DEGRADED, "True", "Retrying", failure.message)
    if status.heartbeat_missed_since is not None:
        message = f"lost contact with the driver: no heartbeat; missing since {status.heartbeat_missed_since}"
        return _Judgment(ConditionType.DEGRADED, "True", "DriverHeartbeatLost", message)
    if status.phase is JobPhase.TRAINING and status.ready_replicas < wanted:
        message = f"{status.ready_replicas} of {wanted} workers are ready; training continues with these"
        if admitted is not None and admitted < wanted:
            message += f". Kueue admitted {admitted}: suspend and resume the job to ask for more"
        return _Judgment(ConditionType.DEGRADED, "True", "FewerWorkers", message)
    return _Judgment(ConditionType.DEGRADED, "False", "AsWanted")


def _phase(before: JobPhase, observed: Observed) -> tuple[JobPhase, str]:
    """(phase, message) of an attempt in progress."""
    if observed.waits_for_quota:
        return JobPhase.QUEUED, "waiting for quota"
    run = observed.driver_report.run if observed.driver_report else None
    if run is not None and run.phase in _PHASES:
        phase = _PHASES[run.phase]
        if run.store_unreachable_since is not None:
            return phase, _store_not_answering(run.store_unreachable_since)
        return phase, (observed.trouble if phase is JobPhase.STARTING else "") or run.message
    if run is not None and run.phase.is_end:
        return before, "the run has ended; waiting for its pods to end"
    return JobPhase.STARTING, observed.trouble or "waiting for the pods"


def _store_not_answering(since: datetime) -> str:
    return f"the store has not answered since {time_text(since)}"


def _pods(status: JobStatus, observed: Observed) -> dict[str, int]:
    workers = observed.workers(status.attempt) if status.active else []
    return {"replicas": len(workers), "ready_replicas": sum(pod.ready for pod in workers)}


def _numbers(run: RunStatus) -> dict[str, Any]:
    """The numbers of a driver's report. A driver that has just started does not know those of its predecessor yet."""
    if not run.total_steps:
        return {"workers": run.workers}
    known = {} if run.last_checkpoint_step is None else {"last_checkpoint_step": run.last_checkpoint_step}
    return {
        **known,
        "step": run.step,
        "total_steps": run.total_steps,
        "progress": f"{run.step / run.total_steps:.0%}" if run.total_steps else "",
        "epoch": round(run.epoch, 2),
        "loss": None if run.loss is None else round(run.loss, 4),
        "examples_per_second": _rounded(run.examples_per_second),
        "tokens_per_second": _rounded(run.tokens_per_second),
        "eta": "" if run.eta_seconds is None else duration(run.eta_seconds),
        "workers": run.workers,
        "restarts": run.restarts,
        "steps_lost": run.steps_lost,
    }


def _rounded(value: float | None) -> float | None:
    """Rounded to three significant digits: the others change with every step and carry no information."""
    return None if value is None else float(f"{value:.3g}")


def sentence(message: str, remedy: str | None) -> str:
    """The message and the remedy as one sentence."""
    return f"{message}; {remedy}" if remedy else message
