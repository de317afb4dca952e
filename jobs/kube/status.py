"""`status` of an EmbeddingJob on Kubernetes, written by the operator.

Names are in camel case, as everywhere in a Kubernetes status.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from data_io.wording import shortened

MOST_CHARACTERS = 4096
"""Of a text in a status: the CRD refuses more."""


class JobPhase(StrEnum):
    """The phase of a job."""

    PENDING = "Pending"
    QUEUED = "Queued"
    STARTING = "Starting"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    RETRYING = "Retrying"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"

    @property
    def is_end(self) -> bool:
        return self in (JobPhase.SUCCEEDED, JobPhase.FAILED)


class ConditionType(StrEnum):
    """The conditions of a job, in the order in which a successful job meets them."""

    ACCEPTED = "Accepted"
    QUEUED = "Queued"
    CLUSTER_READY = "ClusterReady"
    STORAGE_READY = "StorageReady"
    TRAINING = "Training"
    CHECKPOINTED = "Checkpointed"
    DEGRADED = "Degraded"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class _StatusPart(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class Condition(_StatusPart):
    """A condition with the fields of metav1.Condition."""

    type: ConditionType = Field(description="Type of the condition.")
    status: str = Field("Unknown", description="True, False or Unknown.")
    reason: str = Field(description="Reason as one word, for programs.")
    message: str = Field("", description="Explanation, for people.")
    observed_generation: int = Field(0, description="Generation of the job that the condition is about.")
    last_transition_time: str = Field(description="When `status` last changed.")


class JobFailure(_StatusPart):
    """The failure of the last attempt that failed."""

    attempt: int = Field(description="Number of the attempt.")
    error_class: str = Field(
        description="Class of the error: user, data, storage, capacity, infrastructure or internal."
    )
    reason: str = Field(description="Reason as one word, for programs.")
    message: str = Field("", description="Description of the failure.")
    remedy: str = Field("", description="How to fix the problem.")
    time: str = Field(description="When the operator recorded the failure.")


class JobStatus(_StatusPart):
    """The state that the operator needs after a restart, and information for people."""

    observed_generation: int = Field(0, description="Generation of the job that this status is about.")
    phase: JobPhase = Field(JobPhase.PENDING, description="Phase of the job.")
    message: str = Field("", description="What the job waits for, or how it ended.")
    attempt: int = Field(
        0, description="Number of attempts so far. It increases before the attempt's RayJob is created."
    )
    active: bool = Field(False, description="Whether the newest attempt is in progress.")
    ray_job_uid: str = Field("", description="uid of the attempt's RayJob; empty until the operator has seen it.")
    ray_cluster: str = Field("", description="Name of the attempt's RayCluster.")
    fruitless_attempts: int = Field(0, description="Failed attempts in a row without a new checkpoint.")
    checkpoint_at_start: int = Field(0, description="Step of the newest checkpoint when the attempt started.")
    next_attempt_time: str | None = Field(None, description="When the next attempt starts.")
    stop_requested_time: str | None = Field(None, description="When the operator asked the attempt to stop.")
    heartbeat_missed_since: str | None = Field(
        None, description="Since when the heartbeat is missing: no report within driver_heartbeat_timeout_seconds."
    )
    started_time: str | None = Field(None, description="When the attempt started.")
    replicas: int = Field(0, description="Number of worker pods.")
    ready_replicas: int = Field(0, description="Number of ready worker pods.")
    selector: str = Field("", description="Label selector of the worker pods, for autoscalers.")
    run_uri: str = Field("", description="URI of the run directory.")
    step: int = Field(0, description="Completed optimizer steps.")
    total_steps: int = Field(0, description="Optimizer steps of the whole job.")
    progress: str = Field("", description="Completed share of the steps, in percent.")
    epoch: float | None = Field(None, description="Completed epochs.")
    loss: float | None = Field(None, description="Loss of the last steps.")
    examples_per_second: float | None = Field(None, description="Examples per second over the last steps.")
    tokens_per_second: float | None = Field(None, description="Tokens per second over the last steps.")
    eta: str = Field("", description="Estimated remaining time, during training.")
    workers: int = Field(0, description="Number of Ray Train workers.")
    restarts: int = Field(0, description="Restarts of the workers in this attempt.")
    steps_lost: int = Field(0, description="Steps computed again after restarts from an older checkpoint.")
    last_checkpoint_step: int | None = Field(None, description="Step of the newest complete checkpoint.")
    last_failure: JobFailure | None = Field(None, description="Failure of the last attempt that failed.")
    conditions: tuple[Condition, ...] = Field((), description="Conditions with their reasons.")

    def condition(self, kind: ConditionType) -> Condition | None:
        return next((each for each in self.conditions if each.type is kind), None)

    def to_dict(self) -> dict[str, Any]:
        """The status as Kubernetes stores it, without unknown values. Texts that the CRD would refuse are cut."""
        found: dict[str, Any] = _cut(self.model_dump(mode="json", by_alias=True, exclude_none=True))
        return found


def status_of(job: Mapping[str, Any]) -> JobStatus:
    """The status of a stored job, or an empty one."""
    return JobStatus.model_validate(job.get("status") or {})


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cut(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_cut(each) for each in value]
    return shortened(value, MOST_CHARACTERS) if isinstance(value, str) else value
