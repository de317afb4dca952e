"""The decision: from a stored job and the observed objects to a new status and actions. Pure.

The status records the three states of an attempt, so that an operator can resume after a crash between any two writes:
counted (`attempt` has increased, `active`), in progress (`rayJobUid` is known), closed (not `active`). The status is
written before any action, and each action may run twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jobs.controller.actions import Action, Create, DeleteRayJob, RequestStop
from jobs.controller.driver_heartbeat import check_heartbeat
from jobs.controller.outcome import Outcome, Result, outcome_of
from jobs.controller.scaling import scale
from jobs.controller.status import Refusal, observe, sentence, time_of, time_text, with_conditions
from jobs.errors import ConfigError
from jobs.kube.names import attempt_id, attempt_name
from jobs.kube.observed import Observed
from jobs.kube.resource import job_spec_of
from jobs.kube.status import JobFailure, JobPhase, JobStatus
from jobs.manifests.job import render
from jobs.manifests.operator_config import OperatorConfig
from jobs.spec.job import EmbeddingJob
from jobs.spec.yaml12 import read_yaml

_FROM_THE_START: Mapping[str, Any] = {"message": "", "next_attempt_time": None, "fruitless_attempts": 0}


@dataclass(frozen=True)
class Decision:
    """Write `status`, then execute the actions in order. Reconcile again after `seconds`, unless it is None."""

    status: JobStatus
    actions: tuple[Action, ...] = ()
    seconds: float | None = None


def decide(
    resource: Mapping[str, Any], status: JobStatus, config: OperatorConfig, observed: Observed, *, now: datetime
) -> Decision:
    """Decide the next step of a job. `status` is the status of `resource`."""
    generation, observed = resource["metadata"]["generation"], observed.since_begun()
    job, refusal = _job_spec(resource, config, observed)
    # The problem may be fixed: in the job spec or, if that was refused, in the operator's settings.
    if status.phase is JobPhase.FAILED and (generation != status.observed_generation or status.last_failure is None):
        status = status.model_copy(update={"phase": JobPhase.PENDING, **_FROM_THE_START})
    if job is None:
        status = status.model_copy(update={"observed_generation": generation})
        stays = status.active or status.phase.is_end or status.phase is JobPhase.SUSPENDED
        decision = Decision(status if stays or refusal is None else _refused(status, refusal))
    else:
        status = observe(status, job, observed, generation=generation)
        decision = _Job(job, refusal, resource["metadata"]["uid"], config, observed, now).next_step(status)
    wanted = job.spec.workers.replicas if job else 0
    status = with_conditions(decision.status, observed, wanted=wanted, refusal=refusal, now=now)
    return Decision(status, decision.actions, decision.seconds)


def _job_spec(
    resource: Mapping[str, Any], config: OperatorConfig, observed: Observed
) -> tuple[EmbeddingJob | None, Refusal | None]:
    """The job spec to use, and why no attempt can start with it (None if one can).

    If the stored spec is invalid, this is the job spec of the newest attempt, or None before the first attempt.
    """
    job = None
    try:
        job = job_spec_of(resource)
        config.profiles_of(job.spec.cluster)
    except ConfigError as error:
        refusal = Refusal("InvalidJobSpec", sentence(error.message, error.remedy))
        return job or _started_with(resource, observed), refusal
    if config.tls is not None and (denied := config.tls.denied(job.spec.cluster)):
        return job, Refusal("NotAllowed", sentence(denied, "name another Secret"))
    if denied := config.allowed.denied(job.spec.cluster):
        return job, Refusal(
            "NotAllowed", sentence(denied, "ask an administrator: `jobs.allowed` of the operator's chart")
        )
    return job, Refusal("NameConflict", observed.name_conflict) if observed.name_conflict else None


def _started_with(resource: Mapping[str, Any], observed: Observed) -> EmbeddingJob | None:
    """The job spec of the newest attempt, with the current `suspend`."""
    if not observed.job_spec:
        return None
    try:
        spec = read_yaml(observed.job_spec, "the attempt's job spec").value["spec"]
        return job_spec_of({**resource, "spec": {**spec, "suspend": resource["spec"].get("suspend", False)}})
    except ConfigError:
        return None  # written by an operator version with other rules


@dataclass(frozen=True)
class _Job:
    job: EmbeddingJob
    refusal: Refusal | None
    uid: str
    config: OperatorConfig
    observed: Observed
    now: datetime

    def next_step(self, status: JobStatus) -> Decision:
        if status.active:
            status, left = check_heartbeat(status, self.observed, self.config, now=self.now)
            outcome = outcome_of(self.observed, had_ray_job=bool(status.ray_job_uid), heartbeat_lost=left == 0)
            if outcome is not None:
                return self._close_attempt(status, outcome)
            return _no_later_than(self._continue_attempt(status), left)
        if status.phase.is_end:  # another attempt with the same job spec would end the same way
            return Decision(status)
        if self.observed.ray_job is not None:  # the attempt is closed: the operator died before it deleted the RayJob
            return Decision(status, (DeleteRayJob(attempt_name(self.job.metadata.name, status.attempt)),))
        if self.job.spec.suspend:
            return Decision(self._suspended(status))
        return Decision(_refused(status, self.refusal)) if self.refusal else self._start_when_due(status)

    def _continue_attempt(self, status: JobStatus) -> Decision:
        """An attempt in progress: create its RayJob if missing, stop it if the job is suspended, or scale it."""
        if self.observed.ray_job is None:
            if self.job.spec.suspend:
                return Decision(self._suspended(status.model_copy(update={"active": False})))
            return Decision(status, () if self.refusal else tuple(self._create_objects(status.attempt)))
        if self.job.spec.suspend:
            return self._stop(status)
        if self.refusal or status.stop_requested_time is not None:  # no valid job spec, or the driver is stopping
            return Decision(status)
        counted = time_of(status.started_time or time_text(self.now))
        waited = self.now - (self.now if self.observed.waits_for_quota else self.observed.begun or counted)
        limit = timedelta(seconds=self.config.start_timeout_seconds)
        change = scale(self.job, self.observed, attempt=status.attempt, waited_too_long=waited >= limit)
        left = (limit - waited).total_seconds() if status.phase is JobPhase.STARTING else 0
        return Decision(status, () if change is None else (change,), left if left > 0 else None)

    def _stop(self, status: JobStatus) -> Decision:
        """Stop an attempt after a checkpoint. If it does not train, or takes too long, delete it without one."""
        name = attempt_name(self.job.metadata.name, status.attempt)
        status = status.model_copy(update={"phase": JobPhase.SUSPENDING, "message": "writing a checkpoint"})
        if self.observed.driver_report is None or self.observed.waits_for_quota:
            return Decision(status.model_copy(update={"active": False}), (DeleteRayJob(name),))
        if status.stop_requested_time is None:
            status = status.model_copy(update={"stop_requested_time": time_text(self.now)})
        begun = time_of(status.stop_requested_time or time_text(self.now))
        left = (begun + timedelta(seconds=self.job.spec.cluster.stop_timeout_seconds) - self.now).total_seconds()
        if left <= 0:
            status = status.model_copy(
                update={"active": False, "message": "stopped: no checkpoint within stop_timeout_seconds"}
            )
            return Decision(status, (DeleteRayJob(name),))
        request = attempt_id(self.uid, status.attempt)
        return Decision(status, () if self.observed.stop_request == request else (RequestStop(request),), left)

    def _close_attempt(self, status: JobStatus, outcome: Outcome) -> Decision:
        """An attempt has ended: the job has succeeded, a requested stop, or a failure with or without a retry."""
        status = status.model_copy(
            update={"active": False, "stop_requested_time": None, "heartbeat_missed_since": None}
        )
        if outcome.result is Result.SUCCEEDED:
            return Decision(status.model_copy(update={"phase": JobPhase.SUCCEEDED, "message": ""}))
        delete = DeleteRayJob(attempt_name(self.job.metadata.name, status.attempt))
        if outcome.result is Result.STOPPED or self.job.spec.suspend:
            phase = JobPhase.SUSPENDING if self.job.spec.suspend else JobPhase.PENDING
            return Decision(status.model_copy(update={"phase": phase, "message": "", "eta": ""}), (delete,))
        gained = (status.last_checkpoint_step or 0) > status.checkpoint_at_start
        fruitless = 1 if gained else status.fruitless_attempts + 1
        failure = JobFailure(
            attempt=status.attempt,
            error_class=outcome.error_class,
            reason=outcome.reason,
            message=outcome.message,
            remedy=outcome.remedy,
            time=time_text(self.now),
        )
        status = status.model_copy(update={"last_failure": failure, "fruitless_attempts": fruitless})
        if not outcome.retryable or fruitless > self.job.spec.cluster.max_retries:
            status = status.model_copy(update={"phase": JobPhase.FAILED, "message": outcome.message})
            return Decision(status, (delete,))
        wait = backoff_seconds(self.config, fruitless)
        update = {
            "phase": JobPhase.RETRYING,
            "message": f"attempt {status.attempt} failed: {outcome.message}",
            "next_attempt_time": time_text(self.now + timedelta(seconds=wait)),
        }
        return Decision(status.model_copy(update=update), (delete,), wait)

    def _start_when_due(self, status: JobStatus) -> Decision:
        """The next attempt, once it is due and no pod of an earlier attempt is left that could still write."""
        if self.observed.pods:
            message = f"waiting for pods of an earlier attempt to end: {len(self.observed.pods)} left"
            return Decision(status.model_copy(update={"message": message}))
        due = time_of(status.next_attempt_time) if status.next_attempt_time else self.now
        if (left := (due - self.now).total_seconds()) > 0:
            return Decision(status, (), left)
        update = {
            "attempt": status.attempt + 1,
            "active": True,
            "ray_job_uid": "",
            "ray_cluster": "",
            "started_time": time_text(self.now),
            "next_attempt_time": None,
            "stop_requested_time": None,
            "checkpoint_at_start": status.last_checkpoint_step or 0,
            "phase": JobPhase.STARTING,
            "message": "",
        }
        status = status.model_copy(update=update)
        return Decision(status, tuple(self._create_objects(status.attempt)))

    def _suspended(self, status: JobStatus) -> JobStatus:
        if self.observed.pods:
            message = f"waiting for pods to end: {len(self.observed.pods)} left"
            return status.model_copy(update={"phase": JobPhase.SUSPENDING, "message": message})
        update = {"phase": JobPhase.SUSPENDED, "message": "", "next_attempt_time": None, "fruitless_attempts": 0}
        return status.model_copy(update=update)

    def _create_objects(self, attempt: int) -> list[Action]:
        return list(map(Create, render(self.job, self.config, attempt=attempt, uid=self.uid)))


def _no_later_than(decision: Decision, seconds: float | None) -> Decision:
    """The same decision, with the next reconciliation after at most `seconds`."""
    known = [each for each in (decision.seconds, seconds) if each is not None]
    return Decision(decision.status, decision.actions, min(known, default=None))


def backoff_seconds(config: OperatorConfig, fruitless: int) -> float:
    """The wait before the next attempt. It doubles with each failed attempt in a row, up to a limit."""
    return float(min(config.retry_seconds_most, config.retry_seconds * 2 ** min(fruitless - 1, 30)))


def _refused(status: JobStatus, refusal: Refusal) -> JobStatus:
    """Failed before an attempt. No attempt failed, so `last_failure` is empty."""
    update = {**_FROM_THE_START, "phase": JobPhase.FAILED, "message": refusal.message, "last_failure": None}
    return status.model_copy(update=update)
