"""How an attempt ended."""

from dataclasses import dataclass
from enum import Enum

from data_io.wording import shortened
from jobs.kube.observed import Observed
from ray_app.run_directory.status import Phase


class Result(Enum):
    """SUCCEEDED: the job is done; STOPPED: by request; FAILED: with a reason."""

    SUCCEEDED = "succeeded"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. `retryable`: another attempt may succeed."""

    result: Result
    error_class: str = ""
    reason: str = ""
    message: str = ""
    remedy: str = ""
    retryable: bool = False


_INFRASTRUCTURE = "infrastructure"
# KubeRay's reasons, used if the driver did not report how it ended.
_BY_REASON = {
    "DeadlineExceeded": ("user", False, "the RayJob exceeded its deadline", "raise the deadline"),
    "PreRunningDeadlineExceeded": ("capacity", True, "the pods did not become ready in time", "see `kubectl get pods`"),
    "ValidationFailed": (
        "internal",
        False,
        "KubeRay refused the RayJob",
        "report this, with the output of `f2llm render JOB.yaml`",
    ),
}


def outcome_of(observed: Observed, *, had_ray_job: bool, heartbeat_lost: bool) -> Outcome | None:
    """How the current attempt ended; None if it is in progress or has not started.

    `had_ray_job`: its RayJob existed, so a missing one was deleted. `heartbeat_lost`: contact with its driver is lost.
    """
    if observed.ray_job is None:
        return _failed("RayJobDeleted", "the RayJob was deleted while it was running") if had_ray_job else None
    if not observed.has_ended:
        return (
            _from_driver(observed) or _failed("DriverHeartbeatLost", "lost contact with the driver: no heartbeat")
            if heartbeat_lost
            else None
        )
    status = observed.ray_job.get("status", {})
    if status.get("jobStatus") == "SUCCEEDED":
        return Outcome(Result.SUCCEEDED)
    return _from_driver(observed) or _from_kuberay(observed)


def _from_driver(observed: Observed) -> Outcome | None:
    report = observed.driver_report
    if report is None:
        return None
    if report.failure is not None:
        failure = report.failure
        return Outcome(
            Result.FAILED, failure.error_class, failure.error, failure.message, failure.remedy, failure.retryable
        )
    if report.run.phase is Phase.SUCCEEDED:
        return Outcome(Result.SUCCEEDED)
    return Outcome(Result.STOPPED) if report.run.phase is Phase.STOPPED else None


def _from_kuberay(observed: Observed) -> Outcome:
    status = (observed.ray_job or {}).get("status", {})
    reason, message = status.get("reason") or observed.deployment_status, shortened(status.get("message") or "")
    if any(pod.out_of_memory for pod in observed.pods):
        return Outcome(
            Result.FAILED,
            "capacity",
            "OutOfMemory",
            "a pod exceeded its memory limit",
            "raise spec.cluster.worker.memory (or head.memory), or lower train.micro_batch_size",
            retryable=True,
        )
    if reason in _BY_REASON:
        error_class, retryable, words, remedy = _BY_REASON[reason]
        return Outcome(Result.FAILED, error_class, reason, f"{words}: {message}".rstrip(": "), remedy, retryable)
    return _failed(reason, message or "the driver exited without an error message")


def _failed(reason: str, message: str) -> Outcome:
    remedy = "see `f2llm logs` and `kubectl get events`; the next attempt resumes from the last checkpoint"
    return Outcome(Result.FAILED, _INFRASTRUCTURE, reason, message, remedy, retryable=True)
