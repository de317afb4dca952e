"""How an attempt ended, and what follows from it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from jobs.controller.status import time_of, time_text
from jobs.kube.observed import Observed
from jobs.kube.status import JobStatus
from jobs.manifests.operator_config import OperatorConfig
from ray_app.run_directory.status import Phase


class End(Enum):
    """SUCCEEDED is the job's end; STOPPED was asked for; FAILED has an Ending with the reason."""

    SUCCEEDED = "succeeded"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Ending:
    """`retryable`: another attempt may go better."""

    end: End
    error_class: str = ""
    reason: str = ""
    message: str = ""
    remedy: str = ""
    retryable: bool = False


_LOST = "infrastructure"
# What KubeRay gives as the reason, where the driver itself said nothing of its end.
_BY_REASON = {
    "DeadlineExceeded": ("user", False, "the RayJob ran into its deadline", "raise the deadline"),
    "PreRunningDeadlineExceeded": ("capacity", True, "the pods did not come up in time", "see `kubectl get pods`"),
    "ValidationFailed": ("internal", False, "KubeRay refused the RayJob", "report it with `f2llm render JOB.yaml`"),
}


def ending_of(observed: Observed, *, had_ray_job: bool, silent: bool) -> Ending | None:
    """The end of the attempt under way; None while it goes on, or has not begun.

    `had_ray_job`: its RayJob was there once, so that one that is not there is gone. `silent`: its driver was given up.
    """
    if observed.ray_job is None:
        return _failed("RayJobDeleted", "the RayJob was deleted while it ran") if had_ray_job else None
    if not observed.has_ended:
        return _from_driver(observed) or _failed("NoContact", "the driver is not heard any more") if silent else None
    status = observed.ray_job.get("status", {})
    if status.get("jobStatus") == "SUCCEEDED":
        return Ending(End.SUCCEEDED)
    return _from_driver(observed) or _from_kuberay(observed)


def _from_driver(observed: Observed) -> Ending | None:
    said = observed.driver_report
    if said is None:
        return None
    if said.failure is not None:
        failure = said.failure
        return Ending(
            End.FAILED, failure.error_class, failure.error, failure.message, failure.remedy, failure.retryable
        )
    if said.run.phase is Phase.SUCCEEDED:
        return Ending(End.SUCCEEDED)
    return Ending(End.STOPPED) if said.run.phase is Phase.STOPPED else None


def _from_kuberay(observed: Observed) -> Ending:
    status = (observed.ray_job or {}).get("status", {})
    reason, message = status.get("reason") or observed.deployment_status, status.get("message", "")
    if any(pod.out_of_memory for pod in observed.pods):
        return Ending(
            End.FAILED,
            "capacity",
            "OutOfMemory",
            "a pod used more memory than it may",
            "raise spec.cluster.worker.memory (or head.memory), or lower train.micro_batch_size",
            retryable=True,
        )
    if reason in _BY_REASON:
        error_class, retryable, words, remedy = _BY_REASON[reason]
        return Ending(End.FAILED, error_class, reason, f"{words}: {message}".rstrip(": "), remedy, retryable)
    return _failed(reason, message or "the driver ended without a word")


def _failed(reason: str, message: str) -> Ending:
    remedy = "see `f2llm logs` and `kubectl get events`; the next attempt goes on from the last checkpoint"
    return Ending(End.FAILED, _LOST, reason, message, remedy, retryable=True)


LAST_CHANCE = timedelta(minutes=1)
"""Between noticing a silence and acting on it. Where it was the API server that was away, the driver, which tries every
ten seconds, is heard again within this time.
"""


def listen(
    status: JobStatus, observed: Observed, config: OperatorConfig, *, now: datetime
) -> tuple[JobStatus, float | None]:
    """`status` with `silent_since`, and the seconds until the silence means more: 0 means that the driver is given up,
    None that it has not said its first word yet, or has no pod to say it from.
    """
    if observed.driver_report is None or observed.waits_for_quota:
        return status.model_copy(update={"silent_since": None}), None
    left = observed.driver_report.said + timedelta(seconds=config.contact_timeout_seconds) - now
    if left > timedelta(0):
        return status.model_copy(update={"silent_since": None}), left.total_seconds()
    status = status.model_copy(update={"silent_since": status.silent_since or time_text(now)})
    left = time_of(status.silent_since or "") + LAST_CHANCE - now
    return status, max(0.0, left.total_seconds())
