"""Events for `kubectl describe`: one per change of phase, and one per action that is relevant for people."""

from collections.abc import Iterator, Sequence

from jobs.controller.actions import Action, Create, EmitEvent, Scale
from jobs.kube.status import ConditionType, JobPhase, JobStatus

_TROUBLE = (JobPhase.RETRYING, JobPhase.FAILED)


def events(before: JobStatus, after: JobStatus, actions: Sequence[Action]) -> Iterator[EmitEvent]:
    """The Events of a decision that leads from one status to the next."""
    if after.phase is not before.phase:
        yield EmitEvent("Warning" if after.phase in _TROUBLE else "Normal", after.phase.value, _note(after))
    refusal = after.condition(ConditionType.ACCEPTED)
    if refusal and refusal.status == "False" and refusal != before.condition(ConditionType.ACCEPTED):
        yield EmitEvent("Warning", refusal.reason, refusal.message)
    if (trouble := _trouble(after)) and not _trouble(before):
        yield EmitEvent("Warning", "PodsPending", trouble)
    if after.last_checkpoint_step is not None and before.last_checkpoint_step is None:
        yield EmitEvent("Normal", "FirstCheckpoint", f"step {after.last_checkpoint_step}: the job can resume from here")
    for action in actions:
        if isinstance(action, Scale):
            yield EmitEvent("Normal", "Scaled", f"worker pods of {action.cluster}: {action.before} to {action.after}")
        if isinstance(action, Create) and action.value["kind"] == "RayJob" and after.attempt != before.attempt:
            yield EmitEvent(
                "Normal", "AttemptStarted", f"attempt {after.attempt} as RayJob {action.value['metadata']['name']}"
            )


def _trouble(status: JobStatus) -> str:
    """Why pods do not become ready."""
    ready = status.condition(ConditionType.CLUSTER_READY)
    return ready.message if ready is not None and ready.status == "False" else ""


def _note(status: JobStatus) -> str:
    failure = status.last_failure
    if status.phase in _TROUBLE and failure is not None:
        then = f"; next attempt at {status.next_attempt_time}" if status.next_attempt_time else ""
        return f"{failure.error_class}: {failure.message}; {failure.remedy}{then}"
    if status.phase is JobPhase.SUCCEEDED:
        return f"{status.step} steps; the model is in {status.run_uri}/model"
    return status.message or (f"step {status.step} of {status.total_steps}" if status.total_steps else "")
