"""`status` of an EmbeddingJob on Kubernetes: what the operator has seen. Standard library and pydantic only.

Names are in camel case, as everywhere in a Kubernetes status.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class JobPhase(StrEnum):
    """What a job is doing, in one word."""

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
    """The conditions of a job, in the order in which a job that goes well meets them."""

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
    """As metav1.Condition has it."""

    type: ConditionType = Field(description="What is judged.")
    status: str = Field("Unknown", description="True, False or Unknown.")
    reason: str = Field(description="One word for programs.")
    message: str = Field("", description="A sentence for people.")
    observed_generation: int = Field(0, description="Generation of the job that was judged.")
    last_transition_time: str = Field(description="When `status` last changed.")


class JobFailure(_StatusPart):
    """How the last attempt that failed ended."""

    attempt: int = Field(description="Which attempt.")
    error_class: str = Field(description="user, data, storage, capacity, infrastructure or internal.")
    reason: str = Field(description="One word for programs.")
    message: str = Field("", description="What happened.")
    remedy: str = Field("", description="What to do.")
    time: str = Field(description="When the operator saw it.")


class JobStatus(_StatusPart):
    """Everything an operator needs to go on after a restart is here; the rest is for people."""

    observed_generation: int = Field(0, description="Generation of the job that this status is about.")
    phase: JobPhase = Field(JobPhase.PENDING, description="What the job is doing, in one word.")
    message: str = Field("", description="What it waits for, or how it ended.")
    attempt: int = Field(0, description="Attempts so far; it grows before the attempt's RayJob is created.")
    active: bool = Field(False, description="Whether the attempt is under way; it is not once its end was judged.")
    ray_job_uid: str = Field("", description="RayJob of the attempt, empty until it has been seen.")
    ray_cluster: str = Field("", description="RayCluster of the attempt.")
    fruitless_attempts: int = Field(0, description="Failed attempts in a row that wrote no new checkpoint.")
    checkpoint_at_start: int = Field(0, description="Step of the newest checkpoint when the attempt began.")
    next_attempt_time: str | None = Field(None, description="When a failed attempt is followed by another.")
    stop_requested_time: str | None = Field(None, description="When the attempt was asked to stop.")
    heartbeat_missed_since: str | None = Field(
        None, description="Since when the driver is missed: no report within driver_heartbeat_timeout_seconds."
    )
    started_time: str | None = Field(None, description="When the attempt was counted.")
    replicas: int = Field(0, description="Worker pods that are there.")
    ready_replicas: int = Field(0, description="Worker pods that are ready.")
    selector: str = Field("", description="Label selector of the worker pods, for autoscalers.")
    run_uri: str = Field("", description="The run directory.")
    step: int = Field(0, description="Optimizer steps done.")
    total_steps: int = Field(0, description="Optimizer steps in all.")
    progress: str = Field("", description="Share of the steps that are done.")
    epoch: float | None = Field(None, description="Epochs done.")
    loss: float | None = Field(None, description="Loss of the last steps.")
    examples_per_second: float | None = Field(None, description="Examples a second over the last steps.")
    tokens_per_second: float | None = Field(None, description="Tokens a second over the last steps.")
    eta: str = Field("", description="Time that is left, while training.")
    workers: int = Field(0, description="Ray Train workers that train.")
    restarts: int = Field(0, description="Starts of the workers in this attempt after the first.")
    steps_lost: int = Field(0, description="Steps that were repeated because a checkpoint was older.")
    last_checkpoint_step: int | None = Field(None, description="Step of the newest complete checkpoint.")
    last_failure: JobFailure | None = Field(None, description="How the last attempt that failed ended.")
    conditions: tuple[Condition, ...] = Field((), description="Judgments with reasons.")

    def condition(self, kind: ConditionType) -> Condition | None:
        return next((each for each in self.conditions if each.type is kind), None)

    def to_dict(self) -> dict[str, Any]:
        """As Kubernetes stores it; what is not known is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def status_of(job: Mapping[str, Any]) -> JobStatus:
    """The status that a job carries, or an empty one."""
    return JobStatus.model_validate(job.get("status") or {})
